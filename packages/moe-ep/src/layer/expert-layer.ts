/** The experts of a mixture-of-experts layer on one rank of a group, forward and backward. */
import type { CallOptions } from "@pccl/core";
import { checkOptions, type PcclError, pcclError } from "@pccl/core/base";
import { awaitNative } from "../base/native.js";
import { type ExpertNumbers, type ExpertTensors, rawShape } from "../experts/experts.js";
import type { ExpertGroup } from "../group/expert-group.js";
import type { Exchange } from "../group/exchange.js";
import { type PlanOptions, planExperts } from "../planner/plan.js";
import type { Routing } from "../routing/routing.js";
import {
  type Announcement,
  announcementBytes,
  countRouting,
  decodeAnnouncements,
  encodeAnnouncement,
  type StepKind,
} from "./announcement.js";
import { checkTokens } from "./format.js";
import { type Gradients, GradientReturn } from "./gradient-return.js";
import type { ExpertLayerOptions, LayerConfig } from "./layer-config.js";
import { type Borrowed, Lending } from "./lending.js";
import { type Loan, loansOf } from "./loans.js";
import { Phases, type StepStatistics } from "./statistics.js";
import { Step, type StepSetting } from "./step.js";
import { StepBuffers } from "./step-buffers.js";
import { planOptionsOf, type SharedWeights, shareWeights } from "./shared-weights.js";
import type { WeightStore } from "./weight-store.js";

export interface ExpertsGradients {
  /** tokens × D, in the layer's dtype: the sum over each token's slots. */
  readonly x: ExpertNumbers;
  /** By slot. */
  readonly gates: Float32Array;
  /** Of this rank's experts, by their number: each tensor's, over the tokens of all ranks. */
  readonly experts: ReadonlyMap<number, Gradients>;
}

/** What a forward pass begins with, and what is added to its sums. */
export interface ForwardInput {
  readonly x: ExpertNumbers;
  readonly routing: Routing;
}

/** Work beside a pass, started once all ranks have agreed to it; tokens × D each, f32 or of the layer's dtype. */
export type Addends = () => Promise<readonly ExpertNumbers[]>;

/** What of a forward pass the backward pass needs. */
interface Kept {
  readonly step: Step;
  readonly loans: readonly Loan[];
  readonly borrowed: Borrowed;
  readonly x: ExpertNumbers;
  readonly preactivations: ExpertNumbers;
  readonly results: ExpertNumbers;
}

const NONE: Addends = () => Promise.resolve([]);
/** What passes between two ranks in one step has numbers of its own, so that a failed step leaves none to the next. */
const NUMBERS_PER_STEP = 2 ** 28;
const STEPS_APART = 2 ** 12;

interface Phased {
  readonly limits: CallOptions;
  readonly phases: Phases;
}

/**
 * Calls are collective over the group and run one at a time. What one rank can't do, for bad input or a lack of memory,
 * all of them reject, with its reason; ERR_PCCL_PEER_LOST and ERR_PCCL_CANCELLED can be retried as the group says.
 */
export class ExpertLayer {
  readonly config: LayerConfig;
  /** Of the last step, forward or backward. */
  statistics: StepStatistics | undefined;
  readonly #group: ExpertGroup;
  readonly #exchange: Exchange;
  readonly #store: WeightStore;
  readonly #lending: Lending;
  readonly #buffers: StepBuffers;
  readonly #planOptions: PlanOptions;
  readonly #number: number;
  #version = 0;
  #kept: Kept | undefined;
  /** What of the step in progress runs beside it. */
  #beside: Promise<unknown>[] = [];

  private constructor(group: ExpertGroup, { config, store, mapped }: SharedWeights) {
    this.config = config;
    this.#group = group;
    this.#exchange = group.exchange;
    this.#store = store;
    this.#lending = new Lending(group.exchange, store, mapped);
    this.#buffers = new StepBuffers(config.format);
    this.#number = group.nextLayer();
    this.#planOptions = planOptionsOf({ config, store, mapped });
  }

  /** Packs this rank's experts. Collective. */
  static async create(group: ExpertGroup, options: ExpertLayerOptions): Promise<ExpertLayer> {
    return await ExpertLayer.createWhen("ExpertLayer.create", group, () => options);
  }

  /** The same with options that may still turn out to be bad: then `options` throws, and all ranks reject. */
  static async createWhen(
    call: string,
    group: ExpertGroup,
    options: () => ExpertLayerOptions | Promise<ExpertLayerOptions>,
  ): Promise<ExpertLayer> {
    return await group.exclusively(
      call,
      async () => new ExpertLayer(group, await shareWeights(call, group.exchange, options)),
    );
  }

