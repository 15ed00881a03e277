/** A peer's handle on the world: collectives, topology and shared state. */
import { checkBoolean, checkInteger, checkOneOf, checkOptions, describe } from "../base/check.js";
import { type PcclError, pcclError } from "../base/errors.js";
import { MEASUREMENT_AGE_DEFAULT_MS, TIMEOUT_MAX_MS } from "../base/limits.js";
import type { SyncStrategy } from "../membership/messages.js";
import { CALL_OPTION_KEYS, type CallOptions, limited } from "./call-limits.js";
import type { ControlSession } from "./control-session.js";
import type { EngineOps } from "./engine-ops.js";
import { checkListener, type CommunicatorEvents, Events } from "./events.js";
import {
  type AllReduceCall,
  checkReduceList,
  type CollectiveCall,
  type CollectiveResult,
  type GroupView,
} from "./collective-call.js";
import { Collectives } from "./collectives.js";
import { type AllReduceAllResult, reduceList } from "./reduce-list.js";
import type { InstalledNotice } from "./session-protocol.js";
import { SharedState } from "./shared-state.js";
import { type SyncRequest, type SyncResult, syncWithGroup } from "./state-sync.js";
import { checkBytes, type Topology, topologyOf } from "./topology.js";
import { allocTensor, type ArrayOf, type DType } from "./tensor.js";

export interface AllReduceAllOptions extends CallOptions {
  /** Ops in flight at once, 1 to connect's `maxOpsInFlight`. Default 8, or that if it is less. */
  readonly maxInFlight?: number;
}

export interface SyncOptions extends CallOptions {
  /**
   * "enforce-popular" (default): takes part in electing the content. "receive-only": has no say, and takes what is
   * elected. "send-only": insists on its content, and is refused if another one is elected. The last two go together,
   * but not with the first.
   */
  readonly strategy?: Exclude<SyncStrategy, "seed">;
  /**
   * Don't wait for peers that fetch (default false). They go on fetching from this one until `served` resolves, and so
   * long the tensors must not be written to; ops and calls go on.
   */
  readonly background?: boolean;
}

export interface OptimizeOptions extends CallOptions {
  /** Measurements older than this are made anew, in milliseconds; of the peers' numbers the least counts. Default 600,000. */
  readonly maxAgeMs?: number;
}

export interface TopologyOptions extends CallOptions {
  /** What the prediction is for; default 64 MiB. */
  readonly bytes?: number;
}

const STRATEGIES = ["enforce-popular", "receive-only", "send-only"] as const;
const IN_FLIGHT_DEFAULT = 8;

/**
 * What this peer knows of the world changes only between turns of the event loop, with the events of a view, so that
 * what is read of it in one go fits together, and buffers can be shaped by it.
 */
export class Communicator extends Collectives {
  readonly #ops: EngineOps;
  readonly #session: ControlSession;
  readonly #events = new Events();
  /** The call to the coordinator in progress, of which there is one at a time. */
  #controlCall: { readonly name: string; readonly besideOps: boolean } | undefined;
  /** Calls of allReduceAll in progress: between two of its ops there may be none in flight. */
  #lists = 0;
  /** The view that listeners were told of last, or that this peer was admitted with. */
  #view: InstalledNotice;
  /** Why the communicator can't be used any more. */
  #ended: PcclError | undefined;
  #closing: Promise<void> | undefined;

  /** This peer's id: given by the coordinator, never reused while it lives. */
  readonly peerId: number;

