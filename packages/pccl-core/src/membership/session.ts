/**
 * The peer's end of the control stream as one function, of the same shape as the coordinator: it changes `state`
 * in place, and reads no clock, no network and no engine. peer/session-worker.ts and the simulator drive it.
 */
import type { PcclErrorCode } from "../base/errors.js";
import {
  HEARTBEATS_PER_LEASE,
  LEASE_DEFAULT_MS,
  PREPARE_TIMEOUT_MS,
  PROTOCOL_VERSION,
} from "../base/limits.js";
import type { SessionError, SessionNotice, SessionReplies, SessionRequest } from "./session-protocol.js";
import type {
  CoordinatorMessage,
  Endpoint,
  LinkFailure,
  OpReport,
  OpVerdict,
  PeerMessage,
  View,
} from "./messages.js";

export interface SessionConfig {
  readonly group: number;
  /** Empty host: the address that the coordinator sees. */
  readonly advertise: Endpoint;
}

/** One group's part of a view, as the native engine takes it. */
export interface EngineView {
  readonly epoch: number;
  readonly peerId: number;
  readonly key: Uint8Array;
  readonly ring: readonly { readonly peerId: number; readonly host: string; readonly port: number }[];
  readonly worldSize: number;
}

export type EngineOpReport = Omit<OpReport, "epoch">;
export type EngineOpVerdict = Omit<OpVerdict, "epoch">;

export interface SessionState {
  readonly config: SessionConfig;
  phase: "connecting" | "registering" | "pending" | "admitted" | "leaving" | "ended";
  peerId: number;
  leaseMs: number;
  heardAtMs: number;
  sentAtMs: number;
  tickedAtMs: number | undefined;
  /** 0 before the first install. */
  installedEpoch: number;
  /** The view between Prepare and Install. */
  preparing: { readonly view: View; ready: boolean } | undefined;
  /** Requests that a message of the coordinator will answer; their ids are the wire's request ids. */
  readonly open: Map<number, SessionRequest["kind"]>;
  /** A sync from its plan to its end: between the two requests it may fail with nobody to tell. */
  sync:
    | { readonly offerId: number; doneId: number | undefined; failure: SessionError | undefined }
    | undefined;
  leaveId: number | undefined;
  end: SessionError | undefined;
}

export type SessionEvent =
  | { readonly kind: "connected" }
  | { readonly kind: "message"; readonly message: CoordinatorMessage }
  | { readonly kind: "disconnected"; readonly reason: string }
  /** The coordinator can't be reached, or the engine or the wire refused something. */
  | { readonly kind: "failed"; readonly error: SessionError }
  | { readonly kind: "tick" }
  /** The engine has built what it could of a view. `ops`: what engine-prepare reported of the frozen epoch. */
  | {
      readonly kind: "prepared";
      readonly epoch: number;
      readonly failures: readonly LinkFailure[];
      readonly ops: readonly EngineOpReport[];
    }
  | { readonly kind: "link-lost"; readonly epoch: number; readonly peerId: number; readonly reason: string }
  | { readonly kind: "request"; readonly request: SessionRequest };

export type SessionEffect =
  | { readonly kind: "send"; readonly message: PeerMessage }
  /** Ends the stream after what was sent on it. */
  | { readonly kind: "end" }
  | { readonly kind: "engine-prepare"; readonly view: EngineView; readonly timeoutMs: number }
  | { readonly kind: "engine-install"; readonly epoch: number; readonly verdicts: readonly EngineOpVerdict[] }
  | { readonly kind: "notify"; readonly notice: SessionNotice };

interface Turn {
  readonly nowMs: number;
  readonly effects: SessionEffect[];
}

