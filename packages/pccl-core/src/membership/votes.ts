/**
 * Control calls are collective: each is answered when everybody who has a say in it has made it, and is looked at
 * again whenever somebody is gone. A peer waits in at most one call.
 */
import { failCalls, peerNames, type Call, refuse } from "./calls.js";
import { admitPending } from "./change.js";
import {
  admittedPeers,
  commonCall,
  type CoordinatorState,
  groupMembers,
  type Peer,
  type PeerId,
  pendingPeers,
  send,
  setCall,
  type Turn,
} from "./state.js";
import { isSyncing, withdrawFromSync } from "./sync.js";

/** A peer begins to wait in a call. */
export function onCall(state: CoordinatorState, turn: Turn, peer: Peer, call: Call): void {
  const { requestId } = call;
  if (peer.phase === "pending") {
    refuse(
      turn,
      peer,
      requestId,
      "ERR_PCCL_NOT_INSTALLED",
      `${call.kind}: peer ${peer.id} is not admitted yet.`,
    );
  } else if (peer.call !== undefined && state.change?.voters.get(peer.id) === peer.call.requestId) {
    // The caller gave up while it had no stream to the coordinator, too late to take its vote back.
    state.change.voters.delete(peer.id);
    if (call.kind === peer.call.kind) state.change.voters.set(peer.id, requestId);
    setCall(state, peer, call);
  } else if (peer.call !== undefined) {
    const busy = `${call.kind}: peer ${peer.id} waits in ${peer.call.kind} already.`;
    refuse(turn, peer, requestId, "ERR_PCCL_CALL_IN_PROGRESS", busy);
  } else setCall(state, peer, call);
}

/** The caller doesn't wait any longer. Too late when the answer is on its way, or what it asked for has begun. */
export function onWithdraw(state: CoordinatorState, turn: Turn, peer: Peer, requestId: number): void {
  const { call } = peer;
  if (call?.requestId !== requestId) return;
  if (state.change?.voters.get(peer.id) === requestId) return;
  if (isSyncing(state, peer)) return withdrawFromSync(state, turn, peer);
  const scope = call.kind === "syncSharedState" ? groupMembers(state, peer.group) : admittedPeers(state);
  const missing = scope.filter((other) => other.call?.kind !== call.kind);
  const waited = missing.length === 0 ? "" : ` while ${peerNames(missing)} had not called it`;
  setCall(state, peer, undefined);
  refuse(turn, peer, requestId, "ERR_PCCL_CANCELLED", `${call.kind}: withdrawn${waited}.`);
}

/** Answers the calls that all admitted peers have made. Returns whether anything was done. */
export function settleVotes(state: CoordinatorState, turn: Turn): boolean {
  const kind = commonCall(state.total);
  if (kind !== "hasPendingPeers" && kind !== "updateTopology") return false;
  // A change that is under way is finished first; if it was made for this call it answers it.
  if (kind === "updateTopology" && state.change !== undefined) return false;
  const voters = admittedPeers(state);
  const pending = pendingPeers(state).length > 0;
  if (kind === "hasPendingPeers") {
    answer(state, turn, voters, (requestId) => ({ kind: "pending-answer", requestId, pending }));
    return true;
  }
  if (!pending) {
    answer(state, turn, voters, (requestId) => ({ kind: "topology-answer", requestId, changed: false }));
  } else {
    const requests = voters.map((peer): [PeerId, number] => [peer.id, (peer.call as Call).requestId]);
    admitPending(state, turn, new Map(requests));
  }
  return true;
}

function answer(
  state: CoordinatorState,
  turn: Turn,
  voters: readonly Peer[],
  message: (requestId: number) => Parameters<typeof send>[2],
): void {
  for (const peer of voters) {
    const { requestId } = peer.call as Call;
    setCall(state, peer, undefined);
    send(turn, peer, message(requestId));
  }
}

/**
 * Peers that wait for each other in different calls would wait for ever: all admitted peers, or all of a group
 * (its sync needs each member's offer, the other calls need each member's vote). Called when nothing else can be
 * settled. Returns whether anything was done.
 */
export function settleMismatch(state: CoordinatorState, turn: Turn): boolean {
  if (commonCall(state.total) === "different" && failMismatch(state, turn, admittedPeers(state))) return true;
  for (const { group } of state.rings) {
    if (
      commonCall(state.tallies.get(group)) === "different" &&
      failMismatch(state, turn, groupMembers(state, group))
    )
      return true;
  }
  return false;
}

function failMismatch(state: CoordinatorState, turn: Turn, peers: readonly Peer[]): boolean {
  // A sync whose plans are out, and a vote that has been counted, end without any further call.
  const { change } = state;
  if (peers.some((peer) => isSyncing(state, peer) || change?.voters.has(peer.id) === true)) return false;
  const kinds = new Set(peers.map((peer) => peer.call?.kind));
  const waits = [...kinds].map(
    (kind) => `${kind} (${peerNames(peers.filter((p) => p.call?.kind === kind))})`,
  );
  const message = `All peers wait, but in different calls: ${waits.join(", ")}.`;
  failCalls(state, turn, peers, "ERR_PCCL_CALL_MISMATCH", message);
  return true;
}
