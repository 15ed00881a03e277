/** A peer's handle on the world: collectives, topology and shared state. */
import { setMaxListeners } from "node:events";
import type { InstalledView, ReduceOp } from "@pccl/bindings";
import { formatAddress, isLoopback, parseAddress } from "../base/address.js";
import { checkInteger, checkOneOf, checkOptions, checkSignal, describe } from "../base/check.js";
import { PcclError, pcclError } from "../base/errors.js";
import { COORDINATOR_PORT, GROUP_MAX, OPS_IN_FLIGHT_MAX } from "../base/limits.js";
import type { SyncStrategy } from "../membership/messages.js";
import { ControlSession } from "./control-session.js";
import { EngineOps } from "./engine-ops.js";
import { type AllReduceCall, type CheckedReduce, checkReduce, checkReduceList } from "./reduce-call.js";
import { SharedState } from "./shared-state.js";
import { type SyncResult, syncWithGroup } from "./state-sync.js";
import type { Tensor } from "./tensor.js";

export interface ConnectOptions {
  /** Peers with the same number reduce and sync with each other. Default 0. */
  readonly group?: number;
  /**
   * HOST:PORT to bind for data from other peers; port 0 chooses a free one. Default: 127.0.0.1:0 when the
   * coordinator is on loopback, else 0.0.0.0:0.
   */
  readonly listen?: string;
  /** HOST or HOST:PORT where other peers reach this one. Default: the address that the coordinator sees. */
  readonly advertise?: string;
  /** How long to keep trying to reach the coordinator, in milliseconds. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Gives up waiting for the coordinator or for admission. */
  readonly signal?: AbortSignal;
  /** Called once registered, with this peer's id, while the members' consent is awaited. */
  readonly onPending?: (peerId: number) => void;
}

export interface AllReduceOptions {
  /** Default "sum". */
  readonly op?: ReduceOp;
  /** Names the op among concurrent ones; 0 to 2^64-1, the same on every peer. Default 0. */
  readonly tag?: bigint | number;
  /** Withdraws the op if this peer hasn't finished its part. */
  readonly signal?: AbortSignal;
}

export interface AllReduceResult {
  /** Peers whose contributions are in the result. */
  readonly worldSize: number;
  /** Bytes of tensor data, with their frames' headers, that this peer sent and received for the op. */
  readonly txBytes: number;
  readonly rxBytes: number;
  readonly seconds: number;
}

export interface AllReduceAllOptions {
  /** Ops in flight at once. Default 8. */
  readonly maxInFlight?: number;
  readonly signal?: AbortSignal;
}

export interface AllReduceAllResult {
  /** In the order of the calls. A `worldSize` of 1 says that no other peer was left. */
  readonly results: readonly AllReduceResult[];
  /** Attempts that were aborted by a change of membership and made again. */
  readonly retriedOps: number;
}

export interface SyncOptions {
  /**
   * "enforce-popular" (default): takes part in electing the content. "receive-only": never a source.
   * "send-only": this content must win, and may start a group again whose holders are all gone.
   */
  readonly strategy?: SyncStrategy;
}

const CONNECT_KEYS = ["group", "listen", "advertise", "connectTimeoutMs", "signal", "onPending"] as const;
const STRATEGIES = ["enforce-popular", "receive-only", "send-only"] as const;

/**
 * Registers with the coordinator at HOST:PORT (default port 48148) and resolves once admitted: at once in an
 * empty world, else when every member has called `updateTopology`.
 *
 * Rejects with ERR_PCCL_COORDINATOR_UNREACHABLE, ERR_PCCL_VERSION_MISMATCH, ERR_PCCL_LISTEN_FAILED, or the
 * reason of `signal`; nothing is left running then.
 */
export async function connect(address: string, options: ConnectOptions = {}): Promise<Communicator> {
  checkOptions("connect", options, CONNECT_KEYS);
  const coordinator = parseAddress("connect", address, COORDINATOR_PORT);
  const signal = checkSignal("connect", options.signal);
  signal?.throwIfAborted();
  if (options.onPending !== undefined && typeof options.onPending !== "function") {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `connect: onPending must be a function, got ${describe(options.onPending)}.`,
    );
  }
  const local = isLoopback(coordinator.host) ? "127.0.0.1:0" : "0.0.0.0:0";
  const listen = parseAddress("connect: listen", options.listen ?? local, 0);
  const group = checkInteger("connect", "group", options.group ?? 0, 0, GROUP_MAX);
  const connectTimeoutMs = checkInteger(
    "connect",
    "connectTimeoutMs",
    options.connectTimeoutMs ?? 10_000,
    1,
    2 ** 31 - 1,
  );
  const advertise =
    options.advertise === undefined ? undefined : parseAddress("connect: advertise", options.advertise, 0);
  const anyAddress = listen.host === "0.0.0.0" || listen.host === "::";

  const ops = new EngineOps(listen);
  const port = ops.engine.port;
  const communicator = new Communicator(ops, (hooks) => {
    return new ControlSession(
      {
        engineId: ops.engine.id,
        coordinator: formatAddress(coordinator),
        group,
        advertise: {
          host: advertise?.host ?? (anyAddress ? "" : listen.host),
          port: advertise?.port || port,
        },
        connectTimeoutMs,
      },
      { onPending: (peerId) => options.onPending?.(peerId), ...hooks },
    );
  });
  try {
    await awaitAdmission(communicator, signal);
    return communicator;
  } catch (error) {
    await communicator.close();
    throw error;
  }
}