export function createSession(config: SessionConfig): SessionState {
  return {
    config,
    phase: "connecting",
    peerId: 0,
    leaseMs: LEASE_DEFAULT_MS,
    heardAtMs: 0,
    sentAtMs: 0,
    tickedAtMs: undefined,
    installedEpoch: 0,
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
    case "connected": {
      const { group, advertise } = state.config;
      state.phase = "registering";
      state.heardAtMs = nowMs;
      send(state, turn, {
        kind: "register",
        protocolVersion: PROTOCOL_VERSION,
        group,
        endpoint: advertise,
      });
      break;
    }
    case "message":
      state.heardAtMs = nowMs;
      if (state.phase !== "leaving") onMessage(state, turn, event.message);
      break;
    case "disconnected":
      finish(
        state,
        turn,
        error("ERR_PCCL_COORDINATOR_LOST", `The coordinator's stream ended: ${event.reason}.`),
      );
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
    case "request":
      onRequest(state, turn, event.request);
      break;
  }
  return turn.effects;
}

function onMessage(state: SessionState, turn: Turn, message: CoordinatorMessage): void {
  switch (message.kind) {
    case "registered":
      if (state.phase !== "registering") return violation(state, turn, "Registered came twice");
      state.phase = "pending";
      state.peerId = message.peerId;
      state.leaseMs = message.leaseMs;
      return notify(turn, { kind: "pending", peerId: message.peerId });
    case "rejected":
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
    case "prepare":
      return onPrepare(state, turn, message.view);
    case "install":
      return onInstall(state, turn, message);
    case "pending-answer":
      return answer(state, turn, message.requestId, "has-pending-peers", message.pending);
    case "topology-answer":
      return answer(state, turn, message.requestId, "update-topology", message.changed);
    case "sync-plan": {
      const { requestId, revision, source, fetches } = message;
      if (!state.open.has(requestId)) return;
      state.sync = { offerId: requestId, doneId: undefined, failure: undefined };
      return answer(state, turn, requestId, "sync-offer", { revision, source, fetches });
    }
    case "sync-complete": {
      const doneId = state.sync?.offerId === message.requestId ? state.sync.doneId : undefined;
      if (doneId === undefined) return violation(state, turn, "SyncComplete came before SyncDone");
      state.sync = undefined;
      return answer(state, turn, doneId, "sync-done", message.revision);
    }
    case "call-failed":
      return onCallFailed(state, turn, message);
  }
}

function onPrepare(state: SessionState, turn: Turn, view: View): void {
  const self = view.members.find((member) => member.peerId === state.peerId);
  const ring = view.rings.find(({ group }) => group === state.config.group);
  const members = new Map(view.members.map((member) => [member.peerId, member.endpoint]));
  const engineRing = (ring?.peerIds ?? []).flatMap((peerId) => {
    const endpoint = members.get(peerId);
    return endpoint === undefined ? [] : [{ peerId, ...endpoint }];
  });
  const latest = Math.max(state.installedEpoch, state.preparing?.view.epoch ?? 0);
  if (self === undefined || engineRing.length !== ring?.peerIds.length || view.epoch <= latest) {
    return violation(state, turn, `Prepare of epoch ${view.epoch} doesn't hold together`);
  }
  state.preparing = { view, ready: false };
  const { epoch, key } = view;
  turn.effects.push({
    kind: "engine-prepare",
    view: { epoch, peerId: state.peerId, key, ring: engineRing, worldSize: view.members.length },
    timeoutMs: PREPARE_TIMEOUT_MS,
  });
}

function onPrepared(
  state: SessionState,
  turn: Turn,
  { epoch, failures, ops }: SessionEvent & { kind: "prepared" },
): void {
  // The engine may still finish a view that a newer Prepare has replaced.
  if (state.preparing?.view.epoch !== epoch) return;
  state.preparing.ready = true;
  const frozen = state.installedEpoch;
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
  if (epoch < state.installedEpoch) return;
  // A link that the next view keeps, and that broke after this peer answered ready, is a loss of the next view:
  // told as one of the old epoch it could come after the install and be taken for stale.
  const { preparing } = state;
  const kept = preparing?.ready === true && preparing.view.members.some((member) => member.peerId === peerId);
  send(state, turn, { kind: "link-lost", epoch: kept ? preparing.view.epoch : epoch, peerId, reason });
}

