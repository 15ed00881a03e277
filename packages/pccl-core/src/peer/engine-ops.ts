/** Turns the native engine's op events into promises; the only holder of a creating attachment. */
import {
  type Engine,
  type EngineEvent,
  type FetchCall,
  type InstalledView,
  type OpEvent,
  type StateTensor,
} from "@pccl/bindings";
import { InvalidArgumentError, PeerLostError, type PcclError, pcclError } from "../base/errors.js";
import { TIMEOUT_MAX_MS } from "../base/limits.js";
import { callName, type CollectiveCall } from "./collective-call.js";
import { addon, guard, toPcclError } from "./native-calls.js";

export type OpDone = Extract<OpEvent, { type: "op-done" }>;

export interface EngineOptions {
  readonly host: string;
  readonly port: number;
  /** Undefined: as many as the link's throughput asks for. */
  readonly connectionsPerPeer: number | undefined;
  /** Of TCP, as the kernel names it; undefined: the system's default. */
  readonly congestionControl: string | undefined;
  readonly opsInFlightMax: number;
  readonly transport: "auto" | "shm" | "tcp";
}

interface PendingOp {
  readonly call: string;
  readonly resolve: (done: OpDone) => void;
  readonly reject: (error: unknown) => void;
}

export class EngineOps {
  readonly inFlightMax: number;
  readonly #engine: Engine;
  readonly #pending = new Map<number, PendingOp>();
  /** The last view that listeners have been told of. */
  #toldEpoch = 0;
  /** What follows from a view that listeners haven't been told of yet. */
  #waiting: { readonly epoch: number; readonly resolve: () => void }[] = [];
  /** Keeps the process alive meanwhile: the engine has nothing in flight for it any more, and the session never does. */
  #alive: NodeJS.Timeout | undefined;
  #closed = false;

