/**
 * Synchronous DiLoCo (Douillard et al. 2023, arXiv:2311.08105): every peer trains alone for a number of inner
 * steps; an outer step then averages how far the peers have moved and takes one step of an outer optimizer with it.
 */
import { checkInteger, checkNumber, checkOptions, checkSignal, describe } from "../base/check.js";
import { CallMismatchError, CancelledError, PcclError, pcclError, PcclTimeoutError } from "../base/errors.js";
import { TIMEOUT_MAX_MS } from "../base/limits.js";
import type { CallOptions } from "../peer/call-limits.js";
import { Communicator } from "../peer/communicator.js";
import type { AllReduceAllResult } from "../peer/reduce-list.js";
import { SharedState } from "../peer/shared-state.js";
import type { SyncResult } from "../peer/state-sync.js";
import { OuterOptimizer, type OuterOptimizerOptions } from "./outer-optimizer.js";
import { checkLayout, layoutLength, type ParameterSource, type ParameterSpan } from "./parameters.js";

export interface DiLoCoOptions {
  /** What is trained. Names and lengths are the same on every peer of the group. */
  readonly parameters: ParameterSource;
  /** Inner steps between two outer steps, the same on every peer; 500 unless told. */
  readonly innerSteps?: number;
  /** The same on every peer; η 0.7 and μ 0.9 unless told. */
  readonly outer?: OuterOptimizerOptions;
  /** Ends training: an outer step that is waiting rejects with its reason. Close the communicator then. */
  readonly signal?: AbortSignal | undefined;
  /**
   * How long join() or an outer step may take, in milliseconds: then it rejects with ERR_PCCL_TIMEOUT, which names
   * the peers that were waited for. No limit unless told.
   */
  readonly timeoutMs?: number | undefined;
}

export interface StepOptions {
  /** The inner step's training loss. */
  readonly loss?: number;
}

export interface OuterStep {
  /** Outer steps that the group's parameters have behind them, this one included. */
  readonly index: number;
  /** Peers whose work is in this step. */
  readonly worldSize: number;
  /** The view at the step's end: peers that were admitted in this step belong to it. */
  readonly epoch: number;
  /** Mean over the inner steps and the peers that gave a loss; undefined if none did. */
  readonly loss: number | undefined;
  /** Bytes this peer sent and received, those for newcomers included. */
  readonly txBytes: number;
  readonly rxBytes: number;
  /** Attempts of the reduction that a change of membership aborted. */
  readonly retriedOps: number;
  /** Tensors in which this peer had come to differ from the group and that were replaced; normally none. */
  readonly repairedKeys: readonly string[];
  /** Since the last outer step's end: `waiting` is in calls that involve other peers, `computing` the rest. */
  readonly seconds: { readonly computing: number; readonly waiting: number };
}

/** Sets this op apart from the caller's own, which are free to use small tags. */
const TAG = 0x64_69_6c_6f_63_6fn;

/** A failed sync is a death or a torn connection of some peer; that many in a row is something else. */
const SYNC_ATTEMPTS_MAX = 16;

export class DiLoCo {
  readonly innerSteps: number;
  readonly #communicator: Communicator;
  readonly #source: ParameterSource;
  readonly #layout: readonly ParameterSpan[];
  readonly #optimizer: OuterOptimizer;
  readonly #signal: AbortSignal | undefined;
  readonly #timeoutMs: number | undefined;
  /** θ and its momentum: the same bytes on every peer between two outer steps. */
  readonly #parameters: Float32Array;
  readonly #momentum: Float32Array;
  readonly #state: SharedState;
  /** Δ, and behind it the loss and whether there is one: all are averaged in one op. */
  readonly #reduced: Float32Array;
  #hashes: Readonly<Record<string, string>> = {};
  /** Until then newcomers fetch θ and its momentum from this peer, which may not write there. */
  #served: Promise<unknown> = Promise.resolve();
  #innerStepsDone = 0;
  #lossSum = 0;
  #losses = 0;
  #running = false;
  #failure: { readonly error: unknown } | undefined;
  #lastEnd: number = performance.now();
  #waitedMs = 0;

