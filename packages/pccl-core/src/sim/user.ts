/** A simulated peer's main thread: its program, and the calls that it makes as peer/communicator.ts would. */
import type { SessionReplies, SessionRequest, SyncPlanReply } from "../membership/session-protocol.js";
import { seriesKey, type SimOp } from "./engine.js";
import type { PeerSurroundings, SimPeer } from "./peer.js";
import type { Thread } from "./process.js";
import {
  type Call,
  type Deviation,
  type OpResult,
  type Outcome,
  type Program,
  type ProgramOp,
  trainingProgram,
} from "./program.js";
import type { Random } from "./random.js";
import { describeFields } from "./trace.js";

/** What one peer's user does besides training, by the number of its call or of its place in the program. */
export interface Behaviour {
  readonly deviations: ReadonlyMap<number, Deviation>;
  /** Withdraws the call after this time. */
  readonly withdrawals: ReadonlyMap<number, number>;
  /** Calls its ops with another descriptor than the others. */
  readonly odd: ReadonlySet<number>;
}

export interface UserOptions {
  readonly steps: number;
  readonly behaviour: Behaviour;
}

type RequestBody = SessionRequest extends infer R
  ? R extends SessionRequest
    ? Omit<R, "id">
    : never
  : never;

type Reply = { readonly value: unknown } | { readonly code: string };

const TENSOR = "state";
const FETCH_MS_MAX = 400;
/** Some are used again, some are made anew. */
const MEASUREMENTS_KEPT_MS = 10_000;

export class SimUser {
  /** The call that the program waits in, and since when. */
  call: Call | undefined;
  calledAtMs = 0;
  /** It has called updateTopology, and not been answered since. */
  consents = false;
  /** How the program ended: done, left, or the code of an error. */
  result: string | undefined;
  /** Content that other peers may fetch. */
  exported: number | undefined;
  readonly #peer: SimPeer;
  readonly #main: Thread;
  readonly #options: UserOptions;
  readonly #around: PeerSurroundings;
  readonly #random: Random;
  readonly #program: Program;
  #calls = 0;
  #fetching: { over: boolean } | undefined;
  /** What a sync in the background has given, until it has ended. */
  #synced: { readonly revision: number; readonly content: number } | undefined;
  readonly #replies = new Map<number, (reply: Reply) => void>();
  /** Ops in flight, by seriesKey(). */
  readonly #running = new Map<string, (result: OpResult) => void>();