  /** Use `connect`. */
  constructor(ops: EngineOps, session: ControlSession, peerId: number, view: InstalledNotice) {
    super();
    this.#ops = ops;
    this.#session = session;
    this.peerId = peerId;
    this.#view = view;
    ops.viewTold(view.epoch);
    session.unref();
    session.listen({
      onView: (later) => {
        if (this.#ended !== undefined) return;
        this.#view = later;
        this.#events.tellView(this.peerId, later);
        ops.viewTold(later.epoch);
      },
      onEnded: (error) => {
        if (this.#end(error)) this.#events.tellRemoved(error);
      },
    });
  }

  /** Position in the group's ring, from 0; may change with every epoch. */
  get rank(): number {
    return this.#view.ring.indexOf(this.peerId);
  }

  /** Ids of the admitted peers of this peer's group, itself among them, in rank order; may change with every epoch. */
  get peers(): readonly number[] {
    return this.#view.ring;
  }

  /** Admitted peers over all groups. */
  get worldSize(): number {
    return this.#view.worldSize;
  }

  /** Admitted peers of this peer's group: those that a collective op is among. */
  get groupWorldSize(): number {
    return this.#view.ring.length;
  }

  /** Number of the installed view; every change of membership or topology makes a higher one. */
  get epoch(): number {
    return this.#view.epoch;
  }

  /**
   * Listens to what happens without a call of this peer's: see CommunicatorEvents. The events of a view come before
   * any op rejects that the view has ended, and `removed` before the calls in flight reject. Add listeners right
   * after connect(): nothing is kept for later ones.
   */
  on<K extends keyof CommunicatorEvents>(name: K, listener: (...event: CommunicatorEvents[K]) => void): this {
    checkListener("on", name, listener);
    this.#events.on(name, listener as never);
    return this;
  }

  once<K extends keyof CommunicatorEvents>(
    name: K,
    listener: (...event: CommunicatorEvents[K]) => void,
  ): this {
    checkListener("once", name, listener);
    this.#events.once(name, listener as never);
    return this;
  }

  off<K extends keyof CommunicatorEvents>(
    name: K,
    listener: (...event: CommunicatorEvents[K]) => void,
  ): this {
    checkListener("off", name, listener);
    this.#events.off(name, listener as never);
    return this;
  }

  /**
   * A zeroed array of `count` elements of `dtype` (default "f32"; f16 and bf16 in a Uint16Array) in whole pages of
   * its own, huge ones where the system has them: peers on the same host read those about twice as fast as the memory
   * of an ordinary array, so use it for tensors of megabytes. It goes back to the system when it is collected. Throws
   * ERR_PCCL_OUT_OF_MEMORY when there is none left. Also after close().
   */
  alloc<D extends DType = "f32">(count: number, dtype: D = "f32" as D): ArrayOf[D] {
    return allocTensor(count, dtype, (bytes) => this.#ops.allocate(bytes));
  }

  /**
   * Whether newcomers wait to be admitted. Collective over all admitted peers, so that every one gets the same
   * answer; ops may be in flight meanwhile.
   */
  async hasPendingPeers(options: CallOptions = {}): Promise<boolean> {
    checkOptions("hasPendingPeers", options, CALL_OPTION_KEYS);
    return await this.#control("hasPendingPeers", true, options, (signal) =>
      this.#session.request({ kind: "has-pending-peers" }, signal),
    );
  }

  /**
   * This peer's consent to admit whoever is pending. Collective over all admitted peers; resolves when all have
   * called: true when a new view was installed, false when nobody was pending.
   */
  async updateTopology(options: CallOptions = {}): Promise<boolean> {
    checkOptions("updateTopology", options, CALL_OPTION_KEYS);
    return await this.#control("updateTopology", false, options, (signal) =>
      this.#session.request({ kind: "update-topology" }, signal),
    );
  }

  /**
   * Gives the group's ring, along which large tensors go, the best order that can be found: the one with the fastest
   * slowest path, and of those that are alike in that the one with the shortest way round. Paths that nobody has
   * measured yet, or not for `maxAgeMs`, are measured first, which takes up to about two seconds for each other host;
   * the bytes for that come on top of what the program sends. Collective over all admitted peers; resolves when all
   * have called: true when a new view was installed, in which ranks may be others (the peer with rank 0 keeps it). Who
   * dies meanwhile is left out. After a call that was withdrawn what was measured stays known.
   */
  async optimizeTopology(options: OptimizeOptions = {}): Promise<boolean> {
    const call = "optimizeTopology";
    checkOptions(call, options, ["maxAgeMs", ...CALL_OPTION_KEYS]);
    const maxAgeMs = checkInteger(
      call,
      "maxAgeMs",
      options.maxAgeMs ?? MEASUREMENT_AGE_DEFAULT_MS,
      0,
      TIMEOUT_MAX_MS,
    );
    return await this.#control(call, false, options, (signal) =>
      this.#session.request({ kind: "optimize-topology", maxAgeMs }, signal),
    );
  }

