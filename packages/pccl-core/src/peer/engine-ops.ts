/** Turns the native engine's op events into promises; the only holder of a creating attachment. */
import {
  type Addon,
  type Engine,
  type EngineEvent,
  loadAddon,
  type NativeError,
  type OpEvent,
} from "@pccl/bindings";
import { isPcclErrorCode, type PcclError, pcclError } from "../base/errors.js";

export type OpDone = Extract<OpEvent, { type: "op-done" }>;

interface PendingOp {
  readonly call: string;
  readonly resolve: (done: OpDone) => void;
  readonly reject: (error: unknown) => void;
}

export class EngineOps {
  readonly engine: Engine;
  readonly #pending = new Map<number, PendingOp>();

  /** Binds the data listener; throws ERR_PCCL_LISTEN_FAILED when the system refuses. */
  constructor(listen: { host: string; port: number }) {
    this.engine = guard("connect", () =>
      addon().createEngine(listen, (events) => {
        for (const event of events) this.#settle(event);
      }),
    );
  }

  /** Ops that have been started and not settled. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /**
   * Runs one native op to its end. An abort of `signal` withdraws it; it then rejects with the signal's reason,
   * unless it was too late to withdraw, in which case it ends as it would have.
   */
  async run(call: string, start: (engine: Engine) => number, signal?: AbortSignal): Promise<OpDone> {
    signal?.throwIfAborted();
    const id = guard(call, () => start(this.engine));
    const settled = new Promise<OpDone>((resolve, reject) => {
      this.#pending.set(id, { call, resolve, reject });
    });
    if (signal === undefined) return await settled;
    let cancelled = false;
    const onAbort = (): void => {
      // An op that close() has ended is still listened for until its promise has settled.
      if (this.#pending.has(id)) cancelled = this.engine.cancel(id);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await settled;
    } catch (error) {
      throw cancelled ? signal.reason : error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Fails what is in flight, because of `error`. */
  close(error: PcclError): void {
    this.engine.close();
    // The engine's own events for these ops come later, and without the reason.
    for (const op of this.#pending.values()) {
      op.reject(pcclError(error.code, `${op.call}: ${error.reason}`, { cause: error }));
    }
    this.#pending.clear();
  }

  #settle(event: EngineEvent): void {
    if (event.type !== "op-done" && event.type !== "op-failed") return;
    const op = this.#pending.get(event.id);
    if (op === undefined) return;
    this.#pending.delete(event.id);
    if (event.type === "op-done") op.resolve(event);
    else op.reject(toPcclError(event.error, op.call));
  }
}

const NATIVE_NAME = "all_reduce";

let loaded: Addon | undefined;

function addon(): Addon {
  loaded ??= loadAddon();
  return loaded;
}

/** Calls native code; its errors, which carry only a code and a message, become catalogue errors. */
export function guard<T>(call: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw toPcclError(error, call);
  }
}

function toPcclError(error: unknown, call: string): PcclError {
  const { code, message = String(error), peerId } = error as Partial<NativeError>;
  // Native code names its all-reduces itself, with what it knows of them, but not as this language writes it.
  const named = message.startsWith(NATIVE_NAME)
    ? `allReduce${message.slice(NATIVE_NAME.length)}`
    : `${call}: ${message}`;
  return pcclError(isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL", named, {
    peerId,
    cause: error instanceof Error ? error : undefined,
  });
}
