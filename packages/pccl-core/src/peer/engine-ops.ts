/** Turns the native engine's op events into promises; the only holder of a creating attachment. */
import {
  type Addon,
  type Engine,
  type EngineEvent,
  type FetchRequest,
  type InstalledView,
  loadAddon,
  type NativeError,
  type OpEvent,
  type RingMember,
  type StateTensor,
} from "@pccl/bindings";
import { isPcclErrorCode, type PcclError, pcclError } from "../base/errors.js";
import type { CheckedReduce } from "./reduce-call.js";

export type OpDone = Extract<OpEvent, { type: "op-done" }>;

export interface EngineOptions {
  readonly host: string;
  readonly port: number;
  readonly connectionsPerPeer: number;
  readonly opsInFlightMax: number;
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
  /** Ops that a change of view has ended, until listeners have been told of the view. */
  #held: { readonly epoch: number; readonly event: OpEvent }[] = [];
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

  /**
   * Runs an all-reduce to its end. An abort of `signal` withdraws it: it then rejects with ERR_PCCL_CANCELLED, unless
   * it was too late to withdraw, in which case it ends as it would have. With a signal that has aborted before, the
   * op is begun and withdrawn at once, so that the other members' calls of it end too.
   */
  async allReduce({ source, target, op, tag, dtype }: CheckedReduce, signal?: AbortSignal): Promise<OpDone> {
    return await this.#run(
      `allReduce(tag ${tag})`,
      (engine) => engine.allReduce(source, target, op, tag, dtype),
      (id) => this.#engine.cancel(id),
      signal,
    );
  }

  /** Pins and hashes tensors, and lets other peers fetch them until `release`. An abort of `signal` releases them. */
  async exportState(call: string, tensors: readonly StateTensor[], signal?: AbortSignal): Promise<number> {
    const done = await this.#run(
      call,
      (engine) => engine.exportState(tensors),
      (id) => this.release(id),
      signal,
    );
    return done.id;
  }

  /** XXH3-128 of each tensor of an export, 32 hex digits, by name. */
  hashes(call: string, exportId: number): Map<string, string> {
    const hashed = guard(call, () => this.#engine.hashes(exportId));
    return new Map(hashed.map(({ name, hash }) => [name, hash]));
  }

  /** Ends an export, as closing does. Gives the bytes that were served from it. */
  release(exportId: number): number {
    return this.#closed ? 0 : this.#engine.releaseState(exportId);
  }

  /**
   * Fetches tensors that `source` exports. An abort of `signal` rejects with ERR_PCCL_CANCELLED at once, while the
   * engine may go on writing to the tensors.
   */
  async fetchState(
    call: string,
    source: RingMember,
    requests: readonly FetchRequest[],
    signal?: AbortSignal,
  ): Promise<OpDone> {
    const cancelled = (): PcclError => {
      const message = `${call}: withdrawn while it was fetching from peer ${source.peerId}`;
      return pcclError("ERR_PCCL_CANCELLED", message, { epoch: this.view?.epoch });
    };
    if (signal?.aborted === true) throw cancelled();
    const abandon = (id: number): void => this.#take(id)?.reject(cancelled());
    return await this.#run(call, (engine) => engine.fetchState(source, requests), abandon, signal);
  }

  /** Listeners have been told of this view: ops that it has ended may settle. */
  viewTold(epoch: number): void {
    this.#toldEpoch = epoch;
    const held = this.#held;
    this.#held = held.filter((op) => op.epoch > epoch);
    for (const op of held) if (op.epoch <= epoch) this.#settle(op.event);
  }

  /** Fails what is in flight, because of `error`. */
  close(error: PcclError): void {
    this.#closed = true;
    this.#engine.close();
    for (const { event } of this.#held.splice(0)) this.#settle(event);
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
    // Who catches the loss of a peer finds that the listeners have heard of it, and so does who handles it here: the
    // session's notice of the new view comes from another thread and may be the later one.
    const byView = event.type === "op-failed" && event.error.code === "ERR_PCCL_PEER_LOST";
    const epoch = (byView && !this.#closed ? this.view?.epoch : undefined) ?? 0;
    if (epoch > this.#toldEpoch) this.#held.push({ epoch, event });
    else this.#settle(event);
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

const NATIVE_NAME = "all_reduce";

let loaded: Addon | undefined;

function addon(): Addon {
  loaded ??= loadAddon();
  return loaded;
}

/** Calls native code; its errors, which carry only a code and a message, become catalogue errors. */
function guard<T>(call: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw toPcclError(error, call);
  }
}

function toPcclError(error: unknown, call: string): PcclError {
  const { code, message = String(error), peerId, epoch } = error as Partial<NativeError>;
  // Native code names its all-reduces itself, with what it knows of them, but not as this language writes it.
  const named = message.startsWith(NATIVE_NAME)
    ? `allReduce${message.slice(NATIVE_NAME.length)}`
    : `${call}: ${message}`;
  return pcclError(isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL", named, {
    peerId,
    epoch,
    cause: error instanceof Error ? error : undefined,
  });
}
