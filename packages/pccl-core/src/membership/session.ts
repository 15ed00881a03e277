/**
 * The peer's end of the control stream as one function, of the same shape as the coordinator: it changes `state`
 * in place, and reads no clock, no network and no engine. peer/session-worker.ts and the simulator drive it.
 * A broken stream is made again; messages are numbered and sent again, so that only the delay is seen.
 */
import type { PcclErrorCode } from "../base/errors.js";
import {
  HEARTBEATS_PER_LEASE,
  HEARTBEATS_UNANSWERED_MAX,
  LEASE_DEFAULT_MS,
  PREPARE_TIMEOUT_MS,
  PROTOCOL_VERSION,
} from "../base/limits.js";
import {
  accept,
  acknowledge,
  type Channel,
  createChannel,
  outstanding,
  push,
  UNNUMBERED,
} from "./channel.js";
import type {
  InstalledNotice,
  SessionError,
  SessionNotice,
  SessionReplies,
  SessionRequest,
} from "./session-protocol.js";
import type {
  CoordinatorMessage,
  Endpoint,
  Envelope,
  JoinedPeer,
  LinkFailure,
  LostPeer,
  OpReport,
  OpVerdict,
  PathSpeed,
  PeerMessage,
  RingOp,
  View,
} from "./messages.js";

export interface SessionConfig {
  readonly group: number;
  /** Empty host: the address that the coordinator sees. */
  readonly advertise: Endpoint;
  /** Equal for peers that can share memory; empty for one that shares none. */
  readonly hostId: string;
  /** How long to try to reach the coordinator again after the stream broke. */
  readonly coordinatorTimeoutMs: number;
}

export interface EngineMember {
  readonly peerId: number;
  /** Empty, and port 0, for members that this peer doesn't have to dial. */
  readonly host: string;
  readonly port: number;
  /** The relay to which host and port lead, when the member can't be reached directly. */
  readonly via?: number;
}

/** One group's part of a view, as the native engine takes it. */
export interface EngineView {
  /** The ring's: it names ops and links. */
  readonly epoch: number;
  readonly viewEpoch: number;
  readonly peerId: number;
  readonly key: Uint8Array;
  readonly ring: readonly EngineMember[];
  /** Parallel to the ring: members with the same number are on the same host. */
  readonly hosts: readonly number[];
  readonly worldSize: number;
  /** A link without a sign of life for this long is broken. */
  readonly silenceMs: number;
  /** Pairs of members whose bytes this peer passes on. */
  readonly relays: readonly { readonly a: number; readonly b: number }[];
}

export type EngineOpReport = Omit<OpReport, "epoch">;
export type EngineOpVerdict = Omit<OpVerdict, "epoch">;

export interface SessionState {
  readonly config: SessionConfig;
  phase: "connecting" | "registering" | "pending" | "admitted" | "leaving" | "ended";
  /** none: broken, another one is on its way. attaching: there, but the coordinator hasn't agreed yet. */
  stream: "none" | "attaching" | "attached";
  /** When the stream broke that has no successor yet, and why. */
  broken: { readonly sinceMs: number; readonly reason: string } | undefined;
  peerId: number;
  secret: Uint8Array;
  readonly channel: Channel<PeerMessage>;
  leaseMs: number;
  heardAtMs: number;
  sentAtMs: number;
  tickedAtMs: number | undefined;
  /** 0 before the first install. */
  installedEpoch: number;
  /** Of the installed view; epoch 0 before the first install. */
  ring: { readonly epoch: number; readonly peerIds: readonly number[] };
  /** The view between Prepare and Install. */
  preparing: { readonly view: View; ready: boolean } | undefined;
  /** Requests that a message of the coordinator will answer; their ids are the wire's request ids. */
  readonly open: Map<number, SessionRequest["kind"]>;
  /** A sync from its plan to its end. */
  sync: { readonly offerId: number; doneId: number | undefined } | undefined;
  leaveId: number | undefined;
  end: SessionError | undefined;
}