  constructor(peer: SimPeer, main: Thread, options: UserOptions, around: PeerSurroundings) {
    this.#peer = peer;
    this.#main = main;
    this.#options = options;
    this.#around = around;
    this.#random = around.network.random(`${peer.host} user`);
    this.#program = trainingProgram({
      random: this.#random,
      steps: options.steps,
      content: this.#random.below(1_000_000),
      deviations: options.behaviour.deviations,
      peerId: () => peer.peerId,
      peers: () => peer.engine.view?.ring.map((member) => member.peerId) ?? [],
    });
  }

  onAdmitted(): void {
    this.#onMain(() => this.#advance());
  }

  onReply(id: number, reply: Reply): void {
    const onReply = this.#replies.get(id);
    this.#replies.delete(id);
    this.#onMain(() => onReply?.(reply));
  }

  onOpEnded(op: SimOp, result: OpResult): void {
    this.#running.get(seriesKey(op))?.(result);
  }

  #advance(outcome?: Outcome): void {
    if (this.result !== undefined) return;
    if (this.call !== undefined && outcome !== undefined) {
      const cancelled = outcome.kind === "error" && outcome.code === "ERR_PCCL_CANCELLED";
      if (this.call.kind === "update-topology" && !cancelled) this.consents = false;
      if (this.call.kind === "optimize-topology" && outcome.kind === "answer" && outcome.value)
        this.#around.invariants.onReordered();
      this.#around.invariants.onOutcome(this.#peer, outcome);
      if (this.#around.trace !== undefined) this.#peer.trace(`= ${describeOutcome(outcome)}`);
    }
    const next = outcome === undefined ? this.#program.next() : this.#program.next(outcome);
    this.call = undefined;
    if (next.done === true) {
      this.end("done");
      return this.#peer.leave();
    }
    this.call = next.value;
    this.calledAtMs = this.#around.network.clock.nowMs;
    if (this.#around.trace !== undefined) this.#peer.trace(`calls ${describeCall(next.value)}`);
    this.#make(next.value, this.#calls++);
  }

  #make(call: Call, number: number): void {
    const withdrawAfterMs = this.#options.behaviour.withdrawals.get(number);
    switch (call.kind) {
      case "compute":
        return this.#main.after(call.ms, () => this.#advance({ kind: "computed" }));
      case "has-pending-peers":
      case "update-topology":
      case "optimize-topology":
        if (call.kind === "update-topology") this.consents = true;
        return this.#request(
          call.kind === "optimize-topology" ? { ...call, maxAgeMs: MEASUREMENTS_KEPT_MS } : call,
          withdrawAfterMs,
          (value) => this.#advance({ kind: "answer", value: value as boolean }),
        );
      case "sync":
        return this.#sync(call, withdrawAfterMs);
      case "ops":
        return this.#run(call.ops, this.#options.behaviour.odd.has(number), withdrawAfterMs);
    }
  }

  #run(ops: readonly ProgramOp[], odd: boolean, withdrawAfterMs: number | undefined): void {
    const results = new Map<string, OpResult>();
    for (const op of ops) {
      const key = seriesKey(op);
      this.#running.set(key, (result) => {
        this.#running.delete(key);
        results.set(key, result);
        if (results.size === ops.length) this.#onMain(() => this.#advance({ kind: "ops", results }));
      });
    }
    // Other peers start them in another order, and at other times.
    for (const op of this.#random.chance(0.5) ? ops : [...ops].reverse()) {
      this.#peer.engine.call({ ...op, descriptor: odd ? 1 : 0 });
      if (withdrawAfterMs === undefined) continue;
      this.#main.after(withdrawAfterMs, () => {
        const ended = this.#running.get(seriesKey(op));
        if (ended === undefined) return;
        this.#peer.trace(`withdraws the op ${seriesKey(op)}`);
        if (!this.#peer.engine.cancel(op)) ended("ERR_PCCL_CANCELLED");
      });
    }
  }

  #sync(call: Call & { kind: "sync" }, withdrawAfterMs: number | undefined): void {
    const { revision, strategy, content } = call;
    this.exported = content;
    this.#around.invariants.onOffer(this.#peer, revision, content);
    const hash = contentHash(content);
    const entries = [{ name: TENSOR, dtype: "i32", count: 1, hash, allowInequality: false }];
    const background = this.#random.chance(0.4);
    const offer = { kind: "sync-offer", revision, strategy, background, entries } as const;
    this.#request(offer, withdrawAfterMs, (value) => {
      const plan = value as SyncPlanReply;
      const fetch = plan.fetches[0];
      if (fetch === undefined) return this.#syncDone(true, content, background, withdrawAfterMs);
      const hosts = plan.sources.filter(({ complete }) => complete).map(({ member }) => member.endpoint.host);
      const fetching = { over: false };
      this.#fetching = fetching;
      this.#fetch(hosts, fetch.hash, this.#peer.process.nowMs + this.#around.plane.silenceMs, (fetched) => {
        if (fetching.over) return;
        fetching.over = true;
        this.#syncDone(fetched !== undefined, fetched ?? content, background, withdrawAfterMs);
      });
    });
  }

  /** A sync of this peer's that was in the background is over. */
  onSyncEnded(): void {
    if (this.#synced === undefined) return;
    const { revision, content } = this.#synced;
    this.#synced = undefined;
    this.#around.invariants.onSynced(this.#peer, revision, content);
  }

  /** The group's sync has failed while this peer fetches. */
  onSyncFailed(code: string): void {
    this.#onMain(() => this.#fetchFailed(code));
  }

  #fetchFailed(code: string): void {
    if (this.#fetching === undefined || this.#fetching.over) return;
    this.#fetching.over = true;
    this.#advance({ kind: "error", code });
  }

  /** From the first source that answers; waits for those that don't as long as a link does. */
  #fetch(
    hosts: readonly string[],
    hash: string,
    untilMs: number,
    onEnd: (content: number | undefined) => void,
  ): void {
    const { network } = this.#around;
    this.#main.after(this.#random.between(0, FETCH_MS_MAX), () => {
      const [host, ...others] = hosts;
      if (host === undefined || this.#peer.process.nowMs > untilMs) return onEnd(undefined);
      const source = this.#around.peerAt(host);
      const gone = source === undefined || source.process.state === "dead" || source.engine.closed;
      const answers =
        !gone && network.isOpenBothWays(this.#peer.host, host) && source.process.state === "running";
      const content = answers ? source.user.exported : undefined;
      if (content !== undefined && contentHash(content) === hash) return onEnd(content);
      // Who has gone on to other content than this, or is no more, won't have it later.
      this.#fetch(answers || gone ? others : [...others, host], hash, untilMs, onEnd);
    });
  }

  #syncDone(ok: boolean, content: number, background: boolean, withdrawAfterMs: number | undefined): void {
    const reason = ok ? "" : "the source is gone";
    this.#request({ kind: "sync-done", ok, reason }, withdrawAfterMs, (value) => {
      const revision = value as SessionReplies["sync-done"];
      // In the background the sync is complete when it has ended.
      if (background) this.#synced = { revision, content };
      else this.#around.invariants.onSynced(this.#peer, revision, content);
      this.#advance({ kind: "synced", revision, content });
    });
  }

  #request(
    request: RequestBody,
    withdrawAfterMs: number | undefined,
    onValue: (value: unknown) => void,
  ): void {
    const id = this.#peer.nextRequestId();
    this.#replies.set(id, (reply) => {
      if ("code" in reply) this.#advance({ kind: "error", code: reply.code });
      else onValue(reply.value);
    });
    this.#peer.request({ ...request, id });
    if (withdrawAfterMs === undefined) return;
    this.#main.after(withdrawAfterMs, () => {
      if (!this.#replies.has(id) || this.result !== undefined) return;
      this.#peer.trace(`withdraws #${id}`);
      this.#peer.request({ id: this.#peer.nextRequestId(), kind: "withdraw", target: id });
    });
  }

  /** The program is over, if it isn't yet. */
  end(result: string): void {
    if (this.result !== undefined) return;
    this.result = result;
    this.call = undefined;
    this.#peer.trace(`ends: ${result}`);
  }

  /** As promises are: the program goes on after the step that answered it. */
  #onMain(action: () => void): void {
    this.#around.network.clock.after(0, () => this.#main.deliver(() => this.#peer.alive && action()));
  }
}

function contentHash(content: number): string {
  return (content >>> 0).toString(16).padStart(32, "0");
}

function describeCall(call: Call): string {
  switch (call.kind) {
    case "ops":
      return `ops ${call.ops.map(seriesKey).join(", ")}`;
    case "compute":
      return `nothing for ${Math.round(call.ms)} ms`;
    case "sync":
      return `sync revision ${call.revision} = ${contentHash(call.content).replace(/^0+/, "")}, ${call.strategy}`;
    default:
      return call.kind;
  }
}

function describeOutcome(outcome: Outcome): string {
  if (outcome.kind === "ops") {
    return [...outcome.results]
      .map(([key, result]) => `${key}: ${typeof result === "string" ? result : result.value}`)
      .join("; ");
  }
  const { kind, ...fields } = outcome;
  return `${kind} ${describeFields(fields)}`.trimEnd();
}