function onInstall(
  state: SessionState,
  turn: Turn,
  { epoch, verdicts }: CoordinatorMessage & { kind: "install" },
): void {
  if (state.preparing?.view.epoch !== epoch || !state.preparing.ready) {
    return violation(state, turn, `Install of epoch ${epoch}, which this peer hasn't prepared`);
  }
  turn.effects.push({
    kind: "engine-install",
    epoch,
    verdicts: verdicts
      .filter((verdict) => verdict.epoch === state.installedEpoch)
      .map(({ tag, seq, commit }) => ({ tag, seq, commit })),
  });
  state.preparing = undefined;
  state.installedEpoch = epoch;
  if (state.phase === "admitted") return notify(turn, { kind: "installed", epoch });
  state.phase = "admitted";
  notify(turn, { kind: "admitted", peerId: state.peerId });
}

function onRequest(state: SessionState, turn: Turn, request: SessionRequest): void {
  const { id, kind } = request;
  if (kind === "leave") return leave(state, turn, id);
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
    case "sync-offer": {
      const { revision, strategy, entries } = request;
      state.open.set(id, kind);
      return send(state, turn, { kind: "sync-offer", requestId: id, revision, strategy, entries });
    }
    case "sync-done": {
      const { sync } = state;
      if (sync === undefined || sync.doneId !== undefined) {
        return replyError(
          turn,
          id,
          error("ERR_PCCL_INTERNAL", "sync-done: no sync has a plan to be done with."),
        );
      }
      if (sync.failure !== undefined) {
        state.sync = undefined;
        return replyError(turn, id, sync.failure);
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
  if (sync.doneId === undefined) sync.failure = failure;
  else {
    state.sync = undefined;
    state.open.delete(sync.doneId);
    replyError(turn, sync.doneId, failure);
  }
}

function leave(state: SessionState, turn: Turn, id: number): void {
  if (state.leaveId !== undefined) return replyError(turn, id, closed("leave"));
  state.leaveId = id;
  failOpen(state, turn, closed);
  if (state.phase === "connecting") {
    turn.effects.push({ kind: "end" });
    return finish(state, turn, closed("leave"));
  }
  state.phase = "leaving";
  send(state, turn, { kind: "leave" });
  turn.effects.push({ kind: "end" });
}

function onTick(state: SessionState, turn: Turn): void {
  const { nowMs } = turn;
  const sinceTickMs = nowMs - (state.tickedAtMs ?? nowMs);
  state.tickedAtMs = nowMs;
  if (state.phase === "connecting") return;
  // After a pause of this process what the coordinator said meanwhile is still unread: it may well be a Removed.
  if (sinceTickMs > state.leaseMs / 2) state.heardAtMs = Math.max(state.heardAtMs, nowMs - state.leaseMs / 2);
  const silentMs = Math.round(nowMs - state.heardAtMs);
  if (silentMs > state.leaseMs) {
    turn.effects.push({ kind: "end" });
    return finish(
      state,
      turn,
      error(
        "ERR_PCCL_COORDINATOR_LOST",
        `The coordinator was silent for ${silentMs} ms, longer than the lease of ${state.leaseMs} ms.`,
      ),
    );
  }
  const registered = state.phase === "pending" || state.phase === "admitted";
  if (registered && nowMs - state.sentAtMs >= state.leaseMs / HEARTBEATS_PER_LEASE) {
    send(state, turn, { kind: "heartbeat" });
  }
}

/** The session is over: every open request gets the same error. A peer that was leaving has left. */
function finish(state: SessionState, turn: Turn, end: SessionError): void {
  state.phase = "ended";
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
  kind: K,
  value: SessionReplies[K],
): void {
  if (state.open.get(id) !== kind) return;
  state.open.delete(id);
  notify(turn, { kind: "reply", id, value });
}

function send(state: SessionState, turn: Turn, message: PeerMessage): void {
  state.sentAtMs = turn.nowMs;
  turn.effects.push({ kind: "send", message });
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
