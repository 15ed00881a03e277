/**
 * A network namespace for each peer of a stress run, joined by a bridge in one more, where the coordinator lives.
 * Nothing of it touches the machine's own network. Names carry the run's process id; what a run that was killed
 * has left behind is removed by the next one.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { pcclError } from "../base/errors.js";

const run = promisify(execFile);
const PREFIX = "pccl-stress-";
const BRIDGE = "bridge0";
/** Locally administered. */
const BRIDGE_ADDRESS = "02:00:00:00:00:01";
/** Addresses are private to the namespaces; every run has the same. */
const NETWORK = "10.77";
const FORWARDING = "3";
const DISABLED = "0";

export interface PeerNetwork {
  readonly namespace: string;
  readonly address: string;
  readonly port: string;
}

export class StressNetwork {
  readonly hub: string = `${PREFIX}${process.pid}-hub`;
  readonly hubAddress: string = `${NETWORK}.0.1`;
  readonly #namespaces = new Set<string>();

  /** Throws ERR_PCCL_INVALID_ARGUMENT when this process may not make namespaces. */
  static async create(): Promise<StressNetwork> {
    if (process.getuid?.() !== 0) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", "stress: --netns needs root.");
    }
    const network = new StressNetwork();
    try {
      await removeLeftovers();
      await run("ip", ["netns", "add", network.hub]);
      network.#namespaces.add(network.hub);
      await batch(network.hub, [
        "link set lo up",
        // Otherwise the bridge takes the lowest address of its ports, another one when that port goes, and for
        // seconds nobody reaches the coordinator.
        `link add ${BRIDGE} address ${BRIDGE_ADDRESS} type bridge`,
        `addr add ${network.hubAddress}/16 dev ${BRIDGE}`,
        `link set ${BRIDGE} up`,
      ]);
      return network;
    } catch (error) {
      await network.close();
      const reason = error instanceof Error ? error.message.trim() : String(error);
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `stress: --netns doesn't work here: ${reason}.`);
    }
  }

  async addPeer(ordinal: number): Promise<PeerNetwork> {
    const namespace = `${PREFIX}${process.pid}-${ordinal}`;
    const port = `peer${ordinal}`;
    const host = ordinal + 2;
    const address = `${NETWORK}.${host >> 8}.${host & 255}`;
    await run("ip", ["netns", "add", namespace]);
    this.#namespaces.add(namespace);
    await batch(this.hub, [
      `link add ${port} type veth peer name eth0 netns ${namespace}`,
      `link set ${port} master ${BRIDGE} up`,
    ]);
    await batch(namespace, ["link set lo up", `addr add ${address}/16 dev eth0`, "link set eth0 up"]);
    return { namespace, address, port };
  }

  /** Its processes must have ended. */
  async removePeer({ namespace }: PeerNetwork): Promise<void> {
    if (this.#namespaces.delete(namespace)) await run("ip", ["netns", "del", namespace]);
  }

  /** Everything to and from the peer vanishes in silence, or no longer does. */
  async setBlackHole({ port }: PeerNetwork, on: boolean): Promise<void> {
    const state = on ? DISABLED : FORWARDING;
    await run("ip", ["netns", "exec", this.hub, "bridge", "link", "set", "dev", port, "state", state]);
  }

  /** What the peer sends to the address is dropped, and thus nothing between the two gets anywhere, or no longer is. */
  async setPairCut({ namespace }: PeerNetwork, address: string, on: boolean): Promise<void> {
    await run("ip", ["-n", namespace, "route", on ? "add" : "del", "blackhole", `${address}/32`]);
  }

  /** Resets the TCP connections between a peer and an address, as a broken middlebox does; returns how many. */
  async reset({ namespace }: PeerNetwork, address: string): Promise<number> {
    const { stdout } = await run("ip", [
      "netns",
      "exec",
      namespace,
      "ss",
      "-K",
      "-t",
      "-H",
      "-n",
      "dst",
      address,
    ]);
    return stdout.split("\n").filter((line) => line !== "").length;
  }

  /** Processes that still live in a namespace of this run. */
  async processes(): Promise<number[]> {
    const pids = await Promise.all([...this.#namespaces].map(processesIn));
    return pids.flat();
  }

  async close(): Promise<void> {
    for (const namespace of this.#namespaces) await remove(namespace);
    this.#namespaces.clear();
  }
}

/** Several commands in one process, since each costs some milliseconds. */
async function batch(namespace: string, commands: readonly string[]): Promise<void> {
  const child = spawn("ip", ["-n", namespace, "-batch", "-"], { stdio: ["pipe", "ignore", "pipe"] });
  let complaint = "";
  child.stderr.on("data", (data) => (complaint += data));
  child.stdin.end(`${commands.join("\n")}\n`);
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`ip -n ${namespace}: ${complaint}`);
}

async function processesIn(namespace: string): Promise<number[]> {
  // One that was being made when its run was killed is only a name, and has none.
  const { stdout } = await run("ip", ["netns", "pids", namespace]).catch(() => ({ stdout: "" }));
  return stdout.split("\n").filter(Boolean).map(Number);
}

async function remove(namespace: string): Promise<void> {
  for (const pid of await processesIn(namespace)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended meanwhile.
    }
  }
  await run("ip", ["netns", "del", namespace]);
}

async function removeLeftovers(): Promise<void> {
  const { stdout } = await run("ip", ["netns", "list"]);
  for (const [, namespace = "", owner] of stdout.matchAll(/^(pccl-stress-(\d+)-\w+)/gm)) {
    if (!isAlive(Number(owner))) await remove(namespace);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
