/** A simulated peer: the session machine that ships, the engine's model, and a program that makes calls. */
import {
  createSession,
  type EngineOpReport,
  type EngineView,
  type SessionEvent,
  type SessionState,
  stepSession,
  tickIntervalMs,
} from "../membership/session.js";
import type {
  SessionNotice,
  SessionReplies,
  SessionRequest,
  SyncPlanReply,
} from "../membership/session-protocol.js";
import type { CoordinatorMessage, Envelope, PeerMessage } from "../membership/messages.js";
import { COORDINATOR_HOST, type ControlStream, type SimCoordinator } from "./coordinator.js";
import { type EngineHooks, SimEngine, type SimOp } from "./engine.js";
import type { Invariants } from "./invariants.js";
import type { DataPlane } from "./links.js";
import { type Network, Stream } from "./network.js";
import type { Process, Thread } from "./process.js";
import { type Call, type Deviation, type Outcome, type Program, trainingProgram } from "./program.js";
import type { Random } from "./random.js";
import { describeFields, describeMessage, opName, type Trace } from "./trace.js";

/** What one peer's user does besides training, by the number of its call or of its place in the program. */
export interface Behaviour {
  readonly deviations: ReadonlyMap<number, Deviation>;
  /** Withdraws the call after this time. */
  readonly withdrawals: ReadonlyMap<number, number>;
  /** Calls its ops with another descriptor than the others. */
  readonly odd: ReadonlySet<number>;
}

export interface PeerSurroundings {
  readonly network: Network;
  readonly plane: DataPlane;
  readonly coordinator: SimCoordinator;
  readonly invariants: Invariants;
  readonly trace: Trace | undefined;
  /** The peer on this host: a fetch reads the content of its source. */
  peerAt(host: string): SimPeer | undefined;
  /** A fault may be waiting for the moment in which this peer takes such a message, or commits an op. */
  onTaken(host: string, kind: string): void;
}

export interface PeerOptions {
  readonly host: string;
  readonly group: number;
  readonly steps: number;
  readonly coordinatorTimeoutMs: number;
  readonly behaviour: Behaviour;
}

type RequestBody = SessionRequest extends infer R
  ? R extends SessionRequest
    ? Omit<R, "id">
    : never
  : never;

const TENSOR = "state";
const FETCH_MS_MAX = 400;
/** Pauses between attempts to reach the coordinator. */
const CONNECT_MS_MIN = 50;
const CONNECT_MS_MAX = 500;
/** For the first of them to succeed. */
const CONNECT_TIMEOUT_MS = 30_000;

export class SimPeer {
  readonly host: string;
  readonly group: number;
  readonly process: Process;
  readonly session: SessionState;
  readonly engine: SimEngine;
  /** The call that the program waits in, and since when. */
  call: Call | undefined;
  calledAtMs = 0;
  /** It has called updateTopology, and not been answered since. */
  consents = false;
  /** How the program ended: done, or the code of an error. */
  result: string | undefined;
  /** The coordinator's world in which it registered. */
  generation = -1;
  readonly #around: PeerSurroundings;
  readonly #behaviour: Behaviour;
  readonly #program: Program;
  readonly #random: Random;
  /** Where the session and the engine are at work, which user code can't keep from it. */
  readonly #worker: Thread;
  readonly main: Thread;
  #stream: ControlStream | undefined;
  /** Names the present attempt to reach the coordinator. */
  #attempt: object | undefined;
  #frozenOps: readonly EngineOpReport[] = [];
  /** Content that this peer exports during a sync. */
  #exported: number | undefined;
  #calls = 0;
  #nextRequest = 1;
  readonly #replies = new Map<number, (outcome: { value: unknown } | { code: string }) => void>();
  readonly #running = new Map<bigint, (result: number | string) => void>();

