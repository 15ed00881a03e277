/**
 * The thread that holds a peer's control stream, so that training code on the main thread can delay neither
 * heartbeats nor new views. A shell around membership/session.ts: effects go to the engine, the stream and the
 * parent; their events come back. It never throws out: whatever happens, the parent gets an `ended` or replies.
 */
import { parentPort, workerData } from "node:worker_threads";
import { type Engine, type EngineEvent, loadAddon, type OpReport } from "@pccl/bindings";
import { isPcclErrorCode } from "../base/errors.js";
import { ControlClient } from "../control/client.js";
import {
  createSession,
  type SessionEffect,
  type SessionEvent,
  stepSession,
  tickIntervalMs,
} from "../membership/session.js";
import type { SessionError, SessionNotice, SessionRequest, SessionWorkerData } from "./session-protocol.js";

const port = parentPort;
if (port === null) throw new Error("session-worker.js is the program of a worker thread");

const { engineId, coordinator, group, advertise, hostId, connectTimeoutMs, coordinatorTimeoutMs } =
  workerData as SessionWorkerData;
const session = createSession({ group, advertise, hostId, coordinatorTimeoutMs });
/** What the engine said of the frozen epoch's ops, until it has prepared the next one. */
let frozenOps: readonly OpReport[] = [];
let engine: Engine | undefined;
let client: ControlClient | undefined;
let ticker: NodeJS.Timeout | undefined;
/** Events that came while another one was being carried out. */
const queue: SessionEvent[] = [];
let stepping = false;

port.on("message", (request: SessionRequest) => onEvent({ kind: "request", request }));
try {
  engine = loadAddon().attachEngine(engineId, (events) => events.forEach(onEngineEvent));
  client = new ControlClient(
    { address: coordinator, connectTimeoutMs },
    {
      onConnected: () => onEvent({ kind: "connected" }),
      onMessage: (envelope) => onEvent({ kind: "message", ...envelope }),
      onDetached: (reason) => onEvent({ kind: "detached", reason }),
      onFailed: (error) => onEvent({ kind: "failed", error }),
    },
  );
  scheduleTick();
} catch (error) {
  onEvent({ kind: "failed", error: sessionError(error) });
}

function scheduleTick(): void {
  ticker = setTimeout(() => {
    onEvent({ kind: "tick" });
    if (session.phase !== "ended") scheduleTick();
  }, tickIntervalMs(session));
}

function onEngineEvent(event: EngineEvent): void {
  switch (event.type) {
    case "prepared":
      return onEvent({ kind: "prepared", epoch: event.epoch, failures: event.failures, ops: frozenOps });
    case "link-lost":
      return onEvent({ kind: "link-lost", epoch: event.epoch, peerId: event.peerId, reason: event.reason });
    case "stalled": {
      const { epoch, tag, seq, from, to, missing } = event;
      return onEvent({ kind: "stalled", epoch, tag, seq, from, to, missing });
    }
    case "probed": {
      const { id: measurementId } = event;
      if ("reason" in event)
        return onEvent({ kind: "measured", measurementId, result: { reason: event.reason } });
      const { bytesPerSecond, rttSeconds } = event;
      const result = { bytesPerSecond, rttMs: rttSeconds * 1_000 };
      return onEvent({ kind: "measured", measurementId, result });
    }
    default:
    // Ops belong to the main thread's attachment, which gets their events.
  }
}

/** One event after the other: an effect may cause the next event before its own step is carried out. */
function onEvent(event: SessionEvent): void {
  queue.push(event);
  if (stepping) return;
  stepping = true;
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    try {
      for (const effect of stepSession(session, next, performance.now())) carryOut(effect);
    } catch (error) {
      queue.push({ kind: "failed", error: sessionError(error) });
    }
  }
  stepping = false;
  if (session.phase === "ended") shutDown();
}

function carryOut(effect: SessionEffect): void {
  switch (effect.kind) {
    case "send":
      return client?.send(effect);
    case "connect":
      return client?.connect();
    case "end":
      return client?.end();
    case "engine-prepare":
      frozenOps = engine?.prepare(effect.view, effect.timeoutMs) ?? [];
      return;
    case "engine-install":
      engine?.install(effect.epoch, effect.verdicts);
      return;
    case "engine-set-world":
      return engine?.setWorld(effect.epoch, effect.worldSize);
    case "engine-abort": {
      const { epoch, tag, seq, from, to, peerId } = effect;
      const op = { tag, seq, from, to };
      const aborted = engine?.abortIfMissing(epoch, op, peerId) ?? false;
      return onEvent({ kind: "abort-answered", epoch, ...op, aborted });
    }
    case "engine-measure":
      return measure(effect);
    case "notify":
      return tell(effect.notice);
  }
}

/** What the engine refuses can't be measured, and is no reason to end the session. */
function measure({ measurementId, target, direction }: SessionEffect & { kind: "engine-measure" }): void {
  try {
    engine?.probe(measurementId, target, direction);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    onEvent({ kind: "measured", measurementId, result: { reason } });
  }
}

function tell(notice: SessionNotice): void {
  port?.postMessage(notice);
}

/** Lets go of everything but the parent's port: the thread ends by itself, after what it told was read. */
let down = false;
function shutDown(): void {
  if (down) return;
  down = true;
  clearTimeout(ticker);
  client?.close();
  engine?.close();
  // Requests that cross the end still get their reply; the port alone doesn't keep the thread alive.
  port?.unref();
}

function sessionError(error: unknown): SessionError {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return {
    code: isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL",
    message: `The control session: ${message}`,
  };
}
