/**
 * A model of the native engine's contract: views, and all-reduces that pass contributions round the ring and commit
 * by dissemination (docs/protocol.md, section 2). Bytes are left out; which states an op can be in, who can know
 * what, and what a freeze interrupts are not.
 */
import type { PcclErrorCode } from "../base/errors.js";
import type { LinkFailure, OpState } from "../membership/messages.js";
import { linked } from "../membership/ring.js";
import type { EngineOpReport, EngineOpVerdict, EngineView } from "../membership/session.js";
import { belongsTo, type Frame } from "./frames.js";
import { Violation } from "./invariants.js";
import type { DataPlane } from "./links.js";
import type { Process, Thread } from "./process.js";

/** An op that waits this long for a neighbour's call says so. */
const STALLED_AFTER_MS = 1_000;

export interface SimOp {
  readonly tag: bigint;
  /** The ring's. */
  readonly epoch: number;
  readonly seq: number;
  /** Count, dtype and reduction, as one number. */
  readonly descriptor: number;
  state: OpState;
  /** Why it was aborted. */
  code: PcclErrorCode | undefined;
  /** What is summed, by peer, with the epoch in which that peer sent it. */
  readonly contributions: Map<number, { readonly value: number; readonly epoch: number }>;
  /** Neighbours in the ring that have called the op, too. */
  readonly calledBy: Set<number>;
  /** Contributions that the next rank will get when it has called the op. */
  readonly unsent: number[];
  readonly heardRounds: Set<number>;
  sentRounds: number;
}

export interface OpCall {
  readonly tag: bigint;
  readonly descriptor: number;
  readonly value: number;
}

export interface EngineHooks {
  onPrepared(epoch: number, failures: readonly LinkFailure[]): void;
  onLinkLost(epoch: number, peerId: number, reason: string): void;
  onStalled(op: SimOp, missing: readonly number[]): void;
  onCalled(op: SimOp): void;
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
  readonly #seqs = new Map<bigint, number>();
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

