/**
 * Ops that wait for members who wait in a call themselves: neither would ever end. A member reports an op that has
 * been waiting for a while for others to call it. When one of those waits in updateTopology or syncSharedState, no
 * op of its own is in flight, so it can't have called that op, and won't before its call ends, for which it needs
 * the reporter. Reports travel, though, and may be out of date: so the reporter is asked to abort the op if it
 * *still* lacks that member's word, and only its yes makes the mismatch certain.
 */
import { type Call, failCalls, peerNames } from "./calls.js";
import type { OpName, PeerMessage } from "./messages.js";
import { type CoordinatorState, type Peer, ringOf, send, type Stall, type Turn } from "./state.js";
import { isSyncing } from "./sync.js";
import { opKey } from "./verdicts.js";

/** Reports kept of one peer: ops in flight are limited, and a newer report says as much. */
const STALLS_MAX = 256;

export function onStalled(
  state: CoordinatorState,
  peer: Peer,
  { epoch, tag, seq, from, to, missing }: PeerMessage & { kind: "stalled" },
): void {
  if (peer.phase !== "admitted" || ringOf(state, peer.group)?.epoch !== epoch) return;
  const stalls = state.stalls.get(peer.id) ?? [];
  stalls.push({ epoch, tag, seq, from, to, missing, asked: undefined });
  if (stalls.length > STALLS_MAX) stalls.shift();
  state.stalls.set(peer.id, stalls);
}

/** Whether the peer's call keeps it from starting ops, and waits for others. */
function blocks(state: CoordinatorState, peer: Peer | undefined): peer is Peer & { readonly call: Call } {
  if (peer?.call === undefined) return false;
  switch (peer.call.kind) {
    case "hasPendingPeers":
      return false;
    case "updateTopology":
    case "optimizeTopology":
      return state.change?.voters.has(peer.id) !== true;
    case "syncSharedState":
      return !isSyncing(state, peer);
  }
}

/** Asks the reporters of stalls that look like mismatches. Returns whether anything was done. */
export function settleStalls(state: CoordinatorState, turn: Turn): boolean {
  for (const [id, stalls] of state.stalls) {
    for (const stall of stalls) {
      if (stall.asked !== undefined) continue;
      const blocked = stall.missing.find((other) => blocks(state, state.peers.get(other)));
      const peer = state.peers.get(id);
      if (blocked === undefined || peer === undefined) continue;
      stall.asked = blocked;
      const { epoch, tag, seq, from, to } = stall;
      send(turn, peer, { kind: "abort-op", epoch, tag, seq, from, to, missing: blocked });
      return true;
    }
  }
  return false;
}

/** The op was aborted at all of its members, so both sides hear of it; or it wasn't a mismatch. */
export function onAbortAnswer(
  state: CoordinatorState,
  turn: Turn,
  peer: Peer,
  { aborted, ...op }: PeerMessage & { kind: "abort-answer" },
): void {
  const stalls = state.stalls.get(peer.id) ?? [];
  const isAnswered = (stall: Stall): boolean =>
    stall.epoch === op.epoch && opKey(stall) === opKey(op) && stall.asked !== undefined;
  const answered = stalls.find(isAnswered);
  state.stalls.set(
    peer.id,
    stalls.filter((stall) => stall !== answered),
  );
  const blocked = answered?.asked === undefined ? undefined : state.peers.get(answered.asked);
  if (!aborted || !blocks(state, blocked)) return;
  const { kind } = blocked.call;
  // Not those whose call ends by itself, such as a member that still fetches.
  const callers = [...state.peers.values()].filter(
    (other) =>
      blocks(state, other) &&
      other.call.kind === kind &&
      (kind !== "syncSharedState" || other.group === blocked.group),
  );
  const message =
    `Peers wait for each other in different calls: ${kind} (${peerNames(callers)}), ` +
    `${describeOp(op)} (peer ${peer.id}).`;
  failCalls(state, turn, callers, "ERR_PCCL_CALL_MISMATCH", message);
}

function describeOp({ tag, from, to }: OpName): string {
  return from === undefined
    ? `an op of the group with tag ${tag}`
    : `a send from peer ${from} to peer ${to} with tag ${tag}`;
}
