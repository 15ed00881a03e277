/**
 * The coordinator as one function: an event and the time go in, messages to peers come out. It changes `state` in
 * place, which the caller owns; it reads no clock, no network and no randomness, so that a simulator can drive
 * the very code that ships. Semantics: docs/protocol.md, section 1.
 */
import type { PcclErrorCode } from "../base/errors.js";
import { HEARTBEATS_PER_LEASE, OUTBOX_MESSAGES_MAX, PROTOCOL_VERSION } from "../base/limits.js";
import {
  beginDueChange,
  changeDeadlineMs,
  expireChange,
  onLinkLost,
  onReady,
  settleChange,
} from "./change.js";
import { accept, acknowledge, createChannel, outstanding, UNNUMBERED } from "./channel.js";
import type { CoordinatorMessage, Envelope, PeerMessage } from "./messages.js";
import {
  type ConnectionId,
  type CoordinatorEffect,
  type CoordinatorEvent,
  type CoordinatorState,
  forget,
  log,
  type Peer,
  type PeerId,
  type ProbeResult,
  remove,
  sendUnnumbered,
  type Turn,
} from "./state.js";
import {
  expireMeasurements,
  measurementDeadlineMs,
  onMeasured,
  onTopologyQuery,
  settleOptimize,
} from "./optimize.js";
import { onAbortAnswer, onStalled, settleStalls } from "./stalls.js";
import { onSyncDone, settleSyncs } from "./sync.js";
import { onCall, onWithdraw, settleMismatch, settleVotes } from "./votes.js";

export function step(state: CoordinatorState, event: CoordinatorEvent, nowMs: number): CoordinatorEffect[] {
  const turn: Turn = { nowMs, effects: [] };
  switch (event.kind) {
    case "connected": {
      const { connection, address, secret } = event;
      state.strangers.set(connection, { address, secret, sinceMs: nowMs });
      if (state.strangers.size > state.config.peersMax) {
        const crowd = `register: ${state.config.peersMax} streams wait to register already.`;
        reject(state, turn, connection, "ERR_PCCL_REMOVED", crowd);
      }
      break;
    }
    case "message":
      // Nobody waits for a heartbeat, and they are most of what comes.
      if (!onMessage(state, turn, event.connection, event)) return turn.effects;
      break;
    case "invalid":
      onInvalid(state, turn, event.connection, event.reason);
      break;
    case "disconnected":
      onDisconnected(state, turn, event.connection, event.reason);
      break;
    case "probed":
      onProbed(state, turn, event.peerId, event.result);
      break;
    case "restarted":
      onRestarted(state, turn);
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
  settle(state, turn);
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
      settleOptimize(state, turn) ||
      beginDueChange(state, turn) ||
      settleStalls(state, turn) ||
      settleMismatch(state, turn);
    if (!changed) return;
  }
}

/** With the last admitted peer the frozen ops, rings and revisions of the old world are gone. */
function forgetEmptyWorld(state: CoordinatorState): void {
  if (state.installedEpoch === 0 || state.total.members > 0) return;
  state.installedEpoch = 0;
  state.rings = [];
  state.relays = [];
  state.departed.length = 0;
  state.relink.clear();
  state.reports.clear();
  state.stalls.clear();
  state.syncs.clear();
  state.records.clear();
  state.orders.clear();
}

/** Returns whether anything may have changed that others wait for. */
function onMessage(
  state: CoordinatorState,
  turn: Turn,
  connection: ConnectionId,
  { seq, ack, message }: Envelope<PeerMessage>,
): boolean {
  const id = state.peerOf.get(connection);
  const peer = id === undefined ? undefined : state.peers.get(id);
  if (peer === undefined) {
    // A stream that was ended may still carry what was sent before its peer knew.
    if (!state.strangers.has(connection)) return false;
    if (message.kind === "register") register(state, turn, connection, message);
    else if (message.kind === "attach") attach(state, turn, connection, message);
    else {
      const early = `${message.kind} came before register.`;
      reject(state, turn, connection, "ERR_PCCL_INVALID_ARGUMENT", early);
    }
    return true;
  }
  peer.heardAtMs = turn.nowMs;
  const breach = (what: string): true => {
    remove(state, turn, peer, `peer ${peer.id} broke the protocol: ${what}`);
    return true;
  };
  if (!acknowledge(peer.channel, ack)) return breach("it acknowledges a message that was never sent");
  if (message.kind === "heartbeat") {
    sendUnnumbered(turn, peer, { kind: "heartbeat" });
    return false;
  }
  if (message.kind === "register" || message.kind === "attach") {
    return breach(`${message.kind} came twice on one stream`);
  }
  const order = accept(peer.channel, seq);
  if (order === "repeated" && seq !== UNNUMBERED) return false;
  if (order !== "next") return breach(`message ${seq} came after message ${peer.channel.received}`);
  onNumbered(state, turn, peer, message);
  if (peer.channel.unacknowledged.length > OUTBOX_MESSAGES_MAX && state.peers.has(peer.id)) {
    return breach(`it acknowledges nothing while ${OUTBOX_MESSAGES_MAX} messages wait for it`);
  }
  return true;
}

