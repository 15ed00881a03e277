/** The calls that peers wait in, and how they end without success. */
import type { PcclErrorCode } from "../base/errors.js";
import type { PeerMessage } from "./messages.js";
import { type CoordinatorState, log, type Peer, type PeerId, send, setCall, type Turn } from "./state.js";

/** Named as the users' functions are, since the names occur in errors. */
export type Call =
  | { readonly kind: "hasPendingPeers"; readonly requestId: number }
  | { readonly kind: "updateTopology"; readonly requestId: number }
  /** Measurements older than `maxAgeMs` are made anew. */
  | { readonly kind: "optimizeTopology"; readonly requestId: number; readonly maxAgeMs: number }
  | {
      readonly kind: "syncSharedState";
      readonly requestId: number;
      readonly offer: PeerMessage & { kind: "sync-offer" };
    };

/** How many peers a message names one by one. */
const NAMED_PEERS_MAX = 16;

/** Ends the calls of `peers` with the same error. */
export function failCalls(
  state: CoordinatorState,
  turn: Turn,
  peers: readonly Peer[],
  code: PcclErrorCode,
  message: string,
): void {
  for (const peer of peers) {
    if (peer.call === undefined) continue;
    send(turn, peer, { kind: "call-failed", requestId: peer.call.requestId, code, message });
    setCall(state, peer, undefined);
  }
  log(turn, { event: "call-failed", peerIds: peers.map((peer) => peer.id), code, reason: message });
}

/** Fails a call that the peer doesn't wait in, or no longer does. */
export function refuse(
  turn: Turn,
  peer: Peer,
  requestId: number,
  code: PcclErrorCode,
  message: string,
): void {
  send(turn, peer, { kind: "call-failed", requestId, code, message });
  log(turn, { event: "call-failed", peerIds: [peer.id], code, reason: message });
}

export function peerNames(peers: readonly { readonly id: PeerId }[]): string {
  const named = peers.slice(0, NAMED_PEERS_MAX).map((peer) => peer.id);
  const more = peers.length - named.length;
  return `${peers.length === 1 ? "peer" : "peers"} ${named.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