export type SessionEvent =
  /** There is a stream to the coordinator: the first one, or the one that `connect` asked for. */
  | { readonly kind: "connected" }
  | ({ readonly kind: "message" } & Envelope<CoordinatorMessage>)
  /** The stream broke. */
  | { readonly kind: "detached"; readonly reason: string }
  /** The coordinator can't be reached, or the engine or the wire refused something: no stream will come. */
  | { readonly kind: "failed"; readonly error: SessionError }
  | { readonly kind: "tick" }
  /** The engine has built what it could of a view. `ops`: what engine-prepare reported of the frozen ring. */
  | {
      readonly kind: "prepared";
      readonly epoch: number;
      readonly failures: readonly LinkFailure[];
      readonly ops: readonly EngineOpReport[];
    }
  | { readonly kind: "link-lost"; readonly epoch: number; readonly peerId: number; readonly reason: string }
  | ({ readonly kind: "stalled"; readonly missing: readonly number[] } & RingOp)
  /** What became of an engine-abort. */
  | ({ readonly kind: "abort-answered"; readonly aborted: boolean } & RingOp)
  /** The end of an engine-measure. */
  | {
      readonly kind: "measured";
      readonly measurementId: number;
      readonly result: PathSpeed | { readonly reason: string };
    }
  | { readonly kind: "request"; readonly request: SessionRequest };

export type SessionEffect =
  | ({ readonly kind: "send" } & Envelope<PeerMessage>)
  /** Lets go of the stream there is, and tries to make another one; `connected` follows when there is one. */
  | { readonly kind: "connect" }
  /** Ends the stream after what was sent on it. */
  | { readonly kind: "end" }
  | { readonly kind: "engine-prepare"; readonly view: EngineView; readonly timeoutMs: number }
  | { readonly kind: "engine-install"; readonly epoch: number; readonly verdicts: readonly EngineOpVerdict[] }
  /** The ring stays; the view around it has changed. */
  | { readonly kind: "engine-set-world"; readonly epoch: number; readonly worldSize: number }
  /** Aborts the op if it still waits for this peer to call it; `abort-answered` tells. */
  | ({ readonly kind: "engine-abort"; readonly peerId: number } & RingOp)
  /** Find out what the path to this member carries, or the one from it; `measured` tells. */
  | {
      readonly kind: "engine-measure";
      readonly measurementId: number;
      readonly target: EngineMember;
      readonly direction: "send" | "receive";
    }
  | { readonly kind: "notify"; readonly notice: SessionNotice };

interface Turn {
  readonly nowMs: number;
  readonly effects: SessionEffect[];
}

export function createSession(config: SessionConfig): SessionState {
  return {
    config,
    phase: "connecting",
    stream: "none",
    broken: undefined,
    peerId: 0,
    secret: new Uint8Array(),
    channel: createChannel(),
    leaseMs: LEASE_DEFAULT_MS,
    heardAtMs: 0,
    sentAtMs: 0,
    tickedAtMs: undefined,
    installedEpoch: 0,
    ring: { epoch: 0, peerIds: [] },
    preparing: undefined,
    open: new Map(),
    sync: undefined,
    leaveId: undefined,
    end: undefined,
  };
}

/** How often a tick is due. */
export function tickIntervalMs(state: SessionState): number {
  return state.leaseMs / HEARTBEATS_PER_LEASE / 2;
}

export function stepSession(state: SessionState, event: SessionEvent, nowMs: number): SessionEffect[] {
  const turn: Turn = { nowMs, effects: [] };
  if (state.phase === "ended") {
    if (event.kind === "request") replyError(turn, event.request.id, state.end ?? closed(event.request.kind));
    return turn.effects;
  }
  switch (event.kind) {
    case "connected":
      onConnected(state, turn);
      break;
    case "message":
      state.heardAtMs = nowMs;
      if (state.phase !== "leaving") onEnvelope(state, turn, event);
      break;
    case "detached":
      onDetached(state, turn, event.reason);
      break;
    case "failed":
      finish(state, turn, event.error);
      break;
    case "tick":
      onTick(state, turn);
      break;
    case "prepared":
      onPrepared(state, turn, event);
      break;
    case "link-lost":
      onLinkLost(state, turn, event);
      break;
    case "stalled":
      if (event.epoch === state.ring.epoch) send(state, turn, event);
      break;
    case "abort-answered":
      send(state, turn, { ...event, kind: "abort-answer" });
      break;
    case "measured":
      send(state, turn, event);
      break;
    case "request":
      onRequest(state, turn, event.request);
      break;
  }
  return turn.effects;
}

function onConnected(state: SessionState, turn: Turn): void {
  const { group, advertise, hostId } = state.config;
  state.heardAtMs = turn.nowMs;
  state.stream = "attaching";
  const protocolVersion = PROTOCOL_VERSION;
  if (state.phase === "connecting") {
    state.phase = "registering";
    sendUnnumbered(state, turn, { kind: "register", protocolVersion, group, endpoint: advertise, hostId });
  } else {
    const { peerId, secret, channel } = state;
    sendUnnumbered(state, turn, {
      kind: "attach",
      protocolVersion,
      peerId,
      secret,
      received: channel.received,
    });
  }
}

