/**
 * Control calls are collective: each is answered when everybody who has a say in it has made it, and is looked at
 * again whenever somebody is gone. A peer waits in at most one call.
 */
import type { PcclErrorCode } from "../base/errors.js";
import { admitPending } from "./change.js";
import type { PeerMessage } from "./messages.js";
import {
  admittedPeers,
  type CoordinatorState,
  log,
  type Peer,
  type PeerId,
  pendingPeers,
  send,
  type Turn,
} from "./state.js";

/** Named as the users' functions are, since the names occur in errors. */
export type Call =
  | { readonly kind: "hasPendingPeers"; readonly requestId: number }
  | { readonly kind: "updateTopology"; readonly requestId: number }
  | {
      readonly kind: "syncSharedState";
      readonly requestId: number;
      readonly offer: PeerMessage & { kind: "sync-offer" };
    };

/** How many peers a message names one by one. */
const NAMED_PEERS_MAX = 16;

/** A peer begins to wait in a call. */
export function onCall(turn: Turn, peer: Peer, call: Call): void {
  const { requestId } = call;
  const refuse = (code: PcclErrorCode, message: string): void => {
    send(turn, peer, { kind: "call-failed", requestId, code, message });
    log(turn, { event: "call-failed", peerIds: [peer.id], code, reason: message });
  };
  if (peer.phase === "pending") {
    refuse("ERR_PCCL_NOT_INSTALLED", `${call.kind}: peer ${peer.id} is not admitted yet.`);
  } else if (peer.call !== undefined) {
    refuse("ERR_PCCL_CALL_IN_PROGRESS", `${call.kind}: peer ${peer.id} waits in ${peer.call.kind} already.`);
  } else peer.call = call;
}

/** Ends the calls of `peers` with the same error. */
export function failCalls(turn: Turn, peers: readonly Peer[], code: PcclErrorCode, message: string): void {
  for (const peer of peers) {
    if (peer.call === undefined) continue;
    send(turn, peer, { kind: "call-failed", requestId: peer.call.requestId, code, message });
    peer.call = undefined;
  }
  log(turn, { event: "call-failed", peerIds: peers.map((peer) => peer.id), code, reason: message });
}

/** Answers the calls that all admitted peers have made. Returns whether anything was done. */
export function settleVotes(state: CoordinatorState, turn: Turn): boolean {
  const voters = admittedPeers(state);
  const kind = voters[0]?.call?.kind;
  if (kind === undefined || voters.some((peer) => peer.call?.kind !== kind)) return false;
  const pending = pendingPeers(state).length > 0;
  if (kind === "hasPendingPeers") {
    answer(turn, voters, (requestId) => ({ kind: "pending-answer", requestId, pending }));
    return true;
  }
  // A change that is under way is finished first; if it was made for this call it answers it.
  if (kind !== "updateTopology" || state.change !== undefined) return false;
  if (!pending) answer(turn, voters, (requestId) => ({ kind: "topology-answer", requestId, changed: false }));
  else {
    const requests = voters.map((peer): [PeerId, number] => [peer.id, (peer.call as Call).requestId]);
    admitPending(state, turn, new Map(requests));
  }
  return true;
}

function answer(
  turn: Turn,
  voters: readonly Peer[],
  message: (requestId: number) => Parameters<typeof send>[2],
): void {
  for (const peer of voters) {
    const { requestId } = peer.call as Call;
    peer.call = undefined;
    send(turn, peer, message(requestId));
  }
}

/**
 * Peers that wait for each other in different calls would wait for ever: all admitted peers, or all of a group
 * (its sync needs each member's offer, the other calls need each member's vote). Called when nothing else can be
 * settled. Returns whether anything was done.
 */
export function settleMismatch(state: CoordinatorState, turn: Turn): boolean {
  const all = admittedPeers(state);
  const groups = [...new Set(all.map((peer) => peer.group))];
  const scopes = [all, ...groups.map((group) => all.filter((peer) => peer.group === group))];
  for (const peers of scopes) {
    const kinds = new Set(peers.map((peer) => peer.call?.kind));
    // A sync whose plans are out ends without any further call.
    const moving = peers.some((peer) => state.syncs.has(peer.group));
    if (kinds.size < 2 || kinds.has(undefined) || moving) continue;
    const waits = [...kinds].map(
      (kind) => `${kind} (${peerNames(peers.filter((p) => p.call?.kind === kind))})`,
    );
    failCalls(
      turn,
      peers,
      "ERR_PCCL_CALL_MISMATCH",
      `All peers wait, but in different calls: ${waits.join(", ")}.`,
    );
    return true;
  }
  return false;
}

export function peerNames(peers: readonly { readonly id: PeerId }[]): string {
  const named = peers.slice(0, NAMED_PEERS_MAX).map((peer) => peer.id);
  const more = peers.length - named.length;
  return `${peers.length === 1 ? "peer" : "peers"} ${named.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
