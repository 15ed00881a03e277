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
import type { CoordinatorMessage, PeerMessage } from "../membership/messages.js";
import type { Clock } from "./clock.js";
import { type DataPlane, type EngineHooks, SimEngine, type SimOp } from "./engine.js";
import type { Invariants } from "./invariants.js";
import type { Stream } from "./network.js";
import { Process } from "./process.js";
import type { Call, Outcome, Program } from "./program.js";
import type { Random } from "./random.js";

export interface PeerSurroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly plane: DataPlane;
  readonly invariants: Invariants;
  readonly trace: (line: string) => void;
  /** All peers by host: a fetch reads the content of its source. */
  readonly peers: Map<string, SimPeer>;
  /** Probability that a peer withdraws an op that it started. */
  readonly cancellation: number;
}

type RequestBody = SessionRequest extends infer R
  ? R extends SessionRequest
    ? Omit<R, "id">
    : never
  : never;

const TENSOR = "state";
const FETCH_MS_MAX = 400;

export class SimPeer {
  readonly host: string;
  readonly group: number;
  readonly process: Process = new Process();
  readonly session: SessionState;
  readonly engine: SimEngine;
  stream: Stream | undefined;
  /** The call that the program waits in. */
  call: Call | undefined;
  /** How the program ended: done, or the code or message of an error. */
  result: string | undefined;
  /** Content that this peer exports during a sync. */
  exported: number | undefined;
  readonly #around: PeerSurroundings;
  readonly #program: Program;
  #frozenOps: readonly EngineOpReport[] = [];
  #nextRequest = 1;
  readonly #replies = new Map<number, (outcome: { value: unknown } | { code: string }) => void>();
  readonly #running = new Map<bigint, (committed: boolean) => void>();