/** The stream is made again, unless the peer was about to end it. */
function onDetached(state: SessionState, turn: Turn, reason: string): void {
  state.stream = "none";
  // Whatever came of that register, another one takes its place: it has the same data port.
  if (state.phase === "registering") state.phase = "connecting";
  if (state.phase !== "leaving") {
    state.broken ??= { sinceMs: turn.nowMs, reason };
    turn.effects.push({ kind: "connect" });
    return;
  }
  finish(state, turn, error("ERR_PCCL_COORDINATOR_LOST", `The coordinator's stream ended: ${reason}.`));
}

function onEnvelope(
  state: SessionState,
  turn: Turn,
  { seq, ack, message }: Envelope<CoordinatorMessage>,
): void {
  if (!acknowledge(state.channel, ack)) {
    return violation(state, turn, "it acknowledges a message that was never sent");
  }
  if (seq === UNNUMBERED) return onUnnumbered(state, turn, message);
  const order = accept(state.channel, seq);
  if (order === "gap") return violation(state, turn, `message ${seq} came out of turn`);
  if (order === "next") onNumbered(state, turn, message);
}

function onUnnumbered(state: SessionState, turn: Turn, message: CoordinatorMessage): void {
  switch (message.kind) {
    case "registered":
      if (state.phase !== "registering") return violation(state, turn, "Registered came twice");
      state.phase = "pending";
      state.stream = "attached";
      state.broken = undefined;
      state.peerId = message.peerId;
      state.secret = message.secret;
      state.leaseMs = message.leaseMs;
      return notify(turn, { kind: "pending", peerId: message.peerId });
    case "attached":
      if (state.stream !== "attaching" || !acknowledge(state.channel, message.received)) {
        return violation(state, turn, "Attached doesn't fit");
      }
      state.stream = "attached";
      state.broken = undefined;
      state.sentAtMs = turn.nowMs;
      for (const { seq, message: again } of outstanding(state.channel)) {
        turn.effects.push({ kind: "send", seq, ack: state.channel.received, message: again });
      }
      return;
    case "rejected":
      // The attach got stuck on its way, and what counts is whether the next one is in time.
      if (
        state.stream === "attaching" &&
        state.phase !== "registering" &&
        message.code === "ERR_PCCL_TIMEOUT"
      ) {
        return onDetached(state, turn, message.message);
      }
      return finish(state, turn, {
        code: message.code,
        message: `The coordinator refused: ${message.message}`,
      });
    case "removed":
      return finish(
        state,
        turn,
        error("ERR_PCCL_REMOVED", `The coordinator removed this peer: ${message.reason}.`),
      );
    case "heartbeat":
      return;
    default:
      return violation(state, turn, `${message.kind} came without a number`);
  }
}

function onNumbered(state: SessionState, turn: Turn, message: CoordinatorMessage): void {
  switch (message.kind) {
    case "prepare":
      return onPrepare(state, turn, message.view);
    case "install":
      return onInstall(state, turn, message);
    case "abort-op": {
      const { epoch, tag, seq, from, to, missing } = message;
      const op: RingOp = { epoch, tag, seq, from, to };
      // Frozen, the op ends by its verdict.
      if (epoch === state.ring.epoch && state.preparing === undefined) {
        turn.effects.push({ kind: "engine-abort", ...op, peerId: missing });
      } else send(state, turn, { kind: "abort-answer", ...op, aborted: false });
      return;
    }
    case "pending-answer":
      return answer(state, turn, message.requestId, ["has-pending-peers"], message.pending);
    case "topology-answer":
      return answer(
        state,
        turn,
        message.requestId,
        ["update-topology", "optimize-topology"],
        message.changed,
      );
    case "topology-info":
      return answer(state, turn, message.requestId, ["topology"], message.info);
    case "measure": {
      const { measurementId, target, direction } = message;
      const { host, port } = target.endpoint;
      turn.effects.push({
        kind: "engine-measure",
        measurementId,
        target: { peerId: target.peerId, host, port },
        direction,
      });
      return;
    }
    case "sync-plan": {
      const { requestId, revision, sources, share, shares, fetches } = message;
      if (!state.open.has(requestId)) return;
      state.sync = { offerId: requestId, doneId: undefined };
      return answer(state, turn, requestId, ["sync-offer"], { revision, sources, share, shares, fetches });
    }
    case "sync-complete": {
      const doneId = state.sync?.offerId === message.requestId ? state.sync.doneId : undefined;
      if (doneId === undefined) return violation(state, turn, "SyncComplete came before SyncDone");
      state.sync = undefined;
      return answer(state, turn, doneId, ["sync-done"], message.revision);
    }
    case "sync-ended":
      return notify(turn, { kind: "sync-ended", offerId: message.requestId });
    case "call-failed":
      return onCallFailed(state, turn, message);
    default:
      return violation(state, turn, `${message.kind} came with a number`);
  }
}

