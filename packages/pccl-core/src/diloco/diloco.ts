/**
 * DiLoCo: every peer trains alone for many inner steps; then the peers average how far they have moved, and an outer
 * optimizer moves the group's parameters by it. schedule.ts says when, wire.ts how it travels, guard.ts what is left
 * out; here it is put together, and peers come, go and die.
 *
 * Newcomers are admitted when a round has been settled, while nothing is in flight. They receive the group's outer
 * state, verified, and take part in the next round, at first with the weight of the few steps that they have done: with
 * the schedules that launch the next round at once that is 0, and its result still reaches them as it does the others.
 */
import { type PcclError, pcclError, PcclTimeoutError } from "../base/errors.js";
import type { CallOptions } from "../peer/call-limits.js";
import type { Restored } from "./checkpoint.js";
import { type DilocoEvents, Listeners, type OuterStep } from "./events.js";
import { exchange, type Offer, type Outcome } from "./exchange.js";
import type { Fragment } from "./fragments.js";
import { remember } from "./guard.js";
import { LocalModel } from "./local-model.js";
import { admitNewcomers, syncGroup, waitForCompany } from "./membership.js";
import {
  checkDilocoOptions,
  checkRunOptions,
  type DilocoOptions,
  type RunOptions,
  type Settings,
} from "./options.js";
import { OuterState } from "./outer-state.js";
import { Prediction } from "./prediction.js";
import { meanLoss, type RosterEntry } from "./roster.js";
import { StepCount, type StepOptions, Stopwatch } from "./step-count.js";

/** One average of one fragment, from its launch to its settling. */
interface Round {
  readonly fragment: number;
  readonly offer: Offer;
  /** The exchange, once it has begun. */
  running: Promise<Outcome> | undefined;
  /** Whether newcomers wait to be admitted when it is settled: the same answer on every peer. */
  pending: Promise<boolean> | undefined;
}

export class Diloco {
  readonly #settings: Settings;
  readonly #state: OuterState;
  readonly #local: LocalModel;
  readonly #count: StepCount;
  readonly #watch: Stopwatch = new Stopwatch();
  readonly #listeners: Listeners = new Listeners();
  readonly #prediction: Prediction;
  /** A fragment's contribution, and the sum of all, packed. */
  readonly #send: Float32Array;
  readonly #recv: Float32Array;
  #round: Round | undefined;
  #untilLaunch = 0;
  #untilSettling = 0;
  #phase: "new" | "joining" | "idle" | "in-step" | "ending-step" = "new";
  #isRestored = false;
  #failure: { readonly error: unknown } | undefined;

  /** Checks its options; nothing is sent before join(). */
  constructor(options: DilocoOptions) {
    const settings = checkDilocoOptions(options);
    const { source, schedule, optimizer, weighting, description } = settings;
    this.#settings = settings;
    this.#state = new OuterState(source.layout, schedule.fragments, optimizer, description);
    this.#local = new LocalModel(source, schedule, this.#state.parameters);
    this.#count = new StepCount(schedule.fragments.length, weighting);
    const longest = Math.max(...schedule.fragments.map(({ length }) => length));
    this.#send = new Float32Array(longest);
    this.#recv = new Float32Array(longest);
    this.#prediction = new Prediction(this.#state, this.#local);
    if (settings.onSuspect !== undefined) this.on("suspect", settings.onSuspect);
  }

  /** Rounds that the group's parameters have behind them; those before this peer joined count too. */
  get round(): number {
    return this.#state.round;
  }