  /**
   * New weights for an expert of this rank's, packed over the old ones; not collective, but not during a step, nor
   * between a forward pass and its backward pass. Whoever has borrowed the old ones gets them anew with the next step.
   */
  async setExpert(expert: number, tensors: ExpertTensors): Promise<void> {
    const call = "setExpert";
    if (this.config.owners[expert] !== this.#exchange.rank) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: expert ${expert} isn't one of this rank's`);
    }
    await this.#group.exclusively(call, async () => {
      this.#version++;
      // A backward pass would go through other weights than the forward pass did.
      this.#kept = undefined;
      await this.#store.pack(call, expert, tensors);
    });
  }

  /** Sums of the experts' results by the gates, tokens × D. `routing` may give a token any number of slots. */
  async forward(x: ExpertNumbers, routing: Routing, options: CallOptions = {}): Promise<ExpertNumbers> {
    return await this.forwardWhen("ExpertLayer.forward", () => ({ x, routing }), NONE, options);
  }

  /** The gradients by what the last forward pass took, given that by its output. */
  async backward(outputGradient: ExpertNumbers, options: CallOptions = {}): Promise<ExpertsGradients> {
    return await this.backwardWhen("ExpertLayer.backward", outputGradient, NONE, options);
  }

  /** `prepare` may throw what is wrong with the input. */
  async forwardWhen(
    call: string,
    prepare: () => ForwardInput,
    addends: Addends,
    options: CallOptions,
  ): Promise<ExpertNumbers> {
    return await this.#step(call, options, async ({ limits, phases }) => {
      const { format, experts, training, owners } = this.config;
      this.#kept = undefined;
      this.#buffers.begin();
      let input!: ForwardInput;
      const { all, firstNumber } = await this.#announce(call, "forward", limits, () => {
        input = prepare();
        const tokens = checkTokens(call, "x", input.x, format);
        return countRouting(call, input.routing, tokens, experts);
      });
      const added = this.#start(addends());
      phases.end("agree");
      const counts = all.map((one) => one.counts);
      const plan = planExperts(counts, this.#planOptions);
      const loans = loansOf(plan, owners);
      const step = new Step(this.#setting, plan, counts, input.routing);
      phases.end("plan");
      const versions = all.map(({ version }) => version);
      const borrowed = this.#lending.borrow(call, loans, versions, firstNumber, limits);
      const arrived = this.#start(borrowed.arrived);
      await step.announce(call, limits);
      const x = await step.dispatch(call, input.x, "rows received", limits);
      phases.end("dispatch");

      const results = step.results("results");
      const preactivations = training
        ? this.#buffers.rows("preactivations", step.copies * 2 * format.ffnSize)
        : undefined;
      const shape = rawShape(call, format);
      const compute = async (lent: boolean): Promise<void> => {
        const lists = this.#lists(step, borrowed, lent);
        await awaitNative((addon) =>
          addon.forwardLists(step.native, shape, lists, x, results, preactivations),
        );
        phases.end("compute");
      };
      await compute(false);
      await arrived;
      phases.end("weights");
      await compute(true);
      const returned = await step.giveBack(call, results, "results returned", limits);
      borrowed.keep();
      const output = await step.combine(true, returned, await added);
      phases.end("combine");
      if (preactivations !== undefined) {
        this.#kept = { step, loans, borrowed, x, preactivations, results: returned };
      }
      this.#report(step, borrowed, borrowed.bytesMoved, phases);
      return output;
    });
  }

  /** `addends` gets the gradients by the gates. */
  async backwardWhen(
    call: string,
    outputGradient: ExpertNumbers,
    addends: (gates: Float32Array) => Promise<readonly ExpertNumbers[]>,
    options: CallOptions,
  ): Promise<ExpertsGradients> {
    return await this.#step(call, options, async ({ limits, phases }) => {
      const { format, experts } = this.config;
      const { firstNumber } = await this.#announce(call, "backward", limits, () => {
        this.#checkBackward(call, outputGradient);
        return new Float64Array(experts);
      });
      const { step, loans, borrowed, x, preactivations, results } = this.#kept as Kept;
      // Its memory is written to from here on.
      this.#kept = undefined;
      phases.end("agree");
      const { dtype, hiddenSize } = format;
      const gates = new Float32Array(step.routing.gates.length);
      await awaitNative((addon) =>
        addon.gateGradients(step.native, dtype, hiddenSize, results, outputGradient, gates),
      );
      const added = this.#start(addends(gates));
      const received = await step.dispatch(call, outputGradient, "gradients received", limits);
      phases.end("dispatch");

      const shape = rawShape(call, format);
      const xGradients = step.results("gradients");
      const weights = new GradientReturn(this.#exchange, this.config, this.#buffers, loans, firstNumber);
      const compute = async (lent: boolean): Promise<void> => {
        const lists = this.#lists(step, borrowed, lent).map((list) => ({
          ...list,
          gradients: weights.of(list.expert),
        }));
        await awaitNative((addon) =>
          addon.backwardLists(step.native, shape, lists, x, preactivations, received, xGradients),
        );
        phases.end("compute");
      };
      // What others wait for first.
      await compute(true);
      const returning = this.#start(weights.start(call, limits));
      await compute(false).finally(() => weights.ownAreComputed());
      const returned = await step.giveBack(call, xGradients, "results returned", limits);
      const xGradient = await step.combine(false, returned, await added);
      phases.end("combine");
      await returning;
      phases.end("weights");
      this.#report(step, borrowed, weights.bytesMoved, phases);
      return { x: xGradient, gates, experts: weights.finish() };
    });
  }

  get #setting(): StepSetting {
    const { format, training } = this.config;
    return { exchange: this.#exchange, format, training, buffers: this.#buffers };
  }

  /** What this rank computes with its own weights, or with borrowed ones. */
  #lists(
    step: Step,
    borrowed: Borrowed,
    lent: boolean,
  ): { list: number; expert: number; weights: Uint8Array }[] {
    return step.lists.flatMap(({ expert }, list) => {
      const foreign = borrowed.weights.get(expert);
      if ((foreign !== undefined) !== lent) return [];
      return [{ list, expert, weights: (foreign ?? this.#store.find(expert)) as Uint8Array }];
    });
  }

  /** Tells the others about this rank's part of a step, and learns theirs. */
  async #announce(
    call: string,
    kind: StepKind,
    limits: CallOptions,
    counts: () => Float64Array,
  ): Promise<{ all: Announcement[]; firstNumber: number }> {
    const step = this.#group.nextStep();
    const { experts } = this.config;
    const payloads = await this.#exchange.agree(
      call,
      announcementBytes(experts),
      () => {
        const own = { kind, layer: this.#number, step, version: this.#version, counts: counts() };
        return encodeAnnouncement(own);
      },
      limits,
    );
    const all = decodeAnnouncements(call, payloads);
    const [{ step: number }] = all as [Announcement];
    return { all, firstNumber: (number % STEPS_APART) * NUMBERS_PER_STEP };
  }

  #checkBackward(call: string, outputGradient: ExpertNumbers): void {
    const invalid = (message: string): PcclError =>
      pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${message}`);
    if (!this.config.training) throw invalid("the layer was made without training");
    if (this.#kept === undefined) throw invalid("there is no forward pass to go back");
    const tokens = checkTokens(call, "outputGradient", outputGradient, this.config.format);
    const had = this.#kept.step.tokens;
    if (tokens !== had) throw invalid(`outputGradient has ${tokens} tokens, and the forward pass had ${had}`);
  }

  /** Work beside the step, which whoever awaits it hears of, and a step that has failed waits for. */
  #start<T>(work: Promise<T>): Promise<T> {
    this.#beside.push(work);
    work.catch(() => undefined);
    return work;
  }

  #report(step: Step, borrowed: Borrowed, weightBytesMoved: number, phases: Phases): void {
    const { planner, isApplied, loadsBefore, loadsAfter, sendMatrix } = step.plan;
    this.statistics = {
      planner,
      isApplied,
      loadsBefore,
      loadsAfter,
      copiesCrossRank: sendMatrix
        .flatMap((row, rank) => row.filter((_, to) => to !== rank))
        .reduce((a, b) => a + b, 0),
      rowsSent: step.rowsSent,
      weightBytesBorrowed: borrowed.weights.size * this.#store.expertBytes,
      weightBytesMoved,
      peakBytes: this.#buffers.bytes + borrowed.bytesHeld,
      seconds: phases.seconds,
    };
  }

  /** One call at a time; when it fails it takes down with it what runs beside it, and the other ranks' calls. */
  async #step<T>(call: string, options: CallOptions, body: (phased: Phased) => Promise<T>): Promise<T> {
    checkOptions(call, options, ["signal", "timeoutMs"]);
    return await this.#group.exclusively(call, async () => {
      const controller = new AbortController();
      const { signal, timeoutMs } = options;
      const onAbort = (): void => controller.abort(signal?.reason);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted === true) onAbort();
      this.#beside = [];
      try {
        return await body({ limits: { signal: controller.signal, timeoutMs }, phases: new Phases() });
      } catch (error) {
        controller.abort(error);
        await this.#exchange.failTogether(error);
        await Promise.allSettled(this.#beside);
        throw error;
      } finally {
        signal?.removeEventListener("abort", onAbort);
      }
    });
  }
}
