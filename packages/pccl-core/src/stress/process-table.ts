/** What Linux tells of a process in /proc. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Open descriptors, or undefined when the process is gone. */
export function countDescriptors(pid: number): number | undefined {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return undefined;
  }
}

/** Memory in use, or undefined when the process is gone. */
export function residentMiB(pid: number): number | undefined {
  try {
    const kibibytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return kibibytes === undefined ? undefined : Number(kibibytes) / 1024;
  } catch {
    return undefined;
  }
}

const LISTENING = "0A";

/** Where the process's TCP connections over IPv4 lead, and how many lead there, like "10.77.0.3:40001 ×2". */
export function describeConnections(pid: number): string {
  try {
    const folder = `/proc/${pid}/fd`;
    const inodes = new Set(
      readdirSync(folder).map((fd) => /^socket:\[(\d+)\]$/.exec(readlinkSync(`${folder}/${fd}`))?.[1]),
    );
    const counts = new Map<string, number>();
    // proc(5): "sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode".
    for (const line of readFileSync(`/proc/${pid}/net/tcp`, "utf8").split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/);
      // Of no socket is nothing known, and listeners lead nowhere.
      if (fields[9] === undefined || fields[3] === LISTENING || !inodes.has(fields[9])) continue;
      const remote = decodeAddress(fields[2] ?? "");
      counts.set(remote, (counts.get(remote) ?? 0) + 1);
    }
    return [...counts]
      .map(([remote, count]) => `${remote} ×${count}`)
      .sort()
      .join(", ");
  } catch (error) {
    return `unknown (${String(error)})`;
  }
}

/** Hexadecimal, the address in this machine's byte order, which is little-endian on all that this runs on. */
function decodeAddress(text: string): string {
  const [host = "", port = ""] = text.split(":");
  const bytes = host.match(/../g) ?? [];
  return `${bytes
    .map((byte) => Number.parseInt(byte, 16))
    .reverse()
    .join(".")}:${Number.parseInt(port, 16)}`;
}
