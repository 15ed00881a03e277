/**
 * The coordinator as one function: an event and the time go in, messages to peers come out. It changes `state` in
 * place, which the caller owns; it reads no clock, no network and no randomness, so that a simulator can drive
 * the very code that ships. Semantics: docs/protocol.md, section 1.
 */
import type { PcclErrorCode } from "../base/errors.js";
import { PROTOCOL_VERSION } from "../base/limits.js";
import { beginDueChange, expireChange, onLinkLost, onReady, settleChange } from "./change.js";
import type { PeerMessage } from "./messages.js";
import {
  admittedPeers,
  type ConnectionId,
  type CoordinatorEffect,
  type CoordinatorEvent,
  type CoordinatorState,
  forget,
  log,
  type Peer,
  remove,
  send,
  type Turn,
} from "./state.js";
import { onSyncDone, settleSyncs } from "./sync.js";
import { onCall, settleMismatch, settleVotes } from "./votes.js";

export function step(state: CoordinatorState, event: CoordinatorEvent, nowMs: number): CoordinatorEffect[] {
  const turn: Turn = { nowMs, effects: [] };
  switch (event.kind) {
    case "connected":
      state.strangers.set(event.connection, { address: event.address, sinceMs: nowMs });
      if (state.strangers.size > state.config.peersMax) {
        const crowd = `register: ${state.config.peersMax} streams wait to register already.`;
        reject(state, turn, event.connection, "ERR_PCCL_REMOVED", crowd);
      }
      break;
    case "message":
      onMessage(state, turn, event.connection, event.message);
      break;
    case "invalid":
      onInvalid(state, turn, event.connection, event.reason);
      break;
    case "disconnected":
      onDisconnected(state, turn, event.connection, event.reason);
      break;
    case "tick":
      onTick(state, turn);
      break;
    case "shutdown":
      for (const peer of [...state.peers.values()])
        remove(state, turn, peer, "the coordinator is shutting down");
      for (const connection of state.strangers.keys()) turn.effects.push({ kind: "end", connection });
      state.strangers.clear();
      return turn.effects;
  }
  // Nobody waits for a heartbeat, and they are most of what comes.
  if (event.kind !== "message" || event.message.kind !== "heartbeat") settle(state, turn);
  return turn.effects;
}

/**
 * Everything that waits on other peers is looked at after each event, from the facts as they are now, rather than
 * wherever an event might complete it. Each round that does something uses up a call, a peer or a change.
 */
function settle(state: CoordinatorState, turn: Turn): void {
  for (;;) {
    forgetEmptyWorld(state);
    const changed =
      settleChange(state, turn) ||
      settleSyncs(state, turn) ||
      settleVotes(state, turn) ||
      beginDueChange(state, turn) ||
      settleMismatch(state, turn);
    if (!changed) return;
  }
}

/** With the last admitted peer the frozen ops, rings and revisions of the old world are gone. */
function forgetEmptyWorld(state: CoordinatorState): void {
  if (state.installedEpoch === 0 || admittedPeers(state).length > 0) return;
  state.installedEpoch = 0;
  state.rings = [];
  state.relink = undefined;
  state.reports.clear();
  state.syncs.clear();
  state.records.clear();
}

function onMessage(
  state: CoordinatorState,
  turn: Turn,
  connection: ConnectionId,
  message: PeerMessage,
): void {
  const id = state.peerOf.get(connection);
  const peer = id === undefined ? undefined : state.peers.get(id);
  if (peer === undefined) {
    // A stream that was ended may still carry what was sent before its peer knew.
    if (!state.strangers.has(connection)) return;
    if (message.kind === "register") register(state, turn, connection, message);
    else
      reject(state, turn, connection, "ERR_PCCL_INVALID_ARGUMENT", `${message.kind} came before register.`);
    return;
  }
  peer.heardAtMs = turn.nowMs;
  switch (message.kind) {
    case "register":
      return remove(state, turn, peer, `peer ${peer.id} registered twice on one stream`);
    case "heartbeat":
      return send(turn, peer, { kind: "heartbeat" });
    case "ready":
      return onReady(state, peer, message);
    case "link-lost":
      return onLinkLost(state, peer, message);
    case "pending-vote":
      return onCall(turn, peer, { kind: "hasPendingPeers", requestId: message.requestId });
    case "topology-vote":
      return onCall(turn, peer, { kind: "updateTopology", requestId: message.requestId });
    case "sync-offer":
      return onCall(turn, peer, {
        kind: "syncSharedState",
        requestId: message.requestId,
        offer: message,
      });
    case "sync-done":
      return onSyncDone(state, turn, peer, message);
    case "leave":
      forget(state, turn, peer);
      return log(turn, { event: "left", peerId: peer.id, worldSize: admittedPeers(state).length });
  }
}