  /** Rounds that have been launched: one more than `round` while one is in flight. */
  get launched(): number {
    return this.round + (this.#round === undefined ? 0 : 1);
  }

  /** Outer steps: rounds of the whole model. */
  get index(): number {
    return Math.floor(this.round / this.#settings.schedule.fragments.length);
  }

  /** XXH3-128 of the outer state as of the last round, 32 hex digits: equal on every peer of the group. */
  get digest(): string {
    return this.#state.digest;
  }

  /**
   * The group's parameters, in the layout's order, as of the last round: what to evaluate and to keep. Only to be
   * read; they change in endStep() and finish().
   */
  get parameters(): Float32Array {
    return this.#state.parameters;
  }

  on<K extends keyof DilocoEvents>(name: K, listener: (...event: DilocoEvents[K]) => void): this {
    this.#listeners.add("on", name, listener);
    return this;
  }

  off<K extends keyof DilocoEvents>(name: K, listener: (...event: DilocoEvents[K]) => void): this {
    this.#listeners.remove("off", name, listener);
    return this;
  }

  /**
   * Takes the outer state of this peer's newest whole checkpoint, before join(); resolves to what the caller had put
   * into it, or to undefined if there is none. A new group, of whatever size, goes on from the checkpoint that
   * most of its peers have; one that trains already is joined as by any newcomer. Own progress since then is lost.
   */
  async restore(): Promise<Restored | undefined> {
    if (this.#phase !== "new") throw this.#misuse("diloco.restore");
    const { checkpoints } = this.#settings;
    if (checkpoints === undefined) {
      const message = "diloco.restore: no checkpoint was asked for in the options.";
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
    }
    const restored = await checkpoints.restore(this.#state);
    this.#isRestored = restored !== undefined;
    return restored;
  }

  /**
   * Joins the group's training; beginStep() and run() do it when nobody has. In a new group the most frequent initial
   * parameters win; a peer that joins later receives the group's outer state. Either way its parameters are the
   * group's when this resolves. Collective over the group: those who train already are in it whenever they have
   * admitted newcomers.
   */
  async join(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#phase !== "new") return;
    this.#phase = "joining";
    const { communicator, schedule, alone } = this.#settings;
    try {
      if (!this.#isRestored) this.#state.parameters.set(await this.#local.readFinite());
    } catch (error) {
      this.#phase = "new";
      throw error;
    }
    await this.#finally(async () => {
      await syncGroup(communicator, this.#state, this.#limits());
      if (alone === "wait") await waitForCompany(communicator, this.#state, this.#limits());
      await this.#local.take(this.#state.parameters);
    });
    // In a new group everybody has a whole period before the first launch; a newcomer comes when a round was settled.
    this.#untilLaunch = this.round === 0 ? schedule.periodSteps : schedule.periodSteps - schedule.delaySteps;
    this.#watch.lap();
    this.#phase = "idle";
    if (this.#untilLaunch === 0) await this.#launch();
  }

  /** To be called before every inner step. Joins when nobody has. */
  async beginStep(): Promise<void> {
    const call = "diloco.beginStep";
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#phase === "new") await this.join();
    if (this.#phase !== "idle") throw this.#misuse(call);
    this.#settings.signal?.throwIfAborted();
    this.#phase = "in-step";
  }

  /**
   * To be called after every inner step; resolves to what the round came to that it settled, if it did. In between it
   * lets the event loop turn once, which a training library's own promises may never do, so that signals and timers of
   * the process, and rounds in flight, go on.
   *
   * A peer's death at any point is handled inside: the survivors lose none of their work. ERR_PCCL_TIMEOUT leaves
   * everything as it was, and the call, without a step, may be made again. Any other error is final for this object:
   * every later call throws it again.
   */
  async endStep(options: StepOptions = {}): Promise<OuterStep | undefined> {
    const call = "diloco.endStep";
    if (this.#failure !== undefined) throw this.#failure.error;
    const isAgain = this.#phase === "idle" && this.#round !== undefined && this.#untilSettling <= 0;
    if (this.#phase !== "in-step" && !isAgain) throw this.#misuse(call);
    if (this.#phase === "in-step") {
      this.#count.add(call, options);
      this.#untilLaunch--;
      this.#untilSettling--;
    }
    this.#phase = "ending-step";
    try {
      return await this.#advance();
    } finally {
      this.#phase = "idle";
    }
  }

  /**
   * Waits for the round in flight, if there is one, applies it, and waits for checkpoints to be written. At the end of training every peer of the group
   * calls it, at the same round; run() does.
   */
  async finish(): Promise<OuterStep | undefined> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#phase !== "idle") throw this.#misuse("diloco.finish");
    if (this.#round === undefined) {
      await this.#settings.checkpoints?.flush();
      return undefined;
    }
    this.#phase = "ending-step";
    try {
      const step = await this.#settle(this.#round);
      await this.#local.take(this.#state.parameters);
      await this.#settings.checkpoints?.flush();
      return step;
    } finally {
      this.#phase = "idle";
    }
  }

  /**
   * The whole loop: `innerStep` until the group has made `outerSteps`, those before this peer joined among them. It
   * trains one step on `parameters`, which the caller has, and may say its loss and tokens.
   */
  async run(options: RunOptions): Promise<void> {
    const { innerStep, outerSteps } = checkRunOptions(options);
    const rounds = outerSteps * this.#settings.schedule.fragments.length;
    await this.join();
    while (this.launched < rounds) {
      await this.beginStep();
      await this.endStep((await innerStep()) ?? {});
    }
    await this.finish();
  }

  async #advance(): Promise<OuterStep | undefined> {
    let step: OuterStep | undefined;
    if (this.#round !== undefined && this.#untilSettling <= 0) step = await this.#settle(this.#round);
    if (this.#round === undefined && this.#untilLaunch <= 0) {
      await this.#launch();
      if (this.#round !== undefined && this.#untilSettling <= 0) step = await this.#settle(this.#round);
    }
    if (step === undefined) await new Promise((resolve) => setImmediate(resolve));
    this.#settings.signal?.throwIfAborted();
    return step;
  }

  /** Begins the next round: what this peer contributes is fixed here. */
  async #launch(): Promise<void> {
    const { schedule, communicator, wire, alone, innerSteps, observer, outlierFactor } = this.#settings;
    if (alone === "wait" && communicator.groupWorldSize === 1) {
      await this.#finally(async () => {
        const isReplaced = await waitForCompany(communicator, this.#state, this.#limits());
        if (isReplaced) await this.#restart();
      });
    }
    const index = this.round % schedule.fragments.length;
    const fragment = schedule.fragments[index] as Fragment;
    const send = this.#send.subarray(0, fragment.length);
    const norm = await this.#watch.time("updating", () => this.#local.progress(fragment, send));
    const { weight, loss } = this.#count.take(index, innerSteps);
    const own: RosterEntry = {
      peerId: communicator.peerId,
      weight: observer ? 0 : weight,
      norm,
      loss,
      digest: this.digest,
    };
    await this.#watch.time("updating", async () => {
      if (!Number.isFinite(norm)) {
        await this.#restart();
        return;
      }
      if (schedule.restart === "carry") await this.#local.startHere();
      await wire.prepare(index, send);
      if (schedule.restart === "predict") await this.#prediction.goOn(send, communicator.groupWorldSize);
    });
    const offer = {
      own,
      send,
      factor: 1,
      recv: this.#recv.subarray(0, fragment.length),
      history: this.#state.history(index),
      outlierFactor,
    };
    this.#round = { fragment: index, offer, running: undefined, pending: undefined };
    this.#untilLaunch = schedule.periodSteps;
    this.#untilSettling = schedule.delaySteps;
    if (schedule.delaySteps > 0) this.#begin(this.#round, () => ({ signal: this.#settings.signal }));
  }

  /** Begins a round's exchange, or begins it again. */
  #begin(round: Round, limits: () => CallOptions): void {
    const { communicator, wire, signal } = this.#settings;
    const running = exchange(communicator, wire, round.offer, limits);
    round.running = running;
    // Asked once per round, at its begin: the answer is there when it is settled. Limits of time are the exchange's.
    round.pending ??= communicator.hasPendingPeers({ signal });
    // Both are awaited when the round is settled; until then nobody is told.
    running.catch(() => undefined);
    round.pending.catch(() => undefined);
  }

  /** Waits for a round, applies what it came to, and admits newcomers. */
  async #settle(round: Round): Promise<OuterStep> {
    const repairedKeys: string[] = [];
    for (;;) {
      const outcome = await this.#watch.time("waiting", () => this.#outcomeOf(round));
      if (outcome.isInStep) {
        return await this.#finally(async () => await this.#conclude(round, outcome, repairedKeys));
      }
      repairedKeys.push(...(await this.#finally(async () => await this.#repair(round))));
    }
  }

  /** The round's outcome, which may have come long ago. An exchange that failed is begun again by the next call. */
  async #outcomeOf(round: Round): Promise<Outcome> {
    const limits = this.#limits();
    if (round.running === undefined) this.#begin(round, limits);
    try {
      return await this.#within(round.running as Promise<Outcome>);
    } catch (error) {
      if (!(error instanceof PcclTimeoutError)) this.#failure = { error };
      if (this.#settings.schedule.delaySteps === 0) round.running = undefined;
      throw error;
    }
  }

  /** What this object waits for without a limit of its own, as for long as one call may take. */
  async #within<T>(promise: Promise<T>): Promise<T> {
    const { timeoutMs, communicator } = this.#settings;
    if (timeoutMs === undefined) return await promise;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const where = `in round ${this.round + 1} with the peers ${communicator.peers.join(", ")}`;
        reject(pcclError("ERR_PCCL_TIMEOUT", `diloco: timed out after ${timeoutMs} ms ${where}`));
      }, timeoutMs);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #conclude(round: Round, outcome: Outcome, repairedKeys: readonly string[]): Promise<OuterStep> {
    const { communicator, schedule } = this.#settings;
    await this.#watch.time("updating", () => this.#apply(round, outcome));
    this.#round = undefined;
    const sync = await this.#watch.time("waiting", async () => {
      if (!(await this.#within(round.pending as Promise<boolean>))) return undefined;
      return await admitNewcomers(communicator, this.#state, this.#limits());
    });
    if (sync !== undefined && sync.changedKeys.length > 0) await this.#restart();
    const step: OuterStep = {
      index: this.index,
      round: this.round,
      fragment: round.fragment,
      elements: (schedule.fragments[round.fragment] as Fragment).length,
      worldSize: outcome.entries.length,
      contributors: outcome.entries.filter(({ weight }) => weight > 0).length,
      epoch: communicator.epoch,
      loss: meanLoss(outcome.entries),
      txBytes: outcome.txBytes + (sync?.txBytes ?? 0),
      rxBytes: outcome.rxBytes + (sync?.rxBytes ?? 0),
      retriedOps: outcome.retriedOps,
      repairedKeys: [...repairedKeys, ...(sync?.changedKeys ?? [])],
      suspects: outcome.suspects,
      digest: this.digest,
      seconds: { ...this.#watch.lap(), communicating: outcome.seconds },
    };
    await this.#settings.checkpoints?.roundEnded(this.#state, this.#settings.description);
    this.#listeners.tell("outerStep", step);
    for (const suspect of outcome.suspects) this.#listeners.tell("suspect", suspect);
    return step;
  }

  async #apply(round: Round, outcome: Outcome): Promise<void> {
    const { schedule } = this.#settings;
    const fragment = schedule.fragments[round.fragment] as Fragment;
    const average = round.offer.recv;
    if (outcome.scale > 0) await this.#state.apply(round.fragment, average, outcome.scale);
    remember(outcome.offered, this.#state.history(round.fragment), this.round);
    await this.#state.endRound(round.fragment);
    const { parameters } = this.#state;
    const { peerId } = this.#settings.communicator;
    if (outcome.suspects.some((suspect) => suspect.peerId === peerId && suspect.reason === "outlier")) {
      // What it has come to since isn't to be trusted either.
      await this.#restart();
      return;
    }
    switch (schedule.restart) {
      case "take":
        await this.#local.take(parameters);
        break;
      case "mix":
        await this.#local.mix(fragment, parameters, schedule.alpha);
        break;
      case "carry":
        await this.#local.carry(parameters);
        break;
      case "predict":
        this.#prediction.settled(outcome.share);
        break;
    }
  }

  /** Goes on from the group's parameters, without anything of this peer's own. */
  async #restart(): Promise<void> {
    this.#count.forget();
    await this.#local.take(this.#state.parameters);
  }

  /**
   * Some peer's outer state differs: all elect one content, and who had another contributes nothing. Returns what was
   * replaced here; the round's exchange is to be made again.
   */
  async #repair(round: Round): Promise<readonly string[]> {
    const { changedKeys } = await this.#watch.time("waiting", async () => {
      // A sync can't run beside another call to the coordinator.
      await this.#within(round.pending as Promise<boolean>);
      return await syncGroup(this.#settings.communicator, this.#state, this.#limits());
    });
    if (changedKeys.length > 0) await this.#restart();
    const { own } = round.offer;
    const weight = changedKeys.length > 0 ? 0 : own.weight;
    round.offer.own = { ...own, weight, digest: this.digest };
    round.running = undefined;
    return changedKeys;
  }

  /** From here on an error leaves the group and this peer at odds, and is final. */
  async #finally<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }

  /** What is left of the time for one call of this object's, for each call that it makes itself. */
  #limits(): () => CallOptions {
    const { signal, timeoutMs } = this.#settings;
    const startMs = performance.now();
    return () => {
      if (timeoutMs === undefined) return { signal };
      return { signal, timeoutMs: Math.max(1, Math.ceil(timeoutMs - (performance.now() - startMs))) };
    };
  }

  #misuse(call: string): PcclError {
    const inProgress = this.#phase === "joining" || this.#phase === "ending-step";
    if (inProgress) {
      return pcclError("ERR_PCCL_CALL_IN_PROGRESS", `${call}: another call of this object is in progress.`);
    }
    const order =
      "restore() comes before join(), and beginStep() and endStep() are called in turn, around every inner step";
    return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${order}.`);
  }
}