function onPrepare(state: SessionState, turn: Turn, view: View): void {
  const { ring } = view;
  const latest = Math.max(state.installedEpoch, state.preparing?.view.epoch ?? 0);
  if (
    !ring.peerIds.includes(state.peerId) ||
    ring.group !== state.config.group ||
    ring.epoch !== view.epoch ||
    ring.hosts.length !== ring.peerIds.length ||
    view.epoch <= latest
  ) {
    return violation(state, turn, `Prepare of epoch ${view.epoch} doesn't hold together`);
  }
  state.preparing = { view, ready: false };
  turn.effects.push({
    kind: "engine-prepare",
    view: engineView(state, view),
    timeoutMs: PREPARE_TIMEOUT_MS,
  });
}

function engineView(
  { peerId, leaseMs }: SessionState,
  { epoch, worldSize, ring, members, relays, key }: View,
): EngineView {
  const endpoints = new Map(members.map((member) => [member.peerId, member.endpoint]));
  const viaOf = new Map<number, number>();
  for (const { a, b, via } of relays) {
    if (a === peerId) viaOf.set(b, via);
    else if (b === peerId) viaOf.set(a, via);
  }
  return {
    epoch: ring.epoch,
    viewEpoch: epoch,
    peerId,
    key,
    ring: ring.peerIds.map((id): EngineMember => {
      const via = viaOf.get(id);
      const { host, port } = endpoints.get(via ?? id) ?? { host: "", port: 0 };
      return via === undefined ? { peerId: id, host, port } : { peerId: id, host, port, via };
    }),
    hosts: ring.hosts,
    worldSize,
    silenceMs: leaseMs,
    relays: relays.filter(({ via }) => via === peerId).map(({ a, b }) => ({ a, b })),
  };
}

function onPrepared(
  state: SessionState,
  turn: Turn,
  { epoch, failures, ops }: SessionEvent & { kind: "prepared" },
): void {
  // The engine may still finish a view that a newer Prepare has replaced.
  if (state.preparing?.view.epoch !== epoch) return;
  state.preparing.ready = true;
  const frozen = state.ring.epoch;
  send(state, turn, {
    kind: "ready",
    epoch,
    failures,
    ops: frozen === 0 ? [] : ops.map((report) => ({ epoch: frozen, ...report })),
  });
}

function onLinkLost(
  state: SessionState,
  turn: Turn,
  { epoch, peerId, reason }: SessionEvent & { kind: "link-lost" },
): void {
  if (epoch < state.ring.epoch) return;
  // A link that the next view keeps, and that broke after this peer answered ready, is a loss of the next view:
  // told as one of the old epoch it could come after the install and be taken for stale.
  const { preparing } = state;
  const kept = preparing?.ready === true && preparing.view.ring.peerIds.includes(peerId);
  send(state, turn, { kind: "link-lost", epoch: kept ? preparing.view.epoch : epoch, peerId, reason });
}

function onInstall(
  state: SessionState,
  turn: Turn,
  { epoch, worldSize, verdicts, joined, lost }: CoordinatorMessage & { kind: "install" },
): void {
  const { preparing } = state;
  if (preparing?.ready === true && preparing.view.epoch === epoch) {
    turn.effects.push({
      kind: "engine-install",
      epoch,
      verdicts: verdicts
        .filter((verdict) => verdict.epoch === state.ring.epoch)
        .map(({ tag, seq, from, to, commit }) => ({ tag, seq, from, to, commit })),
    });
    state.preparing = undefined;
    state.ring = preparing.view.ring;
  } else if (preparing === undefined && state.phase === "admitted" && epoch > state.installedEpoch) {
    turn.effects.push({ kind: "engine-set-world", epoch, worldSize });
  } else return violation(state, turn, `Install of epoch ${epoch}, which this peer hasn't prepared`);
  state.installedEpoch = epoch;
  const view = installedNotice(state, worldSize, joined, lost);
  if (state.phase === "admitted") return notify(turn, { kind: "installed", view });
  state.phase = "admitted";
  notify(turn, { kind: "admitted", peerId: state.peerId, view });
}