/** connect's way to a step that isn't public. */
let awaitAdmission: (communicator: Communicator, signal: AbortSignal | undefined) => Promise<void>;

export class Communicator {
  static {
    awaitAdmission = (communicator, signal) => communicator.#awaitAdmission(signal);
  }

  readonly #ops: EngineOps;
  readonly #session: ControlSession;
  /** The call to the coordinator in progress, of which there is one at a time. */
  #controlCall: { readonly name: string; readonly besideOps: boolean } | undefined;
  #lastView: InstalledView | undefined;
  /** Why the communicator can't be used any more. */
  #ended: PcclError | undefined;
  #closing: Promise<void> | undefined;

  /** Use `connect`. */
  constructor(ops: EngineOps, startSession: (hooks: { onEnded(error: PcclError): void }) => ControlSession) {
    this.#ops = ops;
    this.#session = startSession({ onEnded: (error) => this.#end(error) });
  }

  /** This peer's id: given by the coordinator, never reused while it lives. */
  get peerId(): number {
    return this.#view().peerId;
  }

  /** Position in the group's ring, from 0; may change with every epoch. */
  get rank(): number {
    return this.#view().rank;
  }

  /** Admitted peers over all groups. */
  get worldSize(): number {
    return this.#view().worldSize;
  }

  /** Admitted peers of this peer's group: those an all-reduce combines. */
  get groupWorldSize(): number {
    return this.#view().groupSize;
  }

  /** Number of the installed view; every change of membership or topology makes a higher one. */
  get epoch(): number {
    return this.#view().epoch;
  }