function onNumbered(
  state: CoordinatorState,
  turn: Turn,
  peer: Peer,
  message: Exclude<PeerMessage, { kind: "register" | "attach" | "heartbeat" }>,
): void {
  switch (message.kind) {
    case "ready":
      return onReady(state, peer, message);
    case "link-lost":
      return onLinkLost(state, peer, message);
    case "stalled":
      return onStalled(state, peer, message);
    case "abort-answer":
      return onAbortAnswer(state, turn, peer, message);
    case "pending-vote":
      return onCall(state, turn, peer, { kind: "hasPendingPeers", requestId: message.requestId });
    case "topology-vote":
      return onCall(state, turn, peer, { kind: "updateTopology", requestId: message.requestId });
    case "optimize-vote": {
      const { requestId, maxAgeMs } = message;
      return onCall(state, turn, peer, { kind: "optimizeTopology", requestId, maxAgeMs });
    }
    case "topology-query":
      return onTopologyQuery(state, turn, peer, message.requestId);
    case "measured":
      return onMeasured(state, turn, peer, message);
    case "sync-offer":
      return onCall(state, turn, peer, {
        kind: "syncSharedState",
        requestId: message.requestId,
        offer: message,
      });
    case "sync-done":
      return onSyncDone(state, turn, peer, message);
    case "withdraw":
      return onWithdraw(state, turn, peer, message.requestId);
    case "leave":
      forget(state, turn, peer, "it left");
      return log(turn, { event: "left", peerId: peer.id, worldSize: state.total.members });
  }
}

/** Why a stream of this version can't be served, if it can't. */
function versionMismatch(call: string, protocolVersion: number): string | undefined {
  if (protocolVersion === PROTOCOL_VERSION) return undefined;
  return `${call}: the peer speaks protocol version ${protocolVersion}, the coordinator ${PROTOCOL_VERSION}.`;
}

function register(
  state: CoordinatorState,
  turn: Turn,
  connection: ConnectionId,
  { protocolVersion, group, endpoint, hostId }: PeerMessage & { kind: "register" },
): void {
  const mismatch = versionMismatch("register", protocolVersion);
  if (mismatch !== undefined) {
    return reject(state, turn, connection, "ERR_PCCL_VERSION_MISMATCH", mismatch);
  }
  if (state.peers.size >= state.config.peersMax) {
    const full = `register: the coordinator has its ${state.config.peersMax} peers already.`;
    return reject(state, turn, connection, "ERR_PCCL_REMOVED", full);
  }
  const stranger = state.strangers.get(connection);
  state.strangers.delete(connection);
  const peer: Peer = {
    id: state.nextPeerId++,
    secret: stranger?.secret ?? new Uint8Array(),
    group,
    endpoint: endpoint.host === "" ? { host: stranger?.address ?? "", port: endpoint.port } : endpoint,
    hostId,
    channel: createChannel(),
    connection,
    phase: "pending",
    heardAtMs: turn.nowMs,
    probing: false,
    reachable: false,
    call: undefined,
  };
  for (const other of [...state.peers.values()]) {
    const { host, port } = other.endpoint;
    if (other.connection !== undefined || host !== peer.endpoint.host || port !== peer.endpoint.port) {
      continue;
    }
    remove(state, turn, other, `peer ${other.id}'s stream broke, and another process has its data port now`);
  }
  state.peers.set(peer.id, peer);
  state.peerOf.set(connection, peer.id);
  const { leaseMs } = state.config;
  sendUnnumbered(turn, peer, { kind: "registered", peerId: peer.id, leaseMs, secret: peer.secret });
  log(turn, { event: "joined", peerId: peer.id, group, endpoint: peer.endpoint });
  probe(turn, peer);
}