  private constructor(communicator: Communicator, options: DiLoCoOptions) {
    const call = "DiLoCo.join";
    checkOptions(call, options, ["parameters", "innerSteps", "outer", "signal", "timeoutMs"]);
    if (!(communicator instanceof Communicator)) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: the first argument must be a Communicator, got ${describe(communicator)}.`,
      );
    }
    const source = options?.parameters;
    if (typeof source?.read !== "function" || typeof source.write !== "function") {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: parameters must be a ParameterSource (layout, read, write), got ${describe(source)}.`,
      );
    }
    checkLayout(call, source.layout);
    this.innerSteps = checkInteger(call, "innerSteps", options.innerSteps ?? 500, 1, Number.MAX_SAFE_INTEGER);
    this.#optimizer = new OuterOptimizer(options.outer);
    this.#communicator = communicator;
    this.#source = source;
    this.#signal = checkSignal(call, options.signal);
    const { timeoutMs } = options;
    if (timeoutMs !== undefined) checkInteger(call, "timeoutMs", timeoutMs, 1, TIMEOUT_MAX_MS);
    this.#timeoutMs = timeoutMs;
    this.#layout = source.layout.map(({ name, length }) => ({ name, length }));
    const length = layoutLength(this.#layout);
    this.#parameters = new Float32Array(length);
    this.#momentum = new Float32Array(length);
    this.#reduced = new Float32Array(length + 2);
    this.#state = new SharedState(
      { ...this.#spans("parameters/", this.#parameters), ...this.#spans("momentum/", this.#momentum) },
      { revision: 0 },
    );
  }

  /**
   * Joins the group's training. In a new group the most frequent initial parameters win; a peer that joins later
   * receives the group's parameters and momentum. Either way they are in `parameters` when this resolves.
   * Collective over the group: those who train already are in it whenever they have admitted newcomers.
   */
  static async join(communicator: Communicator, options: DiLoCoOptions): Promise<DiLoCo> {
    const diloco = new DiLoCo(communicator, options);
    await diloco.#source.read(diloco.#parameters);
    diloco.#checkFinite(diloco.#parameters);
    await diloco.#sync(diloco.#limits());
    await diloco.#source.write(diloco.#parameters);
    diloco.#endStep();
    return diloco;
  }

  /** Outer steps that the group's parameters have behind them; those before this peer joined count too. */
  get index(): number {
    return this.#state.revision;
  }

  /**
   * Root hash of each tensor of the shared state ("parameters/NAME" and "momentum/NAME"), 32 hex digits, as of the
   * last outer step: equal on every peer of the group.
   */
  get hashes(): Readonly<Record<string, string>> {
    return this.#hashes;
  }

  /**
   * To be called after every inner step. Every `innerSteps` calls it runs the outer step and resolves to its
   * result. In between it lets the event loop turn once, which a training library's own promises may never do,
   * so that signals and timers of the process stay alive.
   */
  async step(options: StepOptions = {}): Promise<OuterStep | undefined> {
    const call = "diloco.step";
    checkOptions(call, options, ["loss"]);
    if (options.loss !== undefined) {
      this.#lossSum += checkNumber(call, "loss", options.loss, -Number.MAX_VALUE, Number.MAX_VALUE);
      this.#losses++;
    }
    this.#innerStepsDone++;
    if (this.#innerStepsDone >= this.innerSteps) return await this.outerStep();
    await new Promise((resolve) => setImmediate(resolve));
    this.#signal?.throwIfAborted();
    return undefined;
  }

  /**
   * Averages the peers' work since the last outer step and moves the group's parameters, then admits newcomers
   * and verifies that all peers hold the same bytes. Collective over all admitted peers. A peer's death at any
   * point is handled inside: the survivors lose none of their work.
   *
   * Throws ERR_PCCL_NOT_FINITE before anything is sent when the local parameters hold NaN or infinity. To the others
   * this peer then is one that hasn't finished its inner steps: they wait, for no longer than their `timeoutMs`,
   * until it calls again with finite parameters, or closes its communicator or dies, and then go on without it.
   *
   * An error before the peers' work is averaged, ERR_PCCL_TIMEOUT for example, leaves everything as it was, and the
   * call may be made again. One after that is final for this object: every later call throws it again.
   */
  async outerStep(): Promise<OuterStep> {
    const call = "diloco.outerStep";
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#running) {
      throw pcclError("ERR_PCCL_CALL_IN_PROGRESS", `${call}: an outer step of this peer is in progress.`);
    }
    this.#running = true;
    try {
      const limits = this.#limits();
      await this.#readDelta();
      const reduced = await this.#reduce(limits);
      try {
        return await this.#finishStep(reduced, limits);
      } catch (error) {
        this.#failure = { error };
        throw error;
      }
    } finally {
      this.#running = false;
    }
  }

  /** Δ = θ_global − θ_local. */
  async #readDelta(): Promise<void> {
    const parameters = this.#parameters;
    const delta = this.#delta();
    await this.#source.read(delta);
    this.#checkFinite(delta);
    for (let i = 0; i < delta.length; i++) delta[i] = (parameters[i] as number) - (delta[i] as number);
  }

  /** What is left of the time for one call of this object's, for each call that it makes itself. */
  #limits(): () => CallOptions {
    const startMs = performance.now();
    return () => {
      if (this.#timeoutMs === undefined) return { signal: this.#signal };
      const leftMs = Math.ceil(this.#timeoutMs - (performance.now() - startMs));
      return { signal: this.#signal, timeoutMs: Math.max(1, leftMs) };
    };
  }

  /** Averages Δ and the losses over the peers. Fails with everything as it was. */
  async #reduce(limits: () => CallOptions): Promise<AllReduceAllResult> {
    const length = this.#parameters.length;
    this.#reduced[length] = this.#losses === 0 ? 0 : this.#lossSum / this.#losses;
    this.#reduced[length + 1] = this.#losses === 0 ? 0 : 1;
    const calls = [{ send: this.#reduced, op: "avg", tag: TAG }] as const;
    for (let syncs = 0; ; ) {
      try {
        return await this.#wait(() => this.#communicator.allReduceAll(calls, limits()));
      } catch (error) {
        // A newcomer couldn't fetch the state, and calls its sync again.
        if (error instanceof CallMismatchError && ++syncs < SYNC_ATTEMPTS_MAX) await this.#sync(limits);
        // Another member has withdrawn. It will call again or leave, as one that died has left.
        else if (!(error instanceof CancelledError)) throw error;
      }
    }
  }

  async #finishStep(
    { results, retriedOps }: AllReduceAllResult,
    limits: () => CallOptions,
  ): Promise<OuterStep> {
    const length = this.#parameters.length;
    const [reduction] = results;
    if (reduction === undefined) throw pcclError("ERR_PCCL_INTERNAL", "allReduceAll gave no result.");
    const [lossMean = 0, lossShare = 0] = this.#reduced.subarray(length);
    const loss = lossShare === 0 ? undefined : lossMean / lossShare;
    await this.#wait(() => this.#served);
    this.#optimizer.step(this.#parameters, this.#momentum, this.#delta());
    this.#state.revision++;

    // Newcomers come in between the update and the sync: they receive the new state before they contribute.
    if (await this.#wait(() => this.#communicator.hasPendingPeers(limits()))) {
      await this.#wait(() => this.#communicator.updateTopology(limits()));
    }
    const sync = await this.#sync(limits);
    await this.#source.write(this.#parameters);
    return {
      index: this.index,
      worldSize: reduction.worldSize,
      epoch: this.#communicator.epoch,
      loss,
      txBytes: reduction.txBytes + sync.txBytes,
      rxBytes: reduction.rxBytes + sync.rxBytes,
      retriedOps,
      repairedKeys: sync.changedKeys,
      seconds: this.#endStep(),
    };
  }

  async #sync(limits: () => CallOptions): Promise<SyncResult> {
    for (let attempt = 1; ; attempt++) {
      try {
        // The state changes next in the next outer step: newcomers have until then to fetch it.
        const options = { ...limits(), background: true };
        const result = await this.#wait(() => this.#communicator.syncSharedState(this.#state, options));
        this.#hashes = result.hashes;
        this.#served = result.served;
        return result;
      } catch (error) {
        const retryable =
          error instanceof CallMismatchError ||
          (error instanceof PcclError && error.retryable && !(error instanceof PcclTimeoutError));
        if (!retryable || attempt >= SYNC_ATTEMPTS_MAX) throw error;
      }
    }
  }

  /** Begins the next outer step's count and clock; gives the last one's times. */
  #endStep(): OuterStep["seconds"] {
    const now = performance.now();
    const waiting = this.#waitedMs / 1000;
    const computing = (now - this.#lastEnd) / 1000 - waiting;
    this.#lastEnd = now;
    this.#waitedMs = 0;
    this.#innerStepsDone = 0;
    this.#lossSum = 0;
    this.#losses = 0;
    return { computing, waiting };
  }

  async #wait<T>(call: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await call();
    } finally {
      this.#waitedMs += performance.now() - start;
    }
  }

  #delta(): Float32Array {
    return this.#reduced.subarray(0, this.#parameters.length);
  }

  /** Throws ERR_PCCL_NOT_FINITE with the name of the first parameter that isn't. */
  #checkFinite(values: Float32Array): void {
    let start = 0;
    for (const { name, length } of this.#layout) {
      for (let i = start; i < start + length; i++) {
        if (Number.isFinite(values[i])) continue;
        throw pcclError(
          "ERR_PCCL_NOT_FINITE",
          `diloco: parameter "${name}" has the value ${values[i]} at element ${i - start}.`,
        );
      }
      start += length;
    }
  }

  /** The layout's spans of a flat buffer, by name. */
  #spans(prefix: string, flat: Float32Array): Record<string, Float32Array> {
    let offset = 0;
    return Object.fromEntries(
      this.#layout.map(({ name, length }) => {
        const span = flat.subarray(offset, offset + length);
        offset += length;
        return [`${prefix}${name}`, span];
      }),
    );
  }
}