  constructor(
    host: string,
    group: number,
    around: PeerSurroundings,
    programOf: (rank: () => number) => Program,
  ) {
    this.host = host;
    this.group = group;
    this.#around = around;
    this.session = createSession({ group, advertise: { host, port: 1 } });
    this.engine = new SimEngine(host, this.process, around.plane, this.#engineHooks());
    this.#program = programOf(() => {
      const view = this.engine.view;
      return view?.ring.findIndex((member) => member.peerId === view.peerId) ?? -1;
    });
  }

  get peerId(): number {
    return this.session.peerId;
  }

  get alive(): boolean {
    return this.process.state !== "dead" && this.session.phase !== "ended";
  }

  start(stream: Stream): void {
    this.stream = stream;
    this.onEvent({ kind: "connected" });
    this.#tick();
  }

  onMessage(message: CoordinatorMessage): void {
    if (message.kind !== "heartbeat") this.#trace(`<- ${brief(message)}`);
    this.onEvent({ kind: "message", message });
  }

  onEvent(event: SessionEvent): void {
    for (const effect of stepSession(this.session, event, this.#around.clock.nowMs)) {
      switch (effect.kind) {
        case "send":
          this.#send(effect.message);
          break;
        case "end":
          this.stream?.end(0);
          break;
        case "engine-prepare":
          this.#frozenOps = this.engine.prepare(effect.view, effect.timeoutMs);
          break;
        case "engine-install": {
          this.#around.invariants.onInstall(this, effect.epoch);
          this.engine.install(effect.epoch, effect.verdicts);
          this.#around.invariants.onInstalled(this, this.engine.view as EngineView);
          break;
        }
        case "notify":
          this.#onNotice(effect.notice);
          break;
      }
    }
  }

  /** The process ends without a word. */
  die(): void {
    this.#trace("dies");
    this.process.die();
    this.engine.close();
    this.stream?.cut(false);
  }

  #tick(): void {
    this.#around.clock.after(tickIntervalMs(this.session), () => {
      if (!this.alive) return;
      // Timers of a stopped process don't pile up.
      if (this.process.state === "running") this.onEvent({ kind: "tick" });
      this.#tick();
    });
  }

  #send(message: PeerMessage): void {
    if (message.kind !== "heartbeat") this.#trace(`-> ${brief(message)}`);
    this.stream?.send(0, message);
  }

  #onNotice(notice: SessionNotice): void {
    switch (notice.kind) {
      case "pending":
      case "installed":
        return;
      case "admitted":
        return this.#advance();
      case "ended":
        // No fault of the network or of a process makes either side break the protocol.
        if (notice.error.code === "ERR_PCCL_INTERNAL") throw new Error(notice.error.message);
        this.engine.close();
        return this.#finish(notice.error.code);
      case "reply": {
        const reply = this.#replies.get(notice.id);
        this.#replies.delete(notice.id);
        reply?.("error" in notice ? { code: notice.error.code } : { value: notice.value });
      }
    }
  }

  #advance(outcome?: Outcome): void {
    if (this.result !== undefined) return;
    const next = outcome === undefined ? this.#program.next() : this.#program.next(outcome);
    this.call = undefined;
    if (next.done === true) return this.#leave();
    this.call = next.value;
    this.#trace(`calls ${brief(next.value)}`);
    this.#make(next.value);
  }

  #make(call: Call): void {
    switch (call.kind) {
      case "compute":
        this.#after(call.ms, () => this.#advance({ kind: "computed" }));
        return;
      case "has-pending-peers":
      case "update-topology":
        return this.#request(call, (value) => this.#advance({ kind: "answer", value: value as boolean }));
      case "sync":
        return this.#sync(call);
      case "all-reduce":
        return this.#allReduce(call.tags);
    }
  }

  #allReduce(tags: readonly bigint[]): void {
    const failed: bigint[] = [];
    let left = tags.length;
    for (const tag of tags) {
      this.#running.set(tag, (committed) => {
        this.#running.delete(tag);
        if (!committed) failed.push(tag);
        if (--left > 0) return;
        failed.sort((a, b) => Number(a - b));
        this.#after(0, () => this.#advance({ kind: "reduced", failed }));
      });
    }
    // Other peers start them in another order, and at other times.
    for (const tag of this.#around.random.chance(0.5) ? tags : [...tags].reverse()) {
      this.engine.allReduce(tag);
      if (this.#around.random.chance(this.#around.cancellation)) {
        this.#after(this.#around.random.between(0, 100), () => this.engine.cancel(tag));
      }
    }
  }

  #sync(call: Call & { kind: "sync" }): void {
    const { revision, strategy, content } = call;
    this.exported = content;
    const hash = contentHash(content);
    const entries = [{ name: TENSOR, dtype: "i32", count: 1, hash }];
    this.#request({ kind: "sync-offer", revision, strategy, entries }, (value) => {
      const plan = value as SyncPlanReply;
      const { random, peers } = this.#around;
      const fetch = plan.fetches[0];
      if (fetch === undefined || plan.source === undefined) return this.#syncDone(true, content);
      const source = peers.get(plan.source.endpoint.host);
      this.#after(random.between(0, FETCH_MS_MAX), () => {
        const fetched = source?.alive === true ? source.exported : undefined;
        const ok = fetched !== undefined && contentHash(fetched) === fetch.hash;
        this.#syncDone(ok, fetched ?? content);
      });
    });
  }

  #syncDone(ok: boolean, content: number): void {
    this.#request({ kind: "sync-done", ok, reason: ok ? "" : "the source is gone" }, (value) => {
      const revision = value as SessionReplies["sync-done"];
      this.#around.invariants.onSynced(this, revision, content);
      this.#advance({ kind: "synced", revision, content });
    });
  }

  #request(request: RequestBody, onValue: (value: unknown) => void): void {
    const id = this.#nextRequest++;
    this.#replies.set(id, (reply) => {
      // As promises are: the program goes on after the step that answered it.
      this.#after(0, () =>
        "code" in reply ? this.#advance({ kind: "error", code: reply.code }) : onValue(reply.value),
      );
    });
    this.onEvent({ kind: "request", request: { ...request, id } });
  }

  #leave(): void {
    this.#finish("done");
    this.onEvent({ kind: "request", request: { id: this.#nextRequest++, kind: "leave" } });
    // As the communicator does on close(): the session is told first, then the engine goes.
    this.engine.close();
  }

  #finish(result: string): void {
    if (this.result !== undefined) return;
    this.result = result;
    this.call = undefined;
    this.#trace(`ends: ${result}`);
    this.#program.return();
  }

  #after(delayMs: number, run: () => void): void {
    this.#around.clock.after(delayMs, () => this.process.deliver(() => this.alive && run()));
  }

  #engineHooks(): EngineHooks {
    return {
      onPrepared: (epoch, failures) =>
        this.onEvent({ kind: "prepared", epoch, failures, ops: this.#frozenOps }),
      onLinkLost: (epoch, peerId, reason) => this.onEvent({ kind: "link-lost", epoch, peerId, reason }),
      onSettled: (op: SimOp, view: EngineView) => {
        this.#trace(`op ${op.epoch}:${op.tag}/${op.seq} ${op.state}`);
        this.#around.invariants.onSettled(this, op, view);
        this.#running.get(op.tag)?.(op.state === "committed");
      },
    };
  }

  #trace(line: string): void {
    this.#around.trace(`${this.host}${this.peerId === 0 ? "" : `=${this.peerId}`} ${line}`);
  }
}

function contentHash(content: number): string {
  return (content >>> 0).toString(16).padStart(32, "0");
}

function brief(value: object): string {
  return JSON.stringify(value, (key, inner: unknown) =>
    key === "key" ? undefined : typeof inner === "bigint" ? Number(inner) : inner,
  ).slice(0, 240);
}