  /**
   * Whether newcomers wait to be admitted. Collective over all admitted peers, so that every one gets the same
   * answer; ops may be in flight meanwhile.
   */
  async hasPendingPeers(): Promise<boolean> {
    return await this.#control("hasPendingPeers", true, () =>
      this.#session.request({ kind: "has-pending-peers" }),
    );
  }

  /**
   * This peer's consent to admit whoever is pending. Collective over all admitted peers; resolves when all have
   * called: true when a new view was installed, false when nobody was pending.
   */
  async updateTopology(): Promise<boolean> {
    return await this.#control("updateTopology", false, () =>
      this.#session.request({ kind: "update-topology" }),
    );
  }

  /**
   * Combines `send` of all peers of the group, element by element, into `recv` on each of them, with the same
   * bits everywhere. Without `recv`, or with the same array, in place. Float32Array, Float64Array or Int32Array,
   * the same length on every peer; `avg` of Int32Array rounds toward zero; `max`/`min` propagate NaN.
   * The memory must not be touched until the promise settles, and its buffer can't be transferred any more.
   *
   * On failure an in-place array holds the caller's values again, and `send` of an out-of-place op was never
   * written (`recv` is unspecified). ERR_PCCL_PEER_LOST is retryable: the survivors' view is then installed.
   */
  async allReduce(send: Tensor, recv?: Tensor, options: AllReduceOptions = {}): Promise<AllReduceResult> {
    checkOptions("allReduce", options, ["op", "tag", "signal"]);
    const { op, tag } = options;
    const signal = checkSignal("allReduce", options.signal);
    return await this.#reduce(checkReduce("allReduce", { send, recv, op, tag }), signal);
  }

  /**
   * Runs several all-reduces, at most `maxInFlight` at once, and makes each one again on the survivors when a
   * change of membership aborts it. Every peer must pass the same list. Rejects with the first error that a
   * retry can't cure, after withdrawing the other ops.
   */
  async allReduceAll(
    calls: readonly AllReduceCall[],
    options: AllReduceAllOptions = {},
  ): Promise<AllReduceAllResult> {
    checkOptions("allReduceAll", options, ["maxInFlight", "signal"]);
    const checked = checkReduceList("allReduceAll", calls);
    const slots = checkInteger("allReduceAll", "maxInFlight", options.maxInFlight ?? 8, 1, OPS_IN_FLIGHT_MAX);
    const signal = checkSignal("allReduceAll", options.signal);
    signal?.throwIfAborted();
    // Ends all of them: for the caller's reason, or because one has failed.
    const end = new AbortController();
    // Node warns of a leak from the eleventh listener on; here each op in flight has one.
    setMaxListeners(OPS_IN_FLIGHT_MAX, end.signal);
    const onAbort = (): void => end.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    const results = new Array<AllReduceResult>(checked.length);
    let next = 0;
    let retriedOps = 0;
    // An aborted op is made again in its own slot at once: then the lowest unfinished op is always in flight on
    // every peer, whatever order they learn of the aborts in, and no two peers can wait in different ops for ever.
    const runSlot = async (): Promise<void> => {
      for (let index = next++; index < checked.length; index = next++) {
        for (;;) {
          try {
            results[index] = await this.#reduce(checked[index] as CheckedReduce, end.signal);
            break;
          } catch (error) {
            if (!(error instanceof PcclError && error.code === "ERR_PCCL_PEER_LOST")) throw error;
            retriedOps++;
          }
        }
      }
    };
    let firstError: { readonly error: unknown } | undefined;
    const slot = async (): Promise<void> => {
      try {
        await runSlot();
      } catch (error) {
        firstError ??= { error };
        end.abort(error);
      }
    };
    await Promise.all(Array.from({ length: Math.min(slots, checked.length) }, slot));
    signal?.removeEventListener("abort", onAbort);
    if (firstError !== undefined) throw firstError.error;
    return { results, retriedOps };
  }

  /**
   * Makes `state` the same on every peer of the group, verified by hash: elects the content, and fetches the
   * tensors that differ. Collective over the group. A group's revision starts at any value and then stays or
   * advances by one with each sync; only peers that hold the last revision can be sources, so that a newcomer
   * always receives. On success `state.revision` is the group's; on failure nothing has changed, and a
   * retryable error (ERR_PCCL_PEER_LOST, ERR_PCCL_STATE_FETCH_FAILED) asks for the same call again on all peers.
   */
  async syncSharedState(state: SharedState, options: SyncOptions = {}): Promise<SyncResult> {
    checkOptions("syncSharedState", options, ["strategy"]);
    if (!(state instanceof SharedState)) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `syncSharedState: state must be a SharedState, got ${describe(state)}.`,
      );
    }
    const strategy = checkOneOf(
      "syncSharedState",
      "strategy",
      options.strategy ?? "enforce-popular",
      STRATEGIES,
    );
    return await this.#control("syncSharedState", false, () =>
      syncWithGroup(this.#ops, this.#session, state, strategy),
    );
  }

  /**
   * Leaves the world. Ops and calls in flight reject with ERR_PCCL_CLOSED, in-place arrays are restored, and no
   * thread, socket or handle is left. Idempotent.
   */
  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #awaitAdmission(signal: AbortSignal | undefined): Promise<void> {
    if (signal === undefined) {
      await this.#session.admitted;
    } else {
      let onAbort!: () => void;
      const aborted = new Promise<never>((_resolve, reject) => {
        onAbort = () => reject(signal.reason);
      });
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        signal.throwIfAborted();
        await Promise.race([this.#session.admitted, aborted]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    }
    this.#session.unref();
  }

  async #reduce(
    { source, target, op, tag }: CheckedReduce,
    signal: AbortSignal | undefined,
  ): Promise<AllReduceResult> {
    this.#checkUsable("allReduce");
    if (this.#controlCall?.besideOps === false) throw callInProgress("allReduce", this.#controlCall.name);
    const done = await this.#ops.run(
      `allReduce(tag ${tag})`,
      (engine) => engine.allReduce(source, target, op, tag),
      signal,
    );
    return {
      worldSize: done.worldSize,
      txBytes: done.txBytes,
      rxBytes: done.rxBytes,
      seconds: done.seconds,
    };
  }

  /**
   * Runs a call that involves the coordinator. Unless it may run `besideOps`, no op may be in flight when it
   * begins, nor be started until it ends.
   */
  async #control<T>(call: string, besideOps: boolean, body: () => Promise<T>): Promise<T> {
    this.#checkUsable(call);
    if (this.#controlCall !== undefined) throw callInProgress(call, this.#controlCall.name);
    if (!besideOps && this.#ops.inFlight > 0) {
      throw pcclError(
        "ERR_PCCL_OPS_IN_FLIGHT",
        `${call}: ${this.#ops.inFlight} op(s) of this peer are in flight.`,
      );
    }
    this.#controlCall = { name: call, besideOps };
    try {
      return await body();
    } finally {
      this.#controlCall = undefined;
    }
  }

  #checkUsable(call: string): void {
    if (this.#ended !== undefined) {
      throw pcclError(this.#ended.code, `${call}: ${this.#ended.reason}`, { cause: this.#ended });
    }
  }

  /** After the end the last view stays readable, for logs and reports. */
  #view(): InstalledView {
    if (this.#ended === undefined) this.#lastView = this.#ops.engine.view();
    if (this.#lastView === undefined) {
      throw pcclError("ERR_PCCL_NOT_INSTALLED", "The peer has not been admitted.");
    }
    return this.#lastView;
  }

  #end(error: PcclError): void {
    if (this.#ended !== undefined) return;
    this.#lastView = this.#ops.engine.view();
    this.#ended = error;
    this.#ops.close(error);
  }

  async #close(): Promise<void> {
    const closed = pcclError("ERR_PCCL_CLOSED", "The communicator was closed.");
    this.#end(closed);
    await this.#session.close(closed);
  }
}

function callInProgress(call: string, other: string): PcclError {
  return pcclError("ERR_PCCL_CALL_IN_PROGRESS", `${call}: ${other} of this peer is in progress.`);
}