  /** Binds the data listener; throws ERR_PCCL_LISTEN_FAILED when the system refuses. */
  constructor(options: EngineOptions) {
    this.inFlightMax = options.opsInFlightMax;
    this.#engine = guard("connect", () =>
      addon().createEngine(options, (events) => {
        for (const event of events) this.#onEvent(event);
      }),
    );
  }

  /** Equal in engines that can share memory; empty when `transport` is "tcp". */
  get hostId(): string {
    return this.#engine.hostId;
  }

  /** For attachEngine. */
  get engineId(): number {
    return this.#engine.id;
  }

  /** The port that the data listener is bound to. */
  get port(): number {
    return this.#engine.port;
  }

  /** The installed view; undefined before the first one. */
  get view(): InstalledView | undefined {
    return this.#engine.view();
  }

  /** Ops that have been started and not settled. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** A zeroed buffer of pages of its own. */
  allocate(bytes: number): ArrayBuffer {
    return guard("alloc", () => addon().allocate(bytes));
  }

  /**
   * Runs a collective op to its end. It was shaped for a group of `peers`: if that isn't the installed one any more,
   * and the call's shape depends on it or doesn't fit the new one, it rejects with ERR_PCCL_PEER_LOST.
   *
   * An abort of `signal` withdraws it: it then rejects with ERR_PCCL_CANCELLED, unless it was too late to withdraw, in
   * which case it ends as it would have. With a signal that has aborted before, the op is begun and withdrawn at once,
   * so that the other members' calls of it end too.
   */
  async collective(call: CollectiveCall, peers: readonly number[], signal?: AbortSignal): Promise<OpDone> {
    const name = `${callName(call.kind)}(tag ${call.tag})`;
    // Before the check: a view that is installed after it has another epoch.
    const ringEpoch = this.#closed ? undefined : this.view?.ringEpoch;
    if (VIEW_BOUND.has(call.kind) && !this.#hasGroup(peers)) throw await this.#viewChanged(name);
    let begun = false;
    const start = (engine: Engine): number => {
      const id = engine.start(call, ringEpoch);
      begun = true;
      return id;
    };
    try {
      return await this.#run(name, start, (id) => this.#engine.cancel(id), signal);
    } catch (error) {
      // The view may have been replaced after the caller has looked at it.
      const outdated =
        error instanceof PeerLostError || (error instanceof InvalidArgumentError && !this.#hasGroup(peers));
      throw !begun && outdated ? await this.#viewChanged(name) : error;
    }
  }

  #hasGroup(peers: readonly number[]): boolean {
    return this.#closed || this.view?.members.join() === peers.join();
  }

  /** The error of an op that was made for an older view; comes when listeners have been told of the present one. */
  async #viewChanged(name: string): Promise<PcclError> {
    const epoch = this.view?.epoch ?? 0;
    if (epoch > this.#toldEpoch) {
      await new Promise<void>((resolve) => this.#waitForView({ epoch, resolve }));
    }
    return pcclError("ERR_PCCL_PEER_LOST", `${name}: the view changed to epoch ${epoch} before it began`, {
      epoch,
    });
  }

  /** Pins and hashes tensors, and lets other peers fetch them until `release`. An abort of `signal` releases them. */
  async exportState(call: string, tensors: readonly StateTensor[], signal?: AbortSignal): Promise<number> {
    let released = false;
    const release = (id: number): void => {
      released = true;
      this.release(id);
    };
    const done = await this.#run(call, (engine) => engine.exportState(tensors), release, signal);
    // The hashes were there already, and their event on its way.
    if (released) throw pcclError("ERR_PCCL_CANCELLED", `${call}: withdrawn while it was hashed`);
    return done.id;
  }

  /** Root of the hash tree of each tensor of an export, 32 hex digits, by name. */
  hashes(call: string, exportId: number): Map<string, string> {
    const hashed = guard(call, () => this.#engine.hashes(exportId));
    return new Map(hashed.map(({ name, hash }) => [name, hash]));
  }

  /** Ends an export, as closing does. Gives the bytes that were served from it. */
  release(exportId: number): number {
    return this.#closed ? 0 : this.#engine.releaseState(exportId);
  }

  /**
   * Fetches what the export lacks; its tensors stay as they are. An abort of `signal` rejects with ERR_PCCL_CANCELLED
   * at once; the export must be released then.
   */
  async fetchState(call: string, fetch: FetchCall, signal?: AbortSignal): Promise<OpDone> {
    const cancelled = (): PcclError => {
      const from = fetch.sources.map(({ peerId }) => peerId).join(", ");
      const message = `${call}: withdrawn while it was fetching from peers ${from}`;
      return pcclError("ERR_PCCL_CANCELLED", message, { epoch: this.view?.epoch });
    };
    if (signal?.aborted === true) throw cancelled();
    const abandon = (id: number): void => this.#take(id)?.reject(cancelled());
    return await this.#run(call, (engine) => engine.fetchState(fetch), abandon, signal);
  }

  /** A tensor of the export that was written to while others fetched it; undefined: none, or closed. */
  changedTensor(call: string, exportId: number): string | undefined {
    return this.#closed ? undefined : guard(call, () => this.#engine.changedTensor(exportId));
  }

  /** Ends the export and writes what was fetched to its tensors. */
  async commitState(call: string, exportId: number): Promise<OpDone> {
    return await this.#run(
      call,
      (engine) => engine.commitState(exportId),
      () => {},
      undefined,
    );
  }

  /** Listeners have been told of this view: what it has ended, and what has ended in it, may settle. */
  viewTold(epoch: number): void {
    this.#toldEpoch = epoch;
    const waiting = this.#waiting;
    this.#waiting = waiting.filter((entry) => entry.epoch > epoch);
    if (this.#waiting.length === 0) clearInterval(this.#alive);
    for (const entry of waiting) if (entry.epoch <= epoch) entry.resolve();
  }

  #waitForView(entry: { readonly epoch: number; readonly resolve: () => void }): void {
    if (this.#waiting.length === 0) this.#alive = setInterval(() => undefined, TIMEOUT_MAX_MS);
    this.#waiting.push(entry);
  }

  /** Fails what is in flight, because of `error`. */
  close(error: PcclError): void {
    this.#closed = true;
    this.#engine.close();
    clearInterval(this.#alive);
    for (const { resolve } of this.#waiting.splice(0)) resolve();
    // The engine's own events for the other ops come later, and without the reason.
    for (const op of this.#pending.values()) {
      const { code, reason, peerId, epoch } = error;
      op.reject(pcclError(code, `${op.call}: ${reason}`, { peerId, epoch, cause: error }));
    }
    this.#pending.clear();
  }

  async #run(
    call: string,
    start: (engine: Engine) => number,
    withdraw: (id: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<OpDone> {
    const id = guard(call, () => start(this.#engine));
    const settled = new Promise<OpDone>((resolve, reject) => {
      this.#pending.set(id, { call, resolve, reject });
    });
    if (signal === undefined) return await settled;
    const onAbort = (): void => {
      // An op that close() has ended is still listened for until its promise has settled.
      if (this.#pending.has(id)) withdraw(id);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await settled;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #onEvent(event: EngineEvent): void {
    if (event.type !== "op-done" && event.type !== "op-failed") return;
    // Who catches the loss of a peer, or has a result of the view after it, finds that the listeners have heard of it:
    // the session's notice of the new view comes from another thread and may be the later one.
    const epoch = this.#closed ? 0 : this.#viewBehind(event);
    if (epoch > this.#toldEpoch) this.#waitForView({ epoch, resolve: () => this.#settle(event) });
    else this.#settle(event);
  }

  /** The view that an op ended in, or that has ended it. */
  #viewBehind(event: OpEvent): number {
    if (event.type === "op-done") return event.epoch;
    return event.error.code === "ERR_PCCL_PEER_LOST" ? (this.view?.epoch ?? 0) : 0;
  }

  #settle(event: OpEvent): void {
    const op = this.#take(event.id);
    if (event.type === "op-done") op?.resolve(event);
    else op?.reject(toPcclError(event.error, op.call));
  }

  #take(id: number): PendingOp | undefined {
    const op = this.#pending.get(id);
    this.#pending.delete(id);
    return op;
  }
}

/** Kinds whose buffers have a shape, or an order, that the ranks give them. */
const VIEW_BOUND: ReadonlySet<CollectiveCall["kind"]> = new Set([
  "reduce-scatter",
  "all-gather",
  "all-to-all",
  "gather",
  "scatter",
]);
