/**
 * A model of the native engine's contract: views, all-reduces that pass contributions round the ring, and sends from
 * one member to another; all of them commit by dissemination (docs/protocol.md, section 2). Bytes are left out; which states an op can be in, who can know
 * what, and what a freeze interrupts are not.
 */
import type { PcclErrorCode } from "../base/errors.js";
import type { LinkFailure, OpName, OpState, PathSpeed, RingOp } from "../membership/messages.js";
import { linked } from "../membership/ring.js";
import type { EngineMember, EngineOpReport, EngineOpVerdict, EngineView } from "../membership/session.js";
import { belongsTo, type Frame } from "./frames.js";
import { Violation } from "./invariants.js";
import type { DataPlane } from "./links.js";
import type { Process, Thread } from "./process.js";
import type { Random } from "./random.js";

/** An op that waits this long for a neighbour's call says so. */
const STALLED_AFTER_MS = 1_000;
const MEASURE_MS_MAX = 400;
const MEASURE_TIMEOUT_MS = 3_000;
/** The longest that an engine measures a path. */
export const MEASURING_MS_MAX: number = MEASURE_MS_MAX + MEASURE_TIMEOUT_MS;

export interface SimOp extends RingOp {
  /** Those who take part, in ring order; of two members the sender comes first. */
  readonly participants: readonly number[];
  /** Those whose contributions make the result: all of them, or the sender. */
  readonly contributors: readonly number[];
  /** Count, dtype and reduction, as one number. */
  readonly descriptor: number;
  state: OpState;
  /** Why it was aborted. */
  code: PcclErrorCode | undefined;
  /** What is summed, or sent, by peer, with the epoch in which that peer sent it. */
  readonly contributions: Map<number, { readonly value: number; readonly epoch: number }>;
  /** Neighbours in the ring of participants that have called the op, too. */
  readonly calledBy: Set<number>;
  /** Contributions that the next participant will get when it has called the op. */
  readonly unsent: number[];
  readonly heardRounds: Set<number>;
  sentRounds: number;
}

/** An op's name without its number: ops with the same one are counted, and one of them is in flight at a time. */
export type Series = Pick<OpName, "tag" | "from" | "to">;

export interface OpCall extends Series {
  readonly descriptor: number;
  readonly value: number;
}

export interface EngineHooks {
  onPrepared(epoch: number, failures: readonly LinkFailure[]): void;
  onLinkLost(epoch: number, peerId: number, reason: string): void;
  onStalled(op: SimOp, missing: readonly number[]): void;
  onMeasured(id: number, result: PathSpeed | { readonly reason: string }): void;
  onCalled(op: SimOp): void;
  /** It was called while frozen, and the next view has no place for it. */
  onNotBegun(op: SimOp): void;
  /** The op is committed or aborted. */
  onSettled(op: SimOp, view: EngineView): void;
}

interface Preparing {
  readonly view: EngineView;
  /** Members whose link isn't there yet. */
  readonly missing: Set<number>;
  prepared: boolean;
  /** Links that broke after that, with the reason. */
  readonly lost: Map<number, string>;
  /** Frames of the new epoch from members that have installed it already. */
  readonly early: { readonly from: number; readonly frame: Frame }[];
}

export class SimEngine {
  readonly host: string;
  readonly process: Process;
  readonly thread: Thread;
  readonly #plane: DataPlane;
  readonly #hooks: EngineHooks;
  view: EngineView | undefined;
  #preparing: Preparing | undefined;
  /** Ops of the installed ring by opKey, settled ones too: a freeze has to report them. */
  readonly #ops = new Map<string, SimOp>();
  readonly #seqs = new Map<string, number>();
  /** Frames of ops that this peer hasn't posted yet. */
  readonly #unposted = new Map<string, { readonly from: number; readonly frame: Frame }[]>();
  /** Ops posted while frozen. */
  readonly #queued: OpCall[] = [];
  closed = false;

  constructor(host: string, thread: Thread, plane: DataPlane, hooks: EngineHooks) {
    this.host = host;
    this.thread = thread;
    this.process = thread.process;
    this.#plane = plane;
    this.#hooks = hooks;
  }

