/** A simulated peer's process: the session machine that ships, its stream to the coordinator, and the engine's model. */
import {
  createSession,
  type EngineOpReport,
  type EngineView,
  type SessionEvent,
  type SessionState,
  stepSession,
  tickIntervalMs,
} from "../membership/session.js";
import type { SessionNotice, SessionRequest } from "../membership/session-protocol.js";
import type { CoordinatorMessage, Envelope, PeerMessage, RingOp } from "../membership/messages.js";
import { COORDINATOR_HOST, type ControlStream, type SimCoordinator } from "./coordinator.js";
import { type EngineHooks, SimEngine, type SimOp } from "./engine.js";
import type { Invariants } from "./invariants.js";
import type { DataPlane } from "./links.js";
import { type Network, Stream } from "./network.js";
import type { Process, Thread } from "./process.js";
import type { Random } from "./random.js";
import { describeMessage, opName, type Trace } from "./trace.js";
import { SimUser, type UserOptions } from "./user.js";

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

export interface PeerOptions extends UserOptions {
  readonly host: string;
  readonly group: number;
  readonly hostId: string;
  readonly coordinatorTimeoutMs: number;
}

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
  readonly user: SimUser;
  /** The coordinator's world in which it registered. */
  generation = -1;
  readonly #around: PeerSurroundings;
  readonly #random: Random;
  /** Where the session and the engine are at work, which user code can't keep from it. */
  readonly #worker: Thread;
  readonly main: Thread;
  #stream: ControlStream | undefined;
  /** Names the present attempt to reach the coordinator. */
  #attempt: object | undefined;
  #frozenOps: readonly EngineOpReport[] = [];
  #nextRequest = 1;

  constructor(process: Process, options: PeerOptions, around: PeerSurroundings) {
    this.host = options.host;
    this.group = options.group;
    this.process = process;
    this.#around = around;
    this.#random = around.network.random(options.host);
    this.#worker = process.thread();
    this.main = process.thread();
    const { host, group, hostId, coordinatorTimeoutMs } = options;
    this.session = createSession({ group, advertise: { host, port: 1 }, hostId, coordinatorTimeoutMs });
    this.engine = new SimEngine(host, this.#worker, around.plane, this.#engineHooks());
    this.user = new SimUser(this, this.main, options, around);
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
  }

  cutControl(noticing: readonly [boolean, boolean]): boolean {
    this.#stream?.cut(noticing);
    return this.#stream !== undefined;
  }

  nextRequestId(): number {
    return this.#nextRequest++;
  }

  /** From the main thread to the session. */
  request(request: SessionRequest): void {
    this.#worker.after(0, () => this.#onEvent({ kind: "request", request }));
  }

  /** As the communicator does on close(): the session is told first, then the engine goes. */
  leave(): void {
    this.user.end("left");
    this.request({ id: this.nextRequestId(), kind: "leave" });
    this.#worker.after(0, () => this.engine.close());
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
          const { epoch, tag, seq, from, to, peerId } = effect;
          const op: RingOp = { epoch, tag, seq, from, to };
          const aborted = this.engine.abortIfMissing(op, peerId);
          this.#worker.after(0, () => this.#onEvent({ kind: "abort-answered", ...op, aborted }));
          break;
        }
        case "engine-measure":
          this.engine.measure(effect.measurementId, effect.target, this.#random);
          break;
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
        return this.user.onAdmitted();
      case "installed":
        if (notice.view.joined.length > 0) invariants.onGrowth(this);
        return invariants.onInstalled(this, this.engine.view as EngineView);
      case "sync-ended":
        return this.user.onSyncEnded();
      case "sync-failed":
        return this.user.onSyncFailed(notice.error.code);
      case "ended":
        invariants.onEnded(this, notice.error);
        this.engine.close();
        return this.user.end(notice.error.code);
      case "reply":
        return this.user.onReply(
          notice.id,
          "error" in notice ? { code: notice.error.code } : { value: notice.value },
        );
    }
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
      onStalled: ({ epoch, tag, seq, from, to }, missing) =>
        this.#onEvent({ kind: "stalled", epoch, tag, seq, from, to, missing }),
      onMeasured: (measurementId, result) => this.#onEvent({ kind: "measured", measurementId, result }),
      onCalled: (op) => invariants.onOpCalled(this, op),
      onNotBegun: (op) => this.user.onOpEnded(op, op.code ?? "no code"),
      onSettled: (op: SimOp, view: EngineView) => {
        const { state, code } = op;
        this.trace(`${opName(op)} ${state}${code === undefined ? "" : ` (${code})`}`);
        const sum = invariants.onSettled(this, op, view);
        if (state === "committed") this.#around.onTaken(this.host, "commit");
        if (!this.alive) return;
        const ring = view.ring.map((member) => member.peerId);
        this.user.onOpEnded(
          op,
          state === "committed" ? { value: sum, epoch: op.epoch, ring } : (code ?? "no code"),
        );
      },
    };
  }
}