function installedNotice(
  { installedEpoch, ring }: SessionState,
  worldSize: number,
  joined: readonly JoinedPeer[],
  lost: readonly LostPeer[],
): InstalledNotice {
  return { epoch: installedEpoch, worldSize, ring: ring.peerIds, joined, lost };
}

function onRequest(state: SessionState, turn: Turn, request: SessionRequest): void {
  const { id, kind } = request;
  if (kind === "leave") return leave(state, turn, id);
  if (kind === "withdraw") return withdraw(state, turn, request.target);
  if (state.phase !== "admitted") {
    return replyError(
      turn,
      id,
      state.phase === "leaving"
        ? closed(kind)
        : error("ERR_PCCL_NOT_INSTALLED", `${kind}: this peer is not admitted yet.`),
    );
  }
  switch (kind) {
    case "has-pending-peers":
      state.open.set(id, kind);
      return send(state, turn, { kind: "pending-vote", requestId: id });
    case "update-topology":
      state.open.set(id, kind);
      return send(state, turn, { kind: "topology-vote", requestId: id });
    case "optimize-topology":
      state.open.set(id, kind);
      return send(state, turn, { kind: "optimize-vote", requestId: id, maxAgeMs: request.maxAgeMs });
    case "topology":
      state.open.set(id, kind);
      return send(state, turn, { kind: "topology-query", requestId: id });
    case "sync-offer": {
      const { revision, strategy, background, entries } = request;
      state.open.set(id, kind);
      return send(state, turn, { kind, requestId: id, revision, strategy, background, entries });
    }
    case "sync-done": {
      const { sync } = state;
      if (sync === undefined || sync.doneId !== undefined) {
        // The group's sync may just have failed: the notice of that crosses this request.
        const over = "sync-done: no sync is waiting for it.";
        return replyError(turn, id, error("ERR_PCCL_STATE_FETCH_FAILED", over));
      }
      sync.doneId = id;
      state.open.set(id, kind);
      const { ok, reason } = request;
      return send(state, turn, { kind: "sync-done", requestId: sync.offerId, ok, reason });
    }
  }
}

function onCallFailed(
  state: SessionState,
  turn: Turn,
  { requestId, code, message }: CoordinatorMessage & { kind: "call-failed" },
): void {
  const failure: SessionError = { code, message };
  if (state.open.delete(requestId)) return replyError(turn, requestId, failure);
  const { sync } = state;
  if (sync?.offerId !== requestId) return;
  state.sync = undefined;
  if (sync.doneId === undefined) {
    notify(turn, { kind: "sync-failed", offerId: requestId, error: failure });
  } else {
    state.open.delete(sync.doneId);
    replyError(turn, sync.doneId, failure);
  }
}

/**
 * The coordinator answers with CallFailed, or has answered already. While it can't be reached nobody waits for it,
 * but at the end of a sync, which the group may have completed: then the caller's state must follow.
 */
function withdraw(state: SessionState, turn: Turn, target: number): void {
  const kind = state.open.get(target);
  if (kind === undefined) return;
  const requestId = kind === "sync-done" ? state.sync?.offerId : target;
  if (requestId === undefined) return;
  send(state, turn, { kind: "withdraw", requestId });
  if (state.stream === "attached" || kind === "sync-done") return;
  state.open.delete(target);
  const since = state.broken === undefined ? "" : `: ${state.broken.reason}`;
  const unreachable = `${kind}: withdrawn while the coordinator could not be reached${since}.`;
  replyError(turn, target, error("ERR_PCCL_CANCELLED", unreachable));
}

function leave(state: SessionState, turn: Turn, id: number): void {
  if (state.leaveId !== undefined) return replyError(turn, id, closed("leave"));
  state.leaveId = id;
  failOpen(state, turn, closed);
  if (state.stream === "none") {
    turn.effects.push({ kind: "end" });
    return finish(state, turn, closed("leave"));
  }
  // The coordinator refuses what is numbered before it has agreed to the stream, and then finds out by itself.
  if (state.stream === "attached") send(state, turn, { kind: "leave" });
  state.phase = "leaving";
  turn.effects.push({ kind: "end" });
}