  constructor(process: Process, options: PeerOptions, around: PeerSurroundings) {
    this.host = options.host;
    this.group = options.group;
    this.process = process;
    this.#around = around;
    this.#behaviour = options.behaviour;
    this.#random = around.network.random(options.host);
    this.#worker = process.thread();
    this.main = process.thread();
    const { host, group, coordinatorTimeoutMs } = options;
    this.session = createSession({ group, advertise: { host, port: 1 }, coordinatorTimeoutMs });
    this.engine = new SimEngine(host, this.#worker, around.plane, this.#engineHooks());
    this.#program = trainingProgram({
      random: this.#random,
      steps: options.steps,
      content: this.#random.below(1_000_000),
      deviations: options.behaviour.deviations,
      rank: () => {
        const { view } = this.engine;
        return view?.ring.findIndex((member) => member.peerId === view.peerId) ?? -1;
      },
    });
  }

  get peerId(): number {
    return this.session.peerId;
  }

  get alive(): boolean {
    return this.process.state !== "dead" && this.session.phase !== "ended";
  }

  start(): void {
    this.trace("starts");
    this.#connect();
    this.#worker.after(CONNECT_TIMEOUT_MS, () => {
      if (this.session.phase !== "connecting") return;
      const message = "The coordinator could not be reached.";
      this.#onEvent({ kind: "failed", error: { code: "ERR_PCCL_COORDINATOR_UNREACHABLE", message } });
    });
    this.#tick();
  }

  /** The process ends without a word; its host closes its connections, if the host goes on. */
  die(hostGoesOn: boolean): void {
    this.trace("dies");
    if (hostGoesOn) this.#stream?.abandon(0);
    this.process.die();
    this.engine.close();
    this.#program.return();
  }

  cutControl(noticing: readonly [boolean, boolean]): boolean {
    this.#stream?.cut(noticing);
    return this.#stream !== undefined;
  }

  /** The user closes the communicator, whatever it is doing. */
  leave(): void {
    if (this.result !== undefined || !this.alive) return;
    this.#finish("left");
    this.#goodbye();
  }

  trace(what: string): void {
    const { trace, network } = this.#around;
    trace?.add(network.clock.nowMs, this.#name(), what);
  }

  #name(): string {
    return this.peerId === 0 ? this.host : `${this.host}=${this.peerId}`;
  }

  // The control stream

  /** Attempts with pauses in between, until there is a stream. */
  #connect(pauseMs = CONNECT_MS_MIN): void {
    const { network, coordinator } = this.#around;
    const attempt = {};
    this.#attempt = attempt;
    const again = (): void => {
      if (this.#attempt === attempt) this.#connect(Math.min(2 * pauseMs, CONNECT_MS_MAX));
    };
    const reaches = (): boolean =>
      network.isOpenBothWays(this.host, COORDINATOR_HOST) && coordinator.process.state === "running";
    this.#worker.after(this.#random.between(0, pauseMs), () => {
      if (this.#attempt !== attempt) return;
      if (!reaches()) return this.#worker.after(pauseMs, again);
      network.clock.after(network.delayMs(this.#random), () => {
        if (!reaches()) return again();
        this.#worker.deliver(() => this.#attach(attempt));
      });
    });
  }

  #attach(attempt: object): void {
    // Meanwhile the session may have ended, or the coordinator.
    if (this.#attempt !== attempt || !this.alive) return;
    const { network, coordinator } = this.#around;
    if (!coordinator.isRunning) return this.#connect();
    this.#attempt = undefined;
    const acceptor = coordinator.listen(this.host);
    const stream: ControlStream = new Stream<Envelope<PeerMessage>, Envelope<CoordinatorMessage>>(
      network,
      `control ${this.host} ${network.clock.nowMs}`,
      {
        host: this.host,
        thread: this.#worker,
        onMessage: (envelope) => {
          if (this.#stream === stream) this.#onMessage(envelope);
        },
        onEnd: (reason) => {
          if (this.#stream !== stream) return;
          this.#stream = undefined;
          this.trace(`control stream: ${reason}`);
          this.#onEvent({ kind: "detached", reason });
        },
      },
      acceptor.end,
    );
    this.#stream = stream;
    acceptor.attend(stream);
    if (this.peerId === 0) this.generation = coordinator.generation;
    this.#onEvent({ kind: "connected" });
  }

  #onMessage(envelope: Envelope<CoordinatorMessage>): void {
    const { message, seq } = envelope;
    if (message.kind !== "heartbeat") {
      if (this.#around.trace !== undefined) this.trace(`<- ${seq || "-"} ${describeMessage(message)}`);
      this.#around.onTaken(this.host, message.kind);
      if (this.process.state === "dead") return;
    }
    this.#onEvent({ kind: "message", ...envelope });
  }

  #onEvent(event: SessionEvent): void {
    for (const effect of stepSession(this.session, event, this.process.nowMs)) {
      switch (effect.kind) {
        case "send": {
          const { seq, ack, message } = effect;
          if (message.kind !== "heartbeat" && this.#around.trace !== undefined) {
            this.trace(`-> ${seq || "-"} ${describeMessage(message)}`);
          }
          this.#stream?.sendToAcceptor({ seq, ack, message });
          break;
        }
        case "connect":
          this.#stream?.abandon(0);
          this.#stream = undefined;
          this.#connect();
          break;
        case "end":
          this.#attempt = undefined;
          this.#stream?.end(0);
          break;
        case "engine-prepare":
          this.#frozenOps = this.engine.prepare(effect.view, effect.timeoutMs);
          break;
        case "engine-install":
          this.engine.install(effect.epoch, effect.verdicts);
          break;
        case "engine-set-world":
          this.engine.setWorld(effect.epoch, effect.worldSize);
          break;
        case "engine-abort": {
          const { epoch, tag, seq, peerId } = effect;
          const aborted = this.engine.abortIfMissing(epoch, tag, seq, peerId);
          this.#worker.after(0, () => this.#onEvent({ kind: "abort-answered", epoch, tag, seq, aborted }));
          break;
        }
        case "notify":
          this.#onNotice(effect.notice);
          break;
      }
    }
  }

  #tick(): void {
    this.#worker.after(tickIntervalMs(this.session), () => {
      if (!this.alive) return;
      this.#onEvent({ kind: "tick" });
      this.#tick();
    });
  }

  #onNotice(notice: SessionNotice): void {
    const { invariants } = this.#around;
    switch (notice.kind) {
      case "pending":
        return;
      case "admitted":
        invariants.onInstalled(this, this.engine.view as EngineView);
        return this.#onMain(() => this.#advance());
      case "installed":
        if (notice.view.joined.length > 0) invariants.onGrowth(this);
        return invariants.onInstalled(this, this.engine.view as EngineView);
      case "sync-failed":
        return this.#onMain(() => this.#fetchFailed(notice.error.code));
      case "ended":
        invariants.onEnded(this, notice.error);
        this.engine.close();
        return this.#finish(notice.error.code);
      case "reply": {
        const reply = this.#replies.get(notice.id);
        this.#replies.delete(notice.id);
        this.#onMain(() =>
          reply?.("error" in notice ? { code: notice.error.code } : { value: notice.value }),
        );
      }
    }
  }

  // The program

  #advance(outcome?: Outcome): void {
    if (this.result !== undefined) return;
    if (this.call !== undefined && outcome !== undefined) {
      const cancelled = outcome.kind === "error" && outcome.code === "ERR_PCCL_CANCELLED";
      if (this.call.kind === "update-topology" && !cancelled) this.consents = false;
      this.#around.invariants.onOutcome(this, outcome);
      if (this.#around.trace !== undefined) this.trace(`= ${describeOutcome(outcome)}`);
    }
    const next = outcome === undefined ? this.#program.next() : this.#program.next(outcome);
    this.call = undefined;
    if (next.done === true) {
      this.#finish("done");
      return this.#goodbye();
    }
    this.call = next.value;
    this.calledAtMs = this.#around.network.clock.nowMs;
    if (this.#around.trace !== undefined) this.trace(`calls ${describeCall(next.value)}`);
    this.#make(next.value, this.#calls++);
  }

  #make(call: Call, number: number): void {
    const withdrawAfterMs = this.#behaviour.withdrawals.get(number);
    switch (call.kind) {
      case "compute":
        return this.main.after(call.ms, () => this.#advance({ kind: "computed" }));
      case "has-pending-peers":
      case "update-topology":
        if (call.kind === "update-topology") this.consents = true;
        return this.#request(call, withdrawAfterMs, (value) =>
          this.#advance({ kind: "answer", value: value as boolean }),
        );
      case "sync":
        return this.#sync(call, withdrawAfterMs);
      case "all-reduce":
        return this.#allReduce(call.ops, this.#behaviour.odd.has(number), withdrawAfterMs);
    }
  }

  #allReduce(
    ops: (Call & { kind: "all-reduce" })["ops"],
    odd: boolean,
    withdrawAfterMs: number | undefined,
  ): void {
    const results = new Map<bigint, number | string>();
    for (const { tag } of ops) {
      this.#running.set(tag, (result) => {
        this.#running.delete(tag);
        results.set(tag, result);
        if (results.size === ops.length) this.#onMain(() => this.#advance({ kind: "reduced", results }));
      });
    }
    // Other peers start them in another order, and at other times.
    for (const { tag, value } of this.#random.chance(0.5) ? ops : [...ops].reverse()) {
      this.engine.allReduce({ tag, value, descriptor: odd ? 1 : 0 });
      if (withdrawAfterMs === undefined) continue;
      this.main.after(withdrawAfterMs, () => {
        const ended = this.#running.get(tag);
        if (ended === undefined) return;
        this.trace(`withdraws the op with tag ${tag}`);
        if (!this.engine.cancel(tag)) ended("ERR_PCCL_CANCELLED");
      });
    }
  }

  #sync(call: Call & { kind: "sync" }, withdrawAfterMs: number | undefined): void {
    const { revision, strategy, content } = call;
    this.#exported = content;
    this.#around.invariants.onOffer(this, revision, content);
    const hash = contentHash(content);
    const entries = [{ name: TENSOR, dtype: "i32", count: 1, hash }];
    this.#request({ kind: "sync-offer", revision, strategy, entries }, withdrawAfterMs, (value) => {
      const plan = value as SyncPlanReply;
      const fetch = plan.fetches[0];
      if (fetch === undefined || plan.source === undefined)
        return this.#syncDone(true, content, withdrawAfterMs);
      const { host } = plan.source.endpoint;
      const fetching = { over: false };
      this.#fetching = fetching;
      this.#fetch(host, this.process.nowMs + this.#around.plane.silenceMs, (fetched) => {
        if (fetching.over) return;
        fetching.over = true;
        const ok = fetched !== undefined && contentHash(fetched) === fetch.hash;
        this.#syncDone(ok, fetched ?? content, withdrawAfterMs);
      });
    });
  }

  #fetching: { over: boolean } | undefined;

  #fetchFailed(code: string): void {
    if (this.#fetching === undefined || this.#fetching.over) return;
    this.#fetching.over = true;
    this.#advance({ kind: "error", code });
  }

  /** Waits for a source that doesn't answer as long as a link does. */
  #fetch(host: string, untilMs: number, onEnd: (content: number | undefined) => void): void {
    const { network } = this.#around;
    this.main.after(this.#random.between(0, FETCH_MS_MAX), () => {
      const source = this.#around.peerAt(host);
      const gone = source === undefined || source.process.state === "dead" || source.engine.closed;
      if (gone || this.process.nowMs > untilMs) return onEnd(undefined);
      if (network.isOpenBothWays(this.host, host) && source.process.state === "running")
        return onEnd(source.#exported);
      this.#fetch(host, untilMs, onEnd);
    });
  }

  #syncDone(ok: boolean, content: number, withdrawAfterMs: number | undefined): void {
    const reason = ok ? "" : "the source is gone";
    this.#request({ kind: "sync-done", ok, reason }, withdrawAfterMs, (value) => {
      const revision = value as SessionReplies["sync-done"];
      this.#around.invariants.onSynced(this, revision, content);
      this.#advance({ kind: "synced", revision, content });
    });
  }

  #request(
    request: RequestBody,
    withdrawAfterMs: number | undefined,
    onValue: (value: unknown) => void,
  ): void {
    const id = this.#nextRequest++;
    this.#replies.set(id, (reply) => {
      if ("code" in reply) this.#advance({ kind: "error", code: reply.code });
      else onValue(reply.value);
    });
    this.#onWorker({ ...request, id });
    if (withdrawAfterMs === undefined) return;
    this.main.after(withdrawAfterMs, () => {
      if (!this.#replies.has(id) || this.result !== undefined) return;
      this.trace(`withdraws #${id}`);
      this.#onWorker({ id: this.#nextRequest++, kind: "withdraw", target: id });
    });
  }

  /** As the communicator does on close(): the session is told first, then the engine goes. */
  #goodbye(): void {
    this.#onWorker({ id: this.#nextRequest++, kind: "leave" });
    this.#worker.after(0, () => this.engine.close());
  }

  #finish(result: string): void {
    if (this.result !== undefined) return;
    this.result = result;
    this.call = undefined;
    this.trace(`ends: ${result}`);
  }

  #onWorker(request: SessionRequest): void {
    this.#worker.after(0, () => this.#onEvent({ kind: "request", request }));
  }

  /** As promises are: the program goes on after the step that answered it. */
  #onMain(action: () => void): void {
    this.#around.network.clock.after(0, () => this.main.deliver(() => this.alive && action()));
  }

  #engineHooks(): EngineHooks {
    const { invariants } = this.#around;
    return {
      onPrepared: (epoch, failures) =>
        this.#onEvent({ kind: "prepared", epoch, failures, ops: this.#frozenOps }),
      onLinkLost: (epoch, peerId, reason) => {
        this.trace(`lost the link to ${peerId} in ring ${epoch}: ${reason}`);
        this.#onEvent({ kind: "link-lost", epoch, peerId, reason });
      },
      onStalled: ({ epoch, tag, seq }, missing) =>
        this.#onEvent({ kind: "stalled", epoch, tag, seq, missing }),
      onCalled: (op) => invariants.onOpCalled(this, op),
      onSettled: (op: SimOp, view: EngineView) => {
        const { epoch, tag, seq, state, code } = op;
        this.trace(`${opName(epoch, tag, seq)} ${state}${code === undefined ? "" : ` (${code})`}`);
        const sum = invariants.onSettled(this, op, view);
        if (state === "committed") this.#around.onTaken(this.host, "commit");
        if (this.alive) this.#running.get(tag)?.(state === "committed" ? sum : (code ?? "no code"));
      },
    };
  }
}

function contentHash(content: number): string {
  return (content >>> 0).toString(16).padStart(32, "0");
}

function describeCall(call: Call): string {
  switch (call.kind) {
    case "all-reduce":
      return `all-reduce ${call.ops.map(({ tag }) => tag).join(" ")}`;
    case "compute":
      return `nothing for ${Math.round(call.ms)} ms`;
    case "sync":
      return `sync revision ${call.revision} = ${contentHash(call.content).replace(/^0+/, "")}, ${call.strategy}`;
    default:
      return call.kind;
  }
}

function describeOutcome(outcome: Outcome): string {
  if (outcome.kind === "reduced") {
    return [...outcome.results].map(([tag, result]) => `tag ${tag}: ${result}`).join(", ");
  }
  const { kind, ...fields } = outcome;
  return `${kind} ${describeFields(fields)}`.trimEnd();
}
