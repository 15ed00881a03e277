/** The coordinator's events as sentences for people. */
import { formatAddress } from "../base/address.js";
import type { CoordinatorLog } from "../membership/state.js";

/** Events that something went wrong. */
export const WARNINGS: ReadonlySet<CoordinatorLog["event"]> = new Set([
  "refused",
  "removed",
  "contradiction",
  "call-failed",
]);

export function describeLog(log: CoordinatorLog): string {
  switch (log.event) {
    case "joined":
      return `peer ${log.peerId} joined group ${log.group} from ${formatAddress(log.endpoint)}, pending`;
    case "refused":
      return `refused ${log.address} with ${log.code}: ${log.reason}`;
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
    case "call-failed":
      return `call of ${log.peerIds.length === 1 ? "peer" : "peers"} ${log.peerIds.join(", ")} failed with ${log.code}: ${log.reason}`;
  }
}