function register(
  state: CoordinatorState,
  turn: Turn,
  connection: ConnectionId,
  { protocolVersion, group, endpoint }: PeerMessage & { kind: "register" },
): void {
  if (protocolVersion !== PROTOCOL_VERSION) {
    const versions = `the peer speaks protocol version ${protocolVersion}, the coordinator ${PROTOCOL_VERSION}.`;
    return reject(state, turn, connection, "ERR_PCCL_VERSION_MISMATCH", `register: ${versions}`);
  }
  if (state.peers.size >= state.config.peersMax) {
    const full = `register: the coordinator has its ${state.config.peersMax} peers already.`;
    return reject(state, turn, connection, "ERR_PCCL_REMOVED", full);
  }
  const address = state.strangers.get(connection)?.address ?? "";
  state.strangers.delete(connection);
  const peer: Peer = {
    id: state.nextPeerId++,
    connection,
    group,
    endpoint: endpoint.host === "" ? { host: address, port: endpoint.port } : endpoint,
    phase: "pending",
    heardAtMs: turn.nowMs,
    call: undefined,
  };
  state.peers.set(peer.id, peer);
  state.peerOf.set(connection, peer.id);
  send(turn, peer, { kind: "registered", peerId: peer.id, leaseMs: state.config.leaseMs });
  log(turn, { event: "joined", peerId: peer.id, group, endpoint: peer.endpoint });
}

/** Turns away a stream that hasn't registered. */
function reject(
  state: CoordinatorState,
  turn: Turn,
  connection: ConnectionId,
  code: PcclErrorCode,
  message: string,
): void {
  const address = state.strangers.get(connection)?.address ?? "";
  state.strangers.delete(connection);
  turn.effects.push(
    { kind: "send", connection, message: { kind: "rejected", code, message } },
    { kind: "end", connection },
  );
  log(turn, { event: "refused", address, code, reason: message });
}

function onInvalid(state: CoordinatorState, turn: Turn, connection: ConnectionId, reason: string): void {
  const id = state.peerOf.get(connection);
  const peer = id === undefined ? undefined : state.peers.get(id);
  if (peer !== undefined) remove(state, turn, peer, `peer ${peer.id} broke the protocol: ${reason}`);
  else if (state.strangers.has(connection)) {
    reject(state, turn, connection, "ERR_PCCL_INVALID_ARGUMENT", `register: ${reason}.`);
  }
}

function onDisconnected(state: CoordinatorState, turn: Turn, connection: ConnectionId, reason: string): void {
  state.strangers.delete(connection);
  const id = state.peerOf.get(connection);
  const peer = id === undefined ? undefined : state.peers.get(id);
  if (peer === undefined) return;
  forget(state, turn, peer);
  const worldSize = admittedPeers(state).length;
  log(turn, { event: "removed", peerId: peer.id, reason: `its stream ended: ${reason}`, worldSize });
}

function onTick(state: CoordinatorState, turn: Turn): void {
  const { leaseMs } = state.config;
  const sinceTickMs = turn.nowMs - (state.tickedAtMs ?? turn.nowMs);
  state.tickedAtMs = turn.nowMs;
  if (sinceTickMs > leaseMs / 2) {
    // This process was stopped or starved: what the peers said meanwhile is still unread, so that their silence
    // proves nothing. Each gets half a lease to be heard.
    for (const peer of state.peers.values()) {
      peer.heardAtMs = Math.max(peer.heardAtMs, turn.nowMs - leaseMs / 2);
    }
  }
  for (const peer of [...state.peers.values()]) {
    const silentMs = turn.nowMs - peer.heardAtMs;
    if (silentMs <= leaseMs) continue;
    const silence = `silent for ${Math.round(silentMs)} ms, longer than its lease of ${leaseMs} ms`;
    remove(state, turn, peer, `peer ${peer.id} was ${silence}`);
  }
  for (const [connection, { sinceMs }] of state.strangers) {
    if (turn.nowMs - sinceMs <= leaseMs) continue;
    const message = `register: nothing came within ${leaseMs} ms.`;
    reject(state, turn, connection, "ERR_PCCL_TIMEOUT", message);
  }
  expireChange(state, turn);
}
