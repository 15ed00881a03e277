/** The coordinator's events as sentences for people. */
import { formatAddress } from "../base/address.js";
import type { CoordinatorLog, ProbeResult } from "../membership/state.js";
import type { Restored } from "./journal.js";

/** What a coordinator found in its state directory. */
export interface RestoredLog {
  readonly event: "restored";
  readonly peers: number;
  readonly groups: number;
  /** Of the installed view. */
  readonly epoch: number;
  /** The shared state's, by group. */
  readonly revisions: Readonly<Record<number, number>>;
  /** Events behind the journal's snapshot. */
  readonly replayed: number;
  /** Bytes at the journal's end that the last coordinator had only begun to write. */
  readonly tornBytes: number;
}

/** Events that something went wrong. */
export const WARNINGS: ReadonlySet<CoordinatorLog["event"]> = new Set([
  "refused",
  "removed",
  "contradiction",
  "not-measured",
  "call-failed",
]);

const PROBED: Readonly<Record<ProbeResult, string>> = {
  alive: "answers",
  refused: "refuses connections from here",
  unknown: "gives no answer to here",
};

function megabits(bytesPerSecond: number): string {
  return `${((bytesPerSecond * 8) / 1e6).toFixed(1)} Mbit/s`;
}

export function describeLog(log: CoordinatorLog): string {
  switch (log.event) {
    case "joined":
      return `peer ${log.peerId} joined group ${log.group} from ${formatAddress(log.endpoint)}, pending`;
    case "refused":
      return `refused ${log.address} with ${log.code}: ${log.reason}`;
    case "probed":
      return `peer ${log.peerId}'s data port ${formatAddress(log.endpoint)} ${PROBED[log.result]}`;
    case "detached":
      return `peer ${log.peerId} is detached: ${log.reason}`;
    case "attached":
      return `peer ${log.peerId} attached again; messages sent again: ${log.resent}`;
    case "restarted":
      return `going on with ${log.peers} peers in epoch ${log.epoch}; waiting for them to attach`;
    case "left":
      return `peer ${log.peerId} left; world size ${log.worldSize}`;
    case "removed":
      return `peer ${log.peerId} was removed: ${log.reason}; world size ${log.worldSize}`;
    case "preparing":
      return `preparing epoch ${log.epoch} for ${log.worldSize} peers (attempt ${log.attempt}), ${log.reason}`;
    case "admitted":
      return `peer ${log.peerId} admitted in epoch ${log.epoch}; world size ${log.worldSize}`;
    case "installed":
      return `epoch ${log.epoch} installed; world size ${log.worldSize}; ops committed ${log.commits}, aborted ${log.aborts}`;
    case "contradiction":
      return `group ${log.group}: reports of an op contradict each other: ${log.reason}`;
    case "synced":
      return `group ${log.group} synced revision ${log.revision}; ${log.receivers} peers fetched`;
    case "measured": {
      const { from, to, bytesPerSecond, rttMs } = log;
      return `path from peer ${from} to peer ${to}: ${megabits(bytesPerSecond)}, round trip ${rttMs.toFixed(2)} ms`;
    }
    case "not-measured":
      return `path from peer ${log.from} to peer ${log.to} could not be measured: ${log.reason}`;
    case "topology": {
      const {
        group,
        adopted,
        peerIds,
        bytesPerSecond,
        bytesPerSecondBefore,
        roundSeconds,
        roundSecondsBefore,
      } = log;
      const now = `slowest path ${megabits(bytesPerSecond)}, round ${(roundSeconds * 1_000).toFixed(1)} ms`;
      const before = `${megabits(bytesPerSecondBefore)}, ${(roundSecondsBefore * 1_000).toFixed(1)} ms`;
      const change = adopted ? `gets the ring ${peerIds.join(", ")}` : `keeps its ring ${peerIds.join(", ")}`;
      return `group ${group} ${change}: ${now}${adopted ? ` instead of ${before}` : ""}`;
    }
    case "call-failed":
      return `call of ${log.peerIds.length === 1 ? "peer" : "peers"} ${log.peerIds.join(", ")} failed with ${log.code}: ${log.reason}`;
  }
}

export function describeRestored({ state, replayed, tornBytes }: Restored): [RestoredLog, string] {
  const { peers, installedEpoch: epoch, records } = state;
  const groups = new Set([...peers.values()].map((peer) => peer.group)).size;
  const revisions = Object.fromEntries([...records].map(([group, { revision }]) => [group, revision]));
  const each = Object.entries(revisions).map(([group, revision]) => `group ${group} at ${revision}`);
  return [
    { event: "restored", peers: peers.size, groups, epoch, revisions, replayed, tornBytes },
    `restored ${peers.size} peers in ${groups} groups, epoch ${epoch}, revisions ${each.join(", ") || "none"}; ` +
      `events replayed: ${replayed}${tornBytes > 0 ? `; unfinished bytes dropped: ${tornBytes}` : ""}`,
  ];
}
