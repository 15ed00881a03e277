/** Descriptors and memory of the processes of a stress run, from the beginning to the end. */
import type { PeerProcess } from "./peer-process.js";
import { countDescriptors, describeConnections, residentMiB } from "./process-table.js";
import type { MemoryGrowth } from "./summary.js";

/** Steps after which a process has allocated what it works with. */
const WARM_STEPS = 20;

interface Sample {
  readonly atMs: number;
  readonly mebibytes: number;
}

/**
 * Descriptors that peers of one group hold beyond those of its newest one. In a ring at rest every peer has as many
 * links as every other, so what an older one has more has been forgotten somewhere; except that a relay has up to
 * `relayed` connections more.
 */
export function peerLeaks(group: readonly PeerProcess[], relayed: number): string[] {
  const [newest, ...older] = [...group].sort((a, b) => b.startedAtMs - a.startedAtMs);
  const normal = countDescriptors(newest?.pid ?? 0) ?? 0;
  return older.flatMap((peer) => {
    const count = countDescriptors(peer.pid) ?? 0;
    return count > normal + relayed
      ? [
          `${peer.name} (pid ${peer.pid}) holds ${count} descriptors, the newest peer of its group ${normal}; ` +
            `its connections: ${describeConnections(peer.pid)}; the newest's: ${describeConnections(newest?.pid ?? 0)}`,
        ]
      : [];
  });
}

export class ProcessWatch {
  readonly #samples = new WeakMap<PeerProcess, { steps: number; first: Sample | undefined }>();
  #coordinator: Sample | undefined;
  #coordinatorDescriptors = 0;

  /** All peers are connected to the coordinator now, and nothing has happened yet. */
  begin(coordinatorPid: number): void {
    this.#coordinator = sample(coordinatorPid);
    this.#coordinatorDescriptors = countDescriptors(coordinatorPid) ?? 0;
  }

  onStep(peer: PeerProcess): void {
    const entry = this.#samples.get(peer) ?? { steps: 0, first: undefined };
    this.#samples.set(peer, entry);
    if (++entry.steps === WARM_STEPS) entry.first = sample(peer.pid);
  }

  /** With as many peers as at the beginning, also a coordinator that was started since has as many descriptors. */
  coordinatorLeaks(pid: number): string[] {
    const count = countDescriptors(pid) ?? 0;
    const normal = this.#coordinatorDescriptors;
    return count > normal
      ? [
          `the coordinator (pid ${pid}) holds ${count} descriptors, ${normal} at the beginning with as many peers`,
        ]
      : [];
  }

  /** Of the coordinator, and of the peer that has lived longest. */
  memory(coordinatorPid: number, peers: readonly PeerProcess[]): MemoryGrowth[] {
    const [oldest] = [...peers].sort((a, b) => a.startedAtMs - b.startedAtMs);
    return [
      ...growth("coordinator", this.#coordinator, sample(coordinatorPid)),
      ...(oldest === undefined
        ? []
        : growth(oldest.name, this.#samples.get(oldest)?.first, sample(oldest.pid))),
    ];
  }
}

function sample(pid: number): Sample | undefined {
  const mebibytes = residentMiB(pid);
  return mebibytes === undefined ? undefined : { atMs: performance.now(), mebibytes };
}

function growth(process: string, from: Sample | undefined, to: Sample | undefined): MemoryGrowth[] {
  if (from === undefined || to === undefined) return [];
  return [{ process, fromMiB: from.mebibytes, toMiB: to.mebibytes, seconds: (to.atMs - from.atMs) / 1_000 }];
}