  allReduce(call: OpCall): void {
    if (this.#preparing !== undefined || this.view === undefined) this.#queued.push(call);
    else this.#start(call, this.view);
  }

  /** Withdraws the op with this tag if it isn't done. False: it hasn't begun, and its caller alone knows of it. */
  cancel(tag: bigint): boolean {
    const queued = this.#queued.findIndex((call) => call.tag === tag);
    if (queued >= 0) {
      this.#queued.splice(queued, 1);
      return false;
    }
    const op = [...this.#ops.values()].find((known) => known.tag === tag && known.state === "not-done");
    if (op === undefined || this.view === undefined || this.closed) return true;
    // Frozen, it has been reported as not done, so that the others' verdict will be the same.
    if (this.#preparing === undefined) this.#abort(op, this.view, "ERR_PCCL_CANCELLED");
    else this.#settle(op, "aborted", this.view, "ERR_PCCL_CANCELLED");
    return true;
  }

  /** Aborts an op that waits for `peerId`'s call, unless that came after all. */
  abortIfMissing(epoch: number, tag: bigint, seq: number, peerId: number): boolean {
    const op = this.#ops.get(opKey(tag, seq));
    const { view } = this;
    if (this.#preparing !== undefined || view?.epoch !== epoch) return false;
    if (op?.state !== "not-done" || op.calledBy.has(peerId) || !ringNeighbours(view).includes(peerId))
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
    return [...this.#ops.values()].map(({ tag, seq, state }) => ({ tag, seq, state }));
  }

  install(epoch: number, verdicts: readonly EngineOpVerdict[]): void {
    const preparing = this.#preparing;
    if (preparing?.view.epoch !== epoch) throw new Error(`install of epoch ${epoch}, which is not prepared`);
    const { view: old } = this;
    for (const op of this.#ops.values()) {
      const verdict = verdicts.find(({ tag, seq }) => tag === op.tag && seq === op.seq);
      const commit = verdict?.commit ?? false;
      if (op.state === "committed" || op.state === "aborted") {
        if (commit !== (op.state === "committed")) {
          const other = commit ? "commit" : "abort";
          throw new Violation(
            "I1",
            `${this.host}: op ${op.tag}/${op.seq} is ${op.state}, the verdict is ${other}`,
          );
        }
        continue;
      }
      if (commit && op.state !== "done") {
        throw new Violation(
          "I2",
          `${this.host}: commit of op ${op.tag}/${op.seq}, whose result it doesn't hold`,
        );
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

  #start({ tag, descriptor, value }: OpCall, view: EngineView): void {
    const seq = this.#seqs.get(tag) ?? 0;
    this.#seqs.set(tag, seq + 1);
    const { epoch } = view;
    const op: SimOp = {
      tag,
      epoch,
      seq,
      descriptor,
      state: "not-done",
      code: undefined,
      contributions: new Map(),
      calledBy: new Set(),
      unsent: [],
      heardRounds: new Set(),
      sentRounds: 0,
    };
    const key = opKey(tag, seq);
    this.#ops.set(key, op);
    this.#hooks.onCalled(op);
    for (const id of ringNeighbours(view))
      this.#send(view, id, { kind: "called", epoch, tag, seq, descriptor });
    this.#contribute(op, view, view.peerId, value, epoch);
    for (const { from, frame } of this.#unposted.get(key) ?? []) this.#take(from, frame);
    this.#unposted.delete(key);
    if (op.state !== "not-done") return;
    this.thread.after(STALLED_AFTER_MS, () => {
      if (op.state !== "not-done" || this.#preparing !== undefined || this.view?.epoch !== epoch) return;
      const missing = ringNeighbours(view).filter((id) => !op.calledBy.has(id));
      if (missing.length > 0 && !this.closed) this.#hooks.onStalled(op, missing);
    });
  }

  #take(from: number, frame: Frame): void {
    const { view } = this;
    if (view === undefined || !belongsTo(frame, view)) return;
    const key = opKey(frame.tag, frame.seq);
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
      (this.#seqs.get(frame.tag) ?? 0) > frame.seq || known.some((kept) => kept.frame.kind === "abort");
    if (isOver) return;
    if (frame.kind === "abort") {
      for (const id of linkedPeersOf(view)) this.#send(view, id, frame);
      if (frame.code === "ERR_PCCL_CALL_MISMATCH") {
        // This peer hears of the mismatch from the call that it waits in; its next op is the others' next one.
        this.#seqs.set(frame.tag, frame.seq + 1);
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
    if (from === atDistance(view, 1)) for (const id of op.unsent.splice(0)) this.#forward(op, view, id);
  }

  #contribute(op: SimOp, view: EngineView, peerId: number, value: number, epoch: number): void {
    if (op.state !== "not-done" || op.contributions.has(peerId)) return;
    op.contributions.set(peerId, { value, epoch });
    this.#forward(op, view, peerId);
    if (op.contributions.size < view.ring.length) return;
    op.state = "done";
    this.#disseminate(op, view);
  }

  #forward(op: SimOp, view: EngineView, peerId: number): void {
    const next = atDistance(view, 1);
    const { tag, epoch, seq } = op;
    const value = op.contributions.get(peerId)?.value;
    if (value === undefined || next === view.peerId || next === peerId) return;
    if (!op.calledBy.has(next)) op.unsent.push(peerId);
    else this.#send(view, next, { kind: "contribution", epoch, tag, seq, peerId, value });
  }

  /** Round k goes out once rounds 0 to k-1 were heard; whoever has heard all knows that all are done. */
  #disseminate(op: SimOp, view: EngineView): void {
    if (op.state !== "done") return;
    const rounds = Math.ceil(Math.log2(view.ring.length));
    const { tag, epoch, seq } = op;
    while (op.sentRounds < rounds && (op.sentRounds === 0 || op.heardRounds.has(op.sentRounds - 1))) {
      const round = op.sentRounds++;
      this.#send(view, atDistance(view, 2 ** round), { kind: "done", epoch, tag, seq, round });
    }
    if (op.sentRounds === rounds && (rounds === 0 || op.heardRounds.has(rounds - 1))) {
      this.#settle(op, "committed", view, undefined);
    }
  }

  #abort(op: SimOp, view: EngineView, code: PcclErrorCode): void {
    if (op.state === "committed")
      throw new Violation("I1", `${this.host}: abort of op ${op.tag}/${op.seq}, which committed`);
    if (op.state === "aborted") return;
    const { tag, epoch, seq } = op;
    for (const id of linkedPeersOf(view)) this.#send(view, id, { kind: "abort", epoch, tag, seq, code });
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

function opKey(tag: bigint, seq: number): string {
  return `${tag}/${seq}`;
}

/** Peers of different worlds can't take each other for members: their keys differ. */
function nameOf(view: EngineView, peerId: number): string {
  return `${view.key.join("")}/${peerId}`;
}

function rankOf(view: EngineView): number {
  return view.ring.findIndex((member) => member.peerId === view.peerId);
}

function atDistance(view: EngineView, distance: number): number {
  return view.ring[(rankOf(view) + distance) % view.ring.length]?.peerId ?? view.peerId;
}

/** The ranks before and after the owner's, between which an op's data moves. */
function ringNeighbours(view: EngineView): number[] {
  const ids = new Set([atDistance(view, 1), atDistance(view, view.ring.length - 1)]);
  return [...ids].filter((id) => id !== view.peerId);
}

/** Members that `view` links its owner with. */
function linkedPeersOf(view: EngineView): number[] {
  const rank = rankOf(view);
  return view.ring.filter((_, other) => linked(rank, other, view.ring.length)).map((member) => member.peerId);
}

function viaOf(view: EngineView, peerId: number): number | undefined {
  return view.ring.find((member) => member.peerId === peerId)?.via;
}