/** A peer whose stream broke has a new one. */
function attach(
  state: CoordinatorState,
  turn: Turn,
  connection: ConnectionId,
  { protocolVersion, peerId, secret, received }: PeerMessage & { kind: "attach" },
): void {
  const mismatch = versionMismatch("attach", protocolVersion);
  if (mismatch !== undefined) {
    return reject(state, turn, connection, "ERR_PCCL_VERSION_MISMATCH", mismatch);
  }
  const removal = state.removals.get(peerId);
  if (removal !== undefined) {
    return reject(
      state,
      turn,
      connection,
      "ERR_PCCL_REMOVED",
      `attach: it had removed this peer: ${removal}.`,
    );
  }
  const peer = state.peers.get(peerId);
  // Another coordinator may have given the same id to another peer.
  if (peer === undefined || !equalBytes(peer.secret, secret)) {
    const unknown =
      `attach: it doesn't know a peer ${peerId} with this secret. Either it was restarted without the state of ` +
      "its last run, or the peer was gone for too long.";
    return reject(state, turn, connection, "ERR_PCCL_COORDINATOR_LOST", unknown);
  }
  if (!acknowledge(peer.channel, received)) {
    const ahead = `attach: peer ${peerId} has received more than was ever sent to it.`;
    return reject(state, turn, connection, "ERR_PCCL_COORDINATOR_LOST", ahead);
  }
  state.strangers.delete(connection);
  // The peer knows best which of its streams is alive.
  if (peer.connection !== undefined) {
    state.peerOf.delete(peer.connection);
    turn.effects.push({ kind: "end", connection: peer.connection });
  }
  peer.connection = connection;
  peer.heardAtMs = turn.nowMs;
  state.peerOf.set(connection, peerId);
  sendUnnumbered(turn, peer, { kind: "attached", received: peer.channel.received });
  const missing = outstanding(peer.channel);
  for (const { seq, message } of missing) {
    turn.effects.push({ kind: "send", connection, seq, ack: peer.channel.received, message });
  }
  log(turn, { event: "attached", peerId, resent: missing.length });
}

/** Compares all bytes, so that the time taken tells a stranger nothing. */
function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= (a[i] as number) ^ (b[i] ?? 0);
  return difference === 0;
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
  const rejected: CoordinatorMessage = { kind: "rejected", code, message };
  turn.effects.push(
    { kind: "send", connection, seq: UNNUMBERED, ack: 0, message: rejected },
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

/** The peer has its lease to attach again, unless its process turns out to be gone. */
function onDisconnected(state: CoordinatorState, turn: Turn, connection: ConnectionId, reason: string): void {
  state.strangers.delete(connection);
  const id = state.peerOf.get(connection);
  const peer = id === undefined ? undefined : state.peers.get(id);
  state.peerOf.delete(connection);
  if (peer === undefined) return;
  peer.connection = undefined;
  log(turn, { event: "detached", peerId: peer.id, reason });
  probe(turn, peer);
}

function probe(turn: Turn, peer: Peer): void {
  peer.probing = true;
  turn.effects.push({ kind: "probe", peerId: peer.id, endpoint: peer.endpoint });
}

function onProbed(state: CoordinatorState, turn: Turn, peerId: PeerId, result: ProbeResult): void {
  const peer = state.peers.get(peerId);
  if (peer === undefined) return;
  peer.probing = false;
  if (!peer.reachable && peer.connection !== undefined) {
    log(turn, { event: "probed", peerId, endpoint: peer.endpoint, result });
  }
  if (result === "alive") peer.reachable = true;
  // Where the coordinator never got through, a firewall or another host of that name may refuse as well.
  if (result !== "refused" || !peer.reachable || peer.connection !== undefined) return;
  remove(
    state,
    turn,
    peer,
    `peer ${peerId}'s stream broke and its data port is closed: its process has ended`,
  );
}

/** Nobody's silence before the restart counts, nor the time that a change has taken. */
function onRestarted(state: CoordinatorState, turn: Turn): void {
  state.strangers.clear();
  state.peerOf.clear();
  state.tickedAtMs = undefined;
  if (state.change !== undefined) state.change.deadlineMs = changeDeadlineMs(state, turn);
  for (const measurement of state.measurements.values()) {
    measurement.deadlineMs = measurementDeadlineMs(state, turn);
  }
  for (const peer of state.peers.values()) {
    peer.connection = undefined;
    peer.heardAtMs = turn.nowMs;
    probe(turn, peer);
  }
  log(turn, { event: "restarted", peers: state.peers.size, epoch: state.installedEpoch });
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
    // The Prepares of a change that began right before went out after the pause.
    if (state.change !== undefined) state.change.deadlineMs += sinceTickMs;
  }
  for (const peer of [...state.peers.values()]) {
    const silentMs = turn.nowMs - peer.heardAtMs;
    const detached = peer.connection === undefined && !peer.probing;
    if (detached && silentMs > leaseMs / HEARTBEATS_PER_LEASE) probe(turn, peer);
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
  expireMeasurements(state, turn);
}