function onTick(state: SessionState, turn: Turn): void {
  const { nowMs } = turn;
  const sinceTickMs = nowMs - (state.tickedAtMs ?? nowMs);
  state.tickedAtMs = nowMs;
  // After a pause of this process what the coordinator said meanwhile is still unread: it may well be a Removed.
  if (sinceTickMs > state.leaseMs / 2) state.heardAtMs = Math.max(state.heardAtMs, nowMs - state.leaseMs / 2);
  if (state.broken !== undefined && nowMs - state.broken.sinceMs > state.config.coordinatorTimeoutMs) {
    turn.effects.push({ kind: "end" });
    const forMs = Math.round(nowMs - state.broken.sinceMs);
    const lost = `The coordinator could not be reached again for ${forMs} ms after: ${state.broken.reason}.`;
    return finish(state, turn, error("ERR_PCCL_COORDINATOR_LOST", lost));
  }
  if (state.stream === "none") return;
  const silentMs = Math.round(nowMs - state.heardAtMs);
  const silence = `it was silent for ${silentMs} ms`;
  if (state.phase === "pending" || state.phase === "admitted") {
    // A stream that neither end knows to be broken must be replaced before the coordinator's patience ends too.
    const answers = (state.leaseMs * HEARTBEATS_UNANSWERED_MAX) / HEARTBEATS_PER_LEASE;
    if (silentMs > answers) return onDetached(state, turn, silence);
  } else if (silentMs > state.leaseMs) {
    // Something that accepts streams, and isn't a coordinator that works.
    turn.effects.push({ kind: "end" });
    return finish(state, turn, error("ERR_PCCL_COORDINATOR_LOST", `The coordinator: ${silence}.`));
  }
  if (state.stream === "attached" && nowMs - state.sentAtMs >= state.leaseMs / HEARTBEATS_PER_LEASE) {
    sendUnnumbered(state, turn, { kind: "heartbeat" });
  }
}

/** The session is over: every open request gets the same error. A peer that was leaving has left. */
function finish(state: SessionState, turn: Turn, end: SessionError): void {
  state.phase = "ended";
  state.stream = "none";
  state.end = end;
  state.preparing = undefined;
  failOpen(state, turn, () => end);
  if (state.leaveId === undefined) notify(turn, { kind: "ended", error: end });
  else notify(turn, { kind: "reply", id: state.leaveId, value: undefined });
}

/** The coordinator broke the protocol: to go on could give two peers different verdicts. */
function violation(state: SessionState, turn: Turn, what: string): void {
  turn.effects.push({ kind: "end" });
  finish(state, turn, error("ERR_PCCL_INTERNAL", `The coordinator broke the protocol: ${what}.`));
}

function failOpen(
  state: SessionState,
  turn: Turn,
  errorOf: (kind: SessionRequest["kind"]) => SessionError,
): void {
  for (const [id, kind] of state.open) replyError(turn, id, errorOf(kind));
  state.open.clear();
  state.sync = undefined;
}

function answer<K extends keyof SessionReplies>(
  state: SessionState,
  turn: Turn,
  id: number,
  /** Those that have such an answer. */
  kinds: readonly K[],
  value: SessionReplies[K],
): void {
  if (!kinds.some((kind) => state.open.get(id) === kind)) return;
  state.open.delete(id);
  notify(turn, { kind: "reply", id, value });
}

/** Sends now or, while there is no stream, when there is one again. */
function send(state: SessionState, turn: Turn, message: PeerMessage): void {
  const seq = push(state.channel, message);
  if (state.stream !== "attached") return;
  state.sentAtMs = turn.nowMs;
  turn.effects.push({ kind: "send", seq, ack: state.channel.received, message });
}

/** Sends what only means something on this stream. */
function sendUnnumbered(state: SessionState, turn: Turn, message: PeerMessage): void {
  state.sentAtMs = turn.nowMs;
  turn.effects.push({ kind: "send", seq: UNNUMBERED, ack: state.channel.received, message });
}

function notify(turn: Turn, notice: SessionNotice): void {
  turn.effects.push({ kind: "notify", notice });
}

function replyError(turn: Turn, id: number, failure: SessionError): void {
  notify(turn, { kind: "reply", id, error: failure });
}

function error(code: PcclErrorCode, message: string): SessionError {
  return { code, message };
}

function closed(kind: SessionRequest["kind"]): SessionError {
  return error("ERR_PCCL_CLOSED", `${kind}: the communicator was closed.`);
}
