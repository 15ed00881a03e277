/**
 * A model of the native engine's contract: views, links, and all-reduces that pass contributions round the ring
 * and commit by dissemination (docs/protocol.md, section 2). Bytes are left out; which states an op can be in,
 * who can know what, and what a freeze interrupts are not.
 */
import type { LinkFailure, OpState } from "../membership/messages.js";
import { linked } from "../membership/ring.js";
import type { EngineOpReport, EngineOpVerdict, EngineView } from "../membership/session.js";
import type { Network, Stream } from "./network.js";
import type { Process } from "./process.js";

export interface SimOp {
  readonly tag: bigint;
  readonly epoch: number;
  readonly seq: number;
  state: OpState;
  readonly contributions: Set<number>;
  readonly heardRounds: Set<number>;
  sentRounds: number;
}

/** The data plane's frames, each for one op. */
type Frame = { readonly epoch: number; readonly tag: bigint; readonly seq: number } & (
  | { readonly kind: "contribution"; readonly from: number; readonly fromEpoch: number }
  | { readonly kind: "done"; readonly round: number }
  | { readonly kind: "abort" }
);

export interface EngineHooks {
  onPrepared(epoch: number, failures: readonly LinkFailure[]): void;
  onLinkLost(epoch: number, peerId: number, reason: string): void;
  /** The op is settled; `contributions` are those of its result when it committed. */
  onSettled(op: SimOp, view: EngineView): void;
}

/** Links between engines. An engine finds its partners by the host that they advertise. */
export class DataPlane {
  readonly network: Network;
  readonly engines: Map<string, SimEngine> = new Map();
  readonly #links = new Map<string, Stream>();
  /** Pairs of hosts that can't reach each other. */
  readonly unreachable: Set<string> = new Set();

  constructor(network: Network) {
    this.network = network;
  }