  /**
   * What the coordinator knows of the group's ring and of the paths between its peers, and how long an all-reduce takes
   * by that. Any peer may call it at any time.
   */
  async topology(options: TopologyOptions = {}): Promise<Topology> {
    const call = "topology";
    checkOptions(call, options, ["bytes", ...CALL_OPTION_KEYS]);
    const bytes = checkBytes(call, options.bytes);
    return await limited(call, options, async (signal) => {
      this.#checkUsable(call);
      return topologyOf(await this.#session.request({ kind: "topology" }, signal), bytes);
    });
  }

  /**
   * Runs several all-reduces, at most `maxInFlight` at once, and makes each one again on the survivors when a
   * change of membership aborts it, until all are committed or this peer is the last of its group. Every peer must
   * pass the same list. Rejects with the first error that a retry can't cure, after withdrawing the other ops. Those
   * that had committed by then keep their results, in place too: reduce copies if the list is to be made again.
   */
  async allReduceAll(
    calls: readonly AllReduceCall[],
    options: AllReduceAllOptions = {},
  ): Promise<AllReduceAllResult> {
    const call = "allReduceAll";
    checkOptions(call, options, ["maxInFlight", ...CALL_OPTION_KEYS]);
    const checked = checkReduceList(call, calls);
    const max = this.#ops.inFlightMax;
    const slots = checkInteger(
      call,
      "maxInFlight",
      options.maxInFlight ?? Math.min(IN_FLIGHT_DEFAULT, max),
      1,
      max,
    );
    return await limited(call, options, async (signal) => {
      this.#lists++;
      try {
        return await reduceList((one, end) => this.#run(call, one, end), checked, slots, signal);
      } finally {
        this.#lists--;
      }
    });
  }

  /**
   * Makes `state` the same on every peer of the group, verified by hash: elects the content, and fetches what
   * differs, in pieces of 64 KiB, from all peers that have it. Collective over the group. A group's revision starts at
   * any value and then stays or advances by one with each sync; only peers that hold the last revision can be sources,
   * so that a newcomer always receives. A peer at fault is refused alone, and the others go on without it.
   *
   * Until it returns the tensors must not be written to. On success `state.revision` is the group's; on failure
   * nothing has changed, and after ERR_PCCL_STATE_FETCH_FAILED the same call goes on where it was cut off. It needs
   * up to as much memory as the tensors that differ have.
   */
  async syncSharedState(state: SharedState, options: SyncOptions = {}): Promise<SyncResult> {
    const call = "syncSharedState";
    checkOptions(call, options, ["strategy", "background", ...CALL_OPTION_KEYS]);
    const strategy = checkOneOf(call, "strategy", options.strategy ?? "enforce-popular", STRATEGIES);
    const background = checkBoolean(call, "background", options.background ?? false);
    return await this.#sync(state, { call, strategy, background }, options);
  }

  /**
   * Begins a group's state again, from a checkpoint, after the last peer that held it has left (the others get
   * ERR_PCCL_STATE_LOST): this peer's content and revision become the group's. The other peers call syncSharedState,
   * or this as well with the same content. Refused with ERR_PCCL_STATE_STRATEGY while a holder lives.
   */
  async seedSharedState(state: SharedState, options: CallOptions = {}): Promise<SyncResult> {
    const call = "seedSharedState";
    checkOptions(call, options, CALL_OPTION_KEYS);
    return await this.#sync(state, { call, strategy: "seed", background: false }, options);
  }

  async #sync(state: SharedState, request: SyncRequest, options: CallOptions): Promise<SyncResult> {
    const { call } = request;
    if (!(state instanceof SharedState)) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: state must be a SharedState, got ${describe(state)}.`,
      );
    }
    return await this.#control(call, false, options, (signal) =>
      syncWithGroup(this.#ops, this.#session, state, request, signal),
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

  protected override async collective(
    name: string,
    options: CallOptions,
    check: (group: GroupView) => CollectiveCall,
  ): Promise<CollectiveResult> {
    const call = check({ peerId: this.peerId, peers: this.peers });
    return await limited(name, options, (signal) => this.#run(name, call, signal));
  }

  async #run(name: string, call: CollectiveCall, signal: AbortSignal | undefined): Promise<CollectiveResult> {
    this.#checkUsable(name);
    if (this.#controlCall?.besideOps === false) throw callInProgress(name, this.#controlCall.name);
    const done = await this.#ops.collective(call, this.peers, signal);
    const { worldSize, epoch, txBytes, rxBytes, seconds, algorithm, transport } = done;
    return { worldSize, epoch, txBytes, rxBytes, seconds, algorithm, transport };
  }

  /**
   * Runs a call that involves the coordinator. Unless it may run `besideOps`, no op may be in flight when it
   * begins, nor be started until it ends.
   */
  async #control<T>(
    call: string,
    besideOps: boolean,
    options: CallOptions,
    body: (signal: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    return await limited(call, options, async (signal) => {
      this.#checkUsable(call);
      if (this.#controlCall !== undefined) throw callInProgress(call, this.#controlCall.name);
      const { inFlight } = this.#ops;
      if (!besideOps && inFlight + this.#lists > 0) {
        const what =
          this.#lists > 0 ? "an allReduceAll of this peer is" : `${inFlight} op(s) of this peer are`;
        throw pcclError("ERR_PCCL_OPS_IN_FLIGHT", `${call}: ${what} in flight.`);
      }
      this.#controlCall = { name: call, besideOps };
      try {
        return await body(signal);
      } finally {
        this.#controlCall = undefined;
      }
    });
  }

  #checkUsable(call: string): void {
    if (this.#ended === undefined) return;
    const { code, reason, peerId, epoch } = this.#ended;
    throw pcclError(code, `${call}: ${reason}`, { peerId, epoch, cause: this.#ended });
  }

  /** Returns whether it ended just now. */
  #end(error: PcclError): boolean {
    if (this.#ended !== undefined) return false;
    this.#ended = error;
    this.#ops.close(error);
    return true;
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