  /** An all-reduce of the ring, or with `from` and `to` a send between them. */
  call(call: OpCall): void {
    if (this.#preparing !== undefined || this.view === undefined) this.#queued.push(call);
    else this.#start(call, this.view);
  }

  /** Withdraws the op of this series if it isn't done. False: it hasn't begun, and its caller alone knows of it. */
  cancel(series: Series): boolean {
    const key = seriesKey(series);
    const queued = this.#queued.findIndex((call) => seriesKey(call) === key);
    if (queued >= 0) {
      this.#queued.splice(queued, 1);
      return false;
    }
    const op = [...this.#ops.values()].find(
      (known) => seriesKey(known) === key && known.state === "not-done",
    );
    if (op === undefined || this.view === undefined || this.closed) return true;
    // Frozen, it has been reported as not done, so that the others' verdict will be the same.
    if (this.#preparing === undefined) this.#abort(op, this.view, "ERR_PCCL_CANCELLED");
    else this.#settle(op, "aborted", this.view, "ERR_PCCL_CANCELLED");
    return true;
  }

  /** Aborts an op that waits for `peerId`'s call, unless that came after all. */
  abortIfMissing({ epoch, ...name }: RingOp, peerId: number): boolean {
    const op = this.#ops.get(opKey(name));
    const { view } = this;
    if (this.#preparing !== undefined || view?.epoch !== epoch) return false;
    if (op?.state !== "not-done" || op.calledBy.has(peerId) || !neighboursIn(op, view).includes(peerId))
      return false;
    this.#abort(op, view, "ERR_PCCL_CALL_MISMATCH");
    return true;
  }

  prepare(view: EngineView, timeoutMs: number): EngineOpReport[] {
    this.#plane.register(nameOf(view, view.peerId), this);
    const preparing: Preparing = {
      view,
      missing: new Set(linkedPeersOf(view).filter((id) => !this.#hasLink(view, id))),
      prepared: false,
      lost: new Map(),
      early: [],
    };
    this.#preparing = preparing;
    this.thread.after(timeoutMs, () => {
      if (this.#preparing === preparing) this.#finishPrepare(preparing);
    });
    for (const id of preparing.missing) this.#build(view, id);
    if (preparing.missing.size === 0) this.#finishPrepare(preparing);
    return [...this.#ops.values()].map(({ tag, seq, from, to, state }) => ({ tag, seq, from, to, state }));
  }

  install(epoch: number, verdicts: readonly EngineOpVerdict[]): void {
    const preparing = this.#preparing;
    if (preparing?.view.epoch !== epoch) throw new Error(`install of epoch ${epoch}, which is not prepared`);
    const { view: old } = this;
    for (const op of this.#ops.values()) {
      const verdict = verdicts.find((candidate) => opKey(candidate) === opKey(op));
      const commit = verdict?.commit ?? false;
      if (op.state === "committed" || op.state === "aborted") {
        if (commit !== (op.state === "committed")) {
          const other = commit ? "commit" : "abort";
          throw new Violation("I1", `${this.host}: op ${opKey(op)} is ${op.state}, the verdict is ${other}`);
        }
        continue;
      }
      if (commit && op.state !== "done") {
        throw new Violation("I2", `${this.host}: commit of op ${opKey(op)}, whose result it doesn't hold`);
      }
      if (old === undefined) continue;
      this.#settle(op, commit ? "committed" : "aborted", old, commit ? undefined : "ERR_PCCL_PEER_LOST");
    }
    this.view = preparing.view;
    this.#preparing = undefined;
    this.#ops.clear();
    this.#seqs.clear();
    this.#unposted.clear();
    for (const call of this.#queued.splice(0)) this.#start(call, this.view);
    for (const { from, frame } of preparing.early) this.#take(from, frame);
    for (const [id, reason] of preparing.lost) {
      this.thread.after(0, () => this.#hooks.onLinkLost(epoch, id, reason));
    }
  }

  setWorld(viewEpoch: number, worldSize: number): void {
    if (this.view !== undefined) this.view = { ...this.view, viewEpoch, worldSize };
  }

  /** Takes a while, and longer when the other one doesn't answer. */
  measure(id: number, target: EngineMember, random: Random): void {
    this.thread.after(random.between(1, MEASURE_MS_MAX), () => {
      if (this.closed) return;
      const speed = { bytesPerSecond: 1e6 * 2 ** random.between(0, 7), rttMs: random.between(1, 100) };
      if (this.#reaches(target.peerId)) return this.#hooks.onMeasured(id, speed);
      this.thread.after(MEASURE_TIMEOUT_MS, () => {
        if (!this.closed) this.#hooks.onMeasured(id, { reason: "no answer" });
      });
    });
  }

  #reaches(id: number): boolean {
    const { view } = this;
    if (view === undefined) return false;
    const other = this.#engine(view, id);
    if (other === undefined || other.closed) return false;
    const via = viaOf(view, id);
    const relay = via === undefined ? undefined : this.#engine(view, via);
    return (via === undefined || relay !== undefined) && this.#plane.reaches(this, other, relay);
  }

  close(): void {
    this.closed = true;
    this.#plane.close(this);
  }

  /** Whether it is about to have the links of this epoch, or has them. */
  prepares(epoch: number): boolean {
    return this.#preparing?.view.epoch === epoch && !this.closed;
  }

  awaits(name: string, epoch: number): boolean {
    if (!this.prepares(epoch) || this.process.state === "dead" || this.#preparing === undefined) return false;
    const { view, missing, prepared } = this.#preparing;
    return !prepared && [...missing].some((id) => nameOf(view, id) === name);
  }

  /** Whether its views ask it to pass on the bytes of this pair. */
  relays(a: SimEngine, b: SimEngine): boolean {
    return [this.#preparing?.view, this.view].some((view) =>
      view?.relays.some((pair) => {
        const [first, second] = [this.#engine(view, pair.a), this.#engine(view, pair.b)];
        return (first === a && second === b) || (first === b && second === a);
      }),
    );
  }

  onLinkUp(other: SimEngine): void {
    const preparing = this.#preparing;
    if (preparing === undefined || this.closed) return;
    for (const id of preparing.missing) {
      if (this.#engine(preparing.view, id) === other) preparing.missing.delete(id);
    }
    for (const id of preparing.lost.keys()) {
      if (this.#engine(preparing.view, id) === other) preparing.lost.delete(id);
    }
    if (preparing.missing.size === 0) this.#finishPrepare(preparing);
  }

  onLinkLost(other: SimEngine, reason: string): void {
    if (this.closed) return;
    const preparing = this.#preparing;
    const idIn = (view: EngineView | undefined): number | undefined =>
      view && linkedPeersOf(view).find((id) => this.#engine(view, id) === other);
    const next = idIn(preparing?.view);
    if (preparing !== undefined && next !== undefined) {
      // Once prepared it isn't dialled again from here, and told when the view is installed, unless it has come back.
      if (preparing.prepared) return void preparing.lost.set(next, reason);
      preparing.missing.add(next);
      return this.#build(preparing.view, next);
    }
    const current = idIn(this.view);
    if (current !== undefined) this.#hooks.onLinkLost(this.view?.epoch ?? 0, current, reason);
  }

  onFrame({ from, frame }: { readonly from: number; readonly frame: Frame }): void {
    const preparing = this.#preparing;
    if (this.closed) return;
    if (preparing === undefined) this.#take(from, frame);
    // Frozen: the old epoch makes no more progress, the new one begins with the install.
    else if (belongsTo(frame, preparing.view)) preparing.early.push({ from, frame });
  }

  #hasLink(view: EngineView, id: number): boolean {
    const via = viaOf(view, id);
    return this.#plane.isUp(
      this,
      this.#engine(view, id),
      via === undefined ? undefined : this.#engine(view, via),
    );
  }

  #engine(view: EngineView, id: number): SimEngine | undefined {
    return this.#plane.engine(nameOf(view, id));
  }

  #build(view: EngineView, id: number): void {
    const via = viaOf(view, id);
    this.#plane.build(this, nameOf(view, id), via === undefined ? undefined : nameOf(view, via), view.epoch);
  }

  #finishPrepare(preparing: Preparing): void {
    if (preparing.prepared || this.closed) return;
    preparing.prepared = true;
    const failures = [...preparing.missing].map((peerId) => ({ peerId, reason: "no answer" }));
    // Later, as the real engine's events are.
    this.thread.after(0, () => this.#hooks.onPrepared(preparing.view.epoch, failures));
  }

  #start({ tag, from, to, descriptor, value }: OpCall, view: EngineView): void {
    const series = seriesKey({ tag, from, to });
    const seq = this.#seqs.get(series) ?? 0;
    const { epoch } = view;
    const ring = view.ring.map(({ peerId }) => peerId);
    const participants = from === undefined || to === undefined ? ring : [from, to];
    const op: SimOp = {
      tag,
      from,
      to,
      epoch,
      seq,
      participants,
      contributors: from === undefined ? ring : [from],
      descriptor,
      state: "not-done",
      code: undefined,
      contributions: new Map(),
      calledBy: new Set(),
      unsent: [],
      heardRounds: new Set(),
      sentRounds: 0,
    };
    // The view that it waited for came without the other one, or without a link to it: the op takes no number, and
    // nobody else knows of it.
    const isHere = participants.every((id) => ring.includes(id));
    if (!isHere || (from !== undefined && !linkedPeersOf(view).includes(neighboursIn(op, view)[0] ?? 0))) {
      op.state = "aborted";
      op.code = isHere ? "ERR_PCCL_INVALID_ARGUMENT" : "ERR_PCCL_PEER_LOST";
      return this.#hooks.onNotBegun(op);
    }
    this.#seqs.set(series, seq + 1);
    const key = opKey(op);
    this.#ops.set(key, op);
    this.#hooks.onCalled(op);
    for (const id of neighboursIn(op, view))
      this.#send(view, id, { kind: "called", ...nameOfOp(op), descriptor });
    if (op.contributors.includes(view.peerId)) this.#contribute(op, view, view.peerId, value, epoch);
    for (const early of this.#unposted.get(key) ?? []) this.#take(early.from, early.frame);
    this.#unposted.delete(key);
    if (op.state !== "not-done") return;
    this.thread.after(STALLED_AFTER_MS, () => {
      if (op.state !== "not-done" || this.#preparing !== undefined || this.view?.epoch !== epoch) return;
      const missing = neighboursIn(op, view).filter((id) => !op.calledBy.has(id));
      if (missing.length > 0 && !this.closed) this.#hooks.onStalled(op, missing);
    });
  }

  #take(from: number, frame: Frame): void {
    const { view } = this;
    if (view === undefined || !belongsTo(frame, view)) return;
    const key = opKey(frame);
    const op = this.#ops.get(key);
    if (op === undefined) return this.#keep(view, key, from, frame);
    switch (frame.kind) {
      case "called":
        return this.#onCalled(op, view, from, frame.descriptor);
      case "contribution":
        return this.#contribute(op, view, frame.peerId, frame.value, frame.epoch);
      case "done":
        op.heardRounds.add(frame.round);
        return this.#disseminate(op, view);
      case "abort":
        return this.#abort(op, view, frame.code);
    }
  }

  /** What comes for an op that isn't called here yet waits for the call. */
  #keep(view: EngineView, key: string, from: number, frame: Frame): void {
    const known = this.#unposted.get(key) ?? [];
    const isOver =
      (this.#seqs.get(seriesKey(frame)) ?? 0) > frame.seq ||
      known.some((kept) => kept.frame.kind === "abort");
    if (isOver) return;
    if (frame.kind === "abort") {
      if (frame.from === undefined) for (const id of linkedPeersOf(view)) this.#send(view, id, frame);
      if (frame.code === "ERR_PCCL_CALL_MISMATCH") {
        // This peer hears of the mismatch from the call that it waits in; its next op is the others' next one.
        this.#seqs.set(seriesKey(frame), frame.seq + 1);
        this.#unposted.delete(key);
        return;
      }
    }
    this.#unposted.set(key, [...known, { from, frame }]);
  }

  #onCalled(op: SimOp, view: EngineView, from: number, descriptor: number): void {
    op.calledBy.add(from);
    if (op.state === "aborted") return;
    if (descriptor !== op.descriptor) return this.#abort(op, view, "ERR_PCCL_DESCRIPTOR_MISMATCH");
    if (from === atDistance(op, view, 1)) for (const id of op.unsent.splice(0)) this.#forward(op, view, id);
    this.#finish(op, view);
  }

  #contribute(op: SimOp, view: EngineView, peerId: number, value: number, epoch: number): void {
    if (op.state !== "not-done" || op.contributions.has(peerId)) return;
    op.contributions.set(peerId, { value, epoch });
    this.#forward(op, view, peerId);
    this.#finish(op, view);
  }

  /** Done is who holds the whole result; who sends must have sent it. */
  #finish(op: SimOp, view: EngineView): void {
    const isSent = op.from === undefined || op.unsent.length === 0;
    if (op.state !== "not-done" || op.contributions.size < op.contributors.length || !isSent) return;
    op.state = "done";
    this.#disseminate(op, view);
  }

  #forward(op: SimOp, view: EngineView, peerId: number): void {
    const next = atDistance(op, view, 1);
    const value = op.contributions.get(peerId)?.value;
    if (value === undefined || next === view.peerId || next === peerId) return;
    if (!op.calledBy.has(next)) op.unsent.push(peerId);
    else this.#send(view, next, { kind: "contribution", ...nameOfOp(op), peerId, value });
  }

  /** Round k goes out once rounds 0 to k-1 were heard; whoever has heard all knows that all are done. */
  #disseminate(op: SimOp, view: EngineView): void {
    if (op.state !== "done") return;
    const rounds = Math.ceil(Math.log2(op.participants.length));
    while (op.sentRounds < rounds && (op.sentRounds === 0 || op.heardRounds.has(op.sentRounds - 1))) {
      const round = op.sentRounds++;
      this.#send(view, atDistance(op, view, 2 ** round), { kind: "done", ...nameOfOp(op), round });
    }
    if (op.sentRounds === rounds && (rounds === 0 || op.heardRounds.has(rounds - 1))) {
      this.#settle(op, "committed", view, undefined);
    }
  }

  #abort(op: SimOp, view: EngineView, code: PcclErrorCode): void {
    if (op.state === "committed")
      throw new Violation("I1", `${this.host}: abort of op ${opKey(op)}, which committed`);
    if (op.state === "aborted") return;
    const hearers = op.from === undefined ? linkedPeersOf(view) : neighboursIn(op, view);
    for (const id of hearers) this.#send(view, id, { kind: "abort", ...nameOfOp(op), code });
    this.#settle(op, "aborted", view, code);
  }

  #settle(
    op: SimOp,
    state: "committed" | "aborted",
    view: EngineView,
    code: PcclErrorCode | undefined,
  ): void {
    op.state = state;
    op.code = code;
    this.#hooks.onSettled(op, view);
  }

  #send(view: EngineView, to: number, frame: Frame): void {
    const engine = this.#engine(view, to);
    if (engine !== undefined) this.#plane.send(this, engine, { from: view.peerId, frame });
  }
}

/** Its own, not membership/verdicts.ts', so that a mistake there shows. */
function opKey(op: OpName): string {
  return `${seriesKey(op)} #${op.seq}`;
}

export function seriesKey({ tag, from, to }: Series): string {
  return from === undefined ? `${tag}` : `${tag}: ${from} to ${to}`;
}

function nameOfOp({ epoch, tag, seq, from, to }: RingOp): RingOp {
  return { epoch, tag, seq, from, to };
}

/** Peers of different worlds can't take each other for members: their keys differ. */
function nameOf(view: EngineView, peerId: number): string {
  return `${view.key.join("")}/${peerId}`;
}

/** Which of the op's participants comes so many after the view's owner. */
function atDistance({ participants }: SimOp, { peerId }: EngineView, distance: number): number {
  return participants[(participants.indexOf(peerId) + distance) % participants.length] ?? peerId;
}

/** The participants before and after the view's owner, between which the op's data moves. */
function neighboursIn(op: SimOp, view: EngineView): number[] {
  const ids = new Set([atDistance(op, view, 1), atDistance(op, view, op.participants.length - 1)]);
  return [...ids].filter((id) => id !== view.peerId);
}

/** Members that `view` links its owner with. */
function linkedPeersOf(view: EngineView): number[] {
  const rank = view.ring.findIndex((member) => member.peerId === view.peerId);
  return view.ring.filter((_, other) => linked(rank, other, view.ring.length)).map((member) => member.peerId);
}

function viaOf(view: EngineView, peerId: number): number | undefined {
  return view.ring.find((member) => member.peerId === peerId)?.via;
}