  /** Connects two engines once both are about to build the same view. */
  link(a: SimEngine, b: SimEngine): void {
    const key = hostPair(a.host, b.host);
    if (this.#links.has(key) || this.unreachable.has(key)) return;
    const [first, second] = a.host < b.host ? [a, b] : [b, a];
    this.#links.set(key, this.network.connect(first.endFor(second.host), second.endFor(first.host)));
    for (const [engine, other] of [
      [a, b],
      [b, a],
    ] as const) {
      this.network.clock.after(this.network.delayMs(), () => {
        if (this.#links.has(key)) engine.process.deliver(() => engine.onLinkUp(other.host));
      });
    }
  }

  isUp(a: string, b: string): boolean {
    return this.#links.has(hostPair(a, b));
  }

  send(from: string, to: string, frame: unknown): void {
    this.#links.get(hostPair(from, to))?.send(from < to ? 0 : 1, frame);
  }

  cut(a: string, b: string, silent: boolean): void {
    const key = hostPair(a, b);
    this.#links.get(key)?.cut(silent);
    this.#links.delete(key);
  }

  cutAllOf(host: string): void {
    for (const other of this.engines.keys()) this.cut(host, other, false);
  }

  linkedHosts(): [string, string][] {
    return [...this.#links.keys()].map((key) => key.split("~") as [string, string]);
  }
}

export function hostPair(a: string, b: string): string {
  return a < b ? `${a}~${b}` : `${b}~${a}`;
}

interface Preparing {
  readonly view: EngineView;
  readonly missing: Set<string>;
  prepared: boolean;
  /** Frames of the new epoch from members that have installed it already. */
  readonly early: Frame[];
}

export class SimEngine {
  readonly host: string;
  readonly process: Process;
  readonly #plane: DataPlane;
  readonly #hooks: EngineHooks;
  view: EngineView | undefined;
  #preparing: Preparing | undefined;
  /** Ops of the installed epoch by opKey, settled ones too: a freeze has to report them. */
  readonly #ops = new Map<string, SimOp>();
  readonly #seqs = new Map<bigint, number>();
  /** Frames of ops that this peer hasn't posted yet. */
  readonly #unposted = new Map<string, Frame[]>();
  /** Tags posted while frozen. */
  readonly #queued: bigint[] = [];
  #closed = false;

  constructor(host: string, process: Process, plane: DataPlane, hooks: EngineHooks) {
    this.host = host;
    this.process = process;
    this.#plane = plane;
    this.#hooks = hooks;
    plane.engines.set(host, this);
  }

  allReduce(tag: bigint): void {
    if (this.#preparing !== undefined || this.view === undefined) this.#queued.push(tag);
    else this.#start(tag, this.view);
  }

  /** Withdraws the op with this tag if it isn't done. */
  cancel(tag: bigint): void {
    if (this.#preparing !== undefined || this.view === undefined) return;
    const op = [...this.#ops.values()].find(
      (candidate) => candidate.tag === tag && candidate.state === "not-done",
    );
    if (op !== undefined) this.#abort(op, this.view);
  }

  prepare(view: EngineView, timeoutMs: number): EngineOpReport[] {
    this.#preparing = {
      view,
      missing: new Set(neighbours(view)),
      prepared: false,
      early: [],
    };
    this.#plane.network.clock.after(timeoutMs, () =>
      this.process.deliver(() => {
        if (this.#preparing?.view === view) this.#finishPrepare(this.#preparing);
      }),
    );
    this.#buildLinks(this.#preparing);
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
          throw new Error(`${this.host}: op ${op.tag}/${op.seq} is ${op.state}, the verdict says ${commit}`);
        }
        continue;
      }
      if (commit && op.state !== "done") {
        throw new Error(`${this.host}: commit of op ${op.tag}/${op.seq}, whose result it doesn't hold`);
      }
      if (old !== undefined) this.#settle(op, commit ? "committed" : "aborted", old);
    }
    this.view = preparing.view;
    this.#preparing = undefined;
    this.#ops.clear();
    this.#seqs.clear();
    this.#unposted.clear();
    for (const tag of this.#queued.splice(0)) this.#start(tag, this.view);
    for (const frame of preparing.early) this.#onFrame(frame);
  }

  close(): void {
    this.#closed = true;
    this.#plane.engines.delete(this.host);
    this.#plane.cutAllOf(this.host);
  }

  onLinkUp(host: string): void {
    const preparing = this.#preparing;
    if (preparing === undefined || !preparing.missing.delete(host)) return;
    if (preparing.missing.size === 0) this.#finishPrepare(preparing);
  }

  endFor(other: string): {
    process: Process;
    onMessage(message: unknown): void;
    onEnd(reason: string): void;
  } {
    return {
      process: this.process,
      onMessage: (message) => this.#onFrame(message as Frame),
      onEnd: (reason) => this.#onLinkEnd(other, reason),
    };
  }

  #buildLinks(preparing: Preparing): void {
    for (const host of [...preparing.missing]) {
      const other = this.#plane.engines.get(host);
      if (this.#plane.isUp(this.host, host)) preparing.missing.delete(host);
      else if (other?.isPreparing(preparing.view.epoch)) this.#plane.link(this, other);
    }
    if (preparing.missing.size === 0) this.#finishPrepare(preparing);
  }

  isPreparing(epoch: number): boolean {
    return this.#preparing?.view.epoch === epoch && this.process.state !== "dead";
  }

  #finishPrepare(preparing: Preparing): void {
    if (preparing.prepared || this.#closed) return;
    preparing.prepared = true;
    const failures = preparing.view.ring
      .filter(({ host }) => preparing.missing.has(host))
      .map(({ peerId }) => ({ peerId, reason: "no answer" }));
    // Later, as the real engine's events are.
    this.#plane.network.clock.after(0, () =>
      this.process.deliver(() => this.#hooks.onPrepared(preparing.view.epoch, failures)),
    );
  }

  #onLinkEnd(host: string, reason: string): void {
    if (this.#closed) return;
    const preparing = this.#preparing;
    const uses = (view: EngineView | undefined): view is EngineView =>
      view !== undefined && neighbours(view).includes(host);
    const view = uses(preparing?.view) ? preparing?.view : uses(this.view) ? this.view : undefined;
    if (view === undefined) return;
    if (view === preparing?.view && !preparing.prepared) {
      preparing.missing.add(host);
      this.#buildLinks(preparing);
      return;
    }
    const peerId = view.ring.find((member) => member.host === host)?.peerId;
    if (peerId !== undefined) this.#hooks.onLinkLost(view.epoch, peerId, reason);
  }

  #start(tag: bigint, view: EngineView): void {
    const seq = this.#seqs.get(tag) ?? 0;
    this.#seqs.set(tag, seq + 1);
    const { epoch } = view;
    const op: SimOp = {
      tag,
      epoch,
      seq,
      state: "not-done",
      contributions: new Set(),
      heardRounds: new Set(),
      sentRounds: 0,
    };
    const key = `${tag}/${seq}`;
    this.#ops.set(key, op);
    this.#onContribution(op, view, view.peerId, epoch);
    for (const frame of this.#unposted.get(key) ?? []) this.#onFrame(frame);
    this.#unposted.delete(key);
  }

  #onFrame(frame: Frame): void {
    const preparing = this.#preparing;
    if (preparing !== undefined) {
      // Frozen: the old epoch makes no more progress, the new one begins with the install.
      if (frame.epoch === preparing.view.epoch) preparing.early.push(frame);
      return;
    }
    const { view } = this;
    if (view === undefined || frame.epoch !== view.epoch || this.#closed) return;
    const key = `${frame.tag}/${frame.seq}`;
    const op = this.#ops.get(key);
    if (op === undefined) {
      this.#unposted.set(key, [...(this.#unposted.get(key) ?? []), frame]);
    } else if (frame.kind === "contribution") this.#onContribution(op, view, frame.from, frame.fromEpoch);
    else if (frame.kind === "done") {
      op.heardRounds.add(frame.round);
      this.#disseminate(op, view);
    } else this.#abort(op, view);
  }

  #onContribution(op: SimOp, view: EngineView, from: number, fromEpoch: number): void {
    if (op.state !== "not-done" || op.contributions.has(from)) return;
    if (fromEpoch !== op.epoch)
      throw new Error(`${this.host}: op ${op.tag} got a contribution of another epoch`);
    op.contributions.add(from);
    const { tag, epoch, seq } = op;
    this.#sendToRank(view, 1, { kind: "contribution", epoch, tag, seq, from, fromEpoch });
    if (op.contributions.size < view.ring.length) return;
    op.state = "done";
    this.#disseminate(op, view);
  }

  /** Round k goes out once rounds 0 to k-1 were heard; whoever has heard all knows that all are done. */
  #disseminate(op: SimOp, view: EngineView): void {
    if (op.state !== "done") return;
    const rounds = Math.ceil(Math.log2(view.ring.length));
    const { tag, epoch, seq } = op;
    while (op.sentRounds < rounds && (op.sentRounds === 0 || op.heardRounds.has(op.sentRounds - 1))) {
      const round = op.sentRounds++;
      this.#sendToRank(view, 2 ** round, { kind: "done", epoch, tag, seq, round });
    }
    if (op.sentRounds === rounds && (rounds === 0 || op.heardRounds.has(rounds - 1))) {
      this.#settle(op, "committed", view);
    }
  }

  #abort(op: SimOp, view: EngineView): void {
    if (op.state === "committed")
      throw new Error(`${this.host}: abort of op ${op.tag}/${op.seq}, which committed`);
    if (op.state === "aborted") return;
    const { tag, epoch, seq } = op;
    for (const host of neighbours(view))
      this.#plane.send(this.host, host, { kind: "abort", epoch, tag, seq });
    this.#settle(op, "aborted", view);
  }

  #settle(op: SimOp, state: "committed" | "aborted", view: EngineView): void {
    op.state = state;
    this.#hooks.onSettled(op, view);
  }

  #sendToRank(view: EngineView, distance: number, frame: Frame): void {
    const size = view.ring.length;
    const to = view.ring[(rankOf(view) + distance) % size];
    if (to !== undefined && to.peerId !== view.peerId) this.#plane.send(this.host, to.host, frame);
  }
}

function rankOf(view: EngineView): number {
  return view.ring.findIndex((member) => member.peerId === view.peerId);
}

/** Hosts of the members that `view` links its owner with. */
function neighbours(view: EngineView): string[] {
  const rank = rankOf(view);
  return view.ring.filter((_, other) => linked(rank, other, view.ring.length)).map((member) => member.host);
}
