/** The experts of a mixture-of-experts layer on one rank of a group, forward and backward. */
import type { CallOptions } from "@pccl/core";
import { checkOptions, describe, pcclError } from "@pccl/core/base";
import { awaitNative } from "../base/native.js";
import { type ExpertNumbers, type ExpertTensors, rawShape } from "../experts/experts.js";
import type { ExpertGroup } from "../group/expert-group.js";
import type { Exchange } from "../group/exchange.js";
import { costModelInCopies } from "../planner/cost-model.js";
import { type PlanOptions, planExperts } from "../planner/plan.js";
import { countCopies, type Routing } from "../routing/routing.js";
import {
  announcementBytes,
  decodeAnnouncements,
  encodeAnnouncement,
  type StepKind,
} from "./announcement.js";
import { checkTokens } from "./format.js";
import { type Gradients, GradientReturn } from "./gradient-return.js";
import {
  checkConfig,
  compareConfigs,
  CONFIG_BYTES,
  encodeConfig,
  type ExpertLayerOptions,
  type LayerConfig,
} from "./layer-config.js";
import { type Borrowed, Lending } from "./lending.js";
import { type Loan, loansOf } from "./loans.js";
import { Phases, type StepStatistics } from "./statistics.js";
import { Step } from "./step.js";
import { StepBuffers } from "./step-buffers.js";
import { ANNOUNCEMENT_BYTES, WeightStore } from "./weight-store.js";

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

/** A mapped expert is computed as an own one is, but that its weights are in no cache of this rank's yet. */
const MAPPED_COST = costModelInCopies(16);
const SENT_COST = costModelInCopies(256);
const NONE: Addends = () => Promise.resolve([]);

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

  private constructor(
    group: ExpertGroup,
    config: LayerConfig,
    store: WeightStore,
    mapped: readonly (readonly boolean[])[],
  ) {
    this.config = config;
    this.#group = group;
    this.#exchange = group.exchange;
    this.#store = store;
    this.#lending = new Lending(group.exchange, store, mapped);
    this.#buffers = new StepBuffers(config.format);
    this.#number = group.nextLayer();
    const allMapped = mapped.every((row) => row.every((one) => one));
    this.#planOptions = {
      costModel: allMapped ? MAPPED_COST : SENT_COST,
      ...config.plan,
      nativeRanks: config.owners,
      expertBytes: store.expertBytes,
    };
  }

  /** Packs this rank's experts. Collective. */
  static async create(group: ExpertGroup, options: ExpertLayerOptions): Promise<ExpertLayer> {
    return await ExpertLayer.createWhen("ExpertLayer.create", group, () => options);
  }

  /** The same with options that may still turn out to be bad: then `options` throws, and all ranks reject. */
  static async createWhen(
    call: string,
    group: ExpertGroup,
    options: () => ExpertLayerOptions,
  ): Promise<ExpertLayer> {
    return await group.exclusively(call, async () => {
      const { exchange } = group;
      let config: LayerConfig | undefined;
      let store: WeightStore | undefined;
      const answers = await exchange.agree(call, CONFIG_BYTES + ANNOUNCEMENT_BYTES, async () => {
        const given = options();
        config = checkConfig(call, given, exchange.size);
        store = new WeightStore(config.format, config.training, config.owners, exchange.rank);
        for (const [expert, owner] of config.owners.entries()) {
          if (owner === exchange.rank) await store.pack(call, expert, await given.tensors(expert));
        }
        const answer = new Uint8Array(CONFIG_BYTES + ANNOUNCEMENT_BYTES);
        answer.set(encodeConfig(config));
        answer.set(store.announcement(), CONFIG_BYTES);
        return answer;
      });
      compareConfigs(
        call,
        answers.map((answer) => answer.subarray(0, CONFIG_BYTES)),
      );
      const [own, memory] = [config as LayerConfig, store as WeightStore];
      const maps = await exchange.agree(call, exchange.size, () => {
        const announcements = answers.map((answer) => answer.subarray(CONFIG_BYTES));
        const mapped =
          own.lending === "auto" ? memory.map(announcements) : announcements.map((_, rank) => rank === exchange.rank);
        return Uint8Array.from(mapped, Number);
      });
      const mapped = maps.map((row) => Array.from(row, (one) => one === 1));
      return new ExpertLayer(group, own, memory, mapped);
    });
  }

  /**
   * New weights for an expert of this rank's, packed over the old ones; not collective, but not during a step. Whoever
   * has borrowed the old ones gets them anew with the next step.
   */
  async setExpert(expert: number, tensors: ExpertTensors): Promise<void> {
    const call = "setExpert";
    if (this.config.owners[expert] !== this.#exchange.rank) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: expert ${expert} isn't one of this rank's`);
    }
    await this.#group.exclusively(call, async () => {
      this.#version++;
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
    return await this.#step(call, options, async (limits, phases) => {
      const { format, experts, training, owners } = this.config;
      this.#kept = undefined;
      this.#buffers.begin();
      let input: ForwardInput | undefined;
      const all = await this.#announce(call, "forward", limits, () => {
        input = prepare();
        const tokens = checkTokens(call, "x", input.x, format);
        return countRouting(call, input.routing, tokens, experts);
      });
      const { x, routing } = input as unknown as ForwardInput;
      phases.end("agree");
      const added = addends();
      added.catch(() => undefined);
      const counts = all.map((one) => one.counts);
      const plan = planExperts(counts, this.#planOptions);
      const loans = loansOf(plan, owners);
      phases.end("plan");
      const versions = all.map(({ version }) => version);
      const borrowed = this.#lending.borrow(call, loans, versions, limits.signal as AbortSignal);
      const setting = { exchange: this.#exchange, format, training, buffers: this.#buffers };
      const step = new Step(setting, plan, counts, routing);
      await step.announce(call, limits);
      const received = await step.dispatch(call, x, "rows received", limits);
      phases.end("dispatch");

      const results = step.results("results");
      const preactivations = training
        ? this.#buffers.rows("preactivations", step.copies * 2 * format.ffnSize)
        : undefined;
      const shape = rawShape(call, format);
      const [own, lent] = this.#lists(step, borrowed);
      const compute = (lists: typeof own): Promise<void> =>
        awaitNative((addon) =>
          addon.forwardLists(step.native, shape, lists, received, results, preactivations),
        );
      await compute(own);
      phases.end("compute");
      await borrowed.arrived;
      phases.end("weights");
      await compute(lent);
      phases.end("compute");
      const returned = await step.giveBack(call, results, "results returned", limits);
      borrowed.keep();
      const output = await step.combine(true, returned, await added);
      phases.end("combine");
      if (preactivations !== undefined) {
        this.#kept = { step, loans, borrowed, x: received, preactivations, results: returned };
      }
      const moved = borrowed.bytesReceived + borrowed.bytesSent;
      this.statistics = this.#statistics(step, borrowed, moved, phases);
      return output;
    });
  }

  async backwardWhen(
    call: string,
    outputGradient: ExpertNumbers,
    addends: (gates: Float32Array) => Promise<readonly ExpertNumbers[]>,
    options: CallOptions,
  ): Promise<ExpertsGradients> {
    return await this.#step(call, options, async (limits, phases) => {
      const { format, experts } = this.config;
      await this.#announce(call, "backward", limits, () => {
        if (this.#kept === undefined) {
          const why = this.config.training ? "there is no forward pass to go back" : "the layer isn't for training";
          throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${why}`);
        }
        const tokens = checkTokens(call, "outputGradient", outputGradient, format);
        if (tokens !== this.#kept.step.tokens) {
          const had = `the forward pass had ${this.#kept.step.tokens}`;
          throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: outputGradient has ${tokens} tokens, ${had}`);
        }
        return new Float64Array(experts);
      });
      phases.end("agree");
      const { step, loans, borrowed, x, preactivations, results } = this.#kept as Kept;
      // Its memory is written to from here on.
      this.#kept = undefined;
      const { dtype, hiddenSize } = format;
      const received = await step.dispatch(call, outputGradient, "gradients received", limits);
      phases.end("dispatch");

      const gates = new Float32Array(step.routing.gates.length);
      await awaitNative((addon) =>
        addon.gateGradients(step.native, dtype, hiddenSize, results, outputGradient, gates),
      );
      const added = addends(gates);
      added.catch(() => undefined);
      const shape = rawShape(call, format);
      const xGradients = step.results("gradients");
      const weights = new GradientReturn(this.#exchange, this.config, this.#buffers, loans);
      const [own, lent] = this.#lists(step, borrowed).map((lists) =>
        lists.map((list) => ({ ...list, gradients: weights.of(list.expert) })),
      ) as [ReturnType<typeof withGradients>, ReturnType<typeof withGradients>];
      const compute = (lists: typeof own): Promise<void> =>
        awaitNative((addon) =>
          addon.backwardLists(step.native, shape, lists, x, preactivations, received, xGradients),
        );
      await compute(lent);
      const returning = weights.start(call, limits);
      await compute(own);
      phases.end("compute");
      const returned = await step.giveBack(call, xGradients, "results returned", limits);
      const xGradient = await step.combine(false, returned, await added);
      phases.end("combine");
      weights.ownAreComputed();
      await returning;
      phases.end("weights");
      this.statistics = this.#statistics(step, borrowed, weights.bytesMoved, phases);
      return { x: xGradient, gates, experts: weights.finish() };
    });
  }

  async #step<T>(
    call: string,
    options: CallOptions,
    body: (limits: CallOptions, phases: Phases) => Promise<T>,
  ): Promise<T> {
    checkOptions(call, options, ["signal", "timeoutMs"]);
    return await this.#group.exclusively(call, async () => {
      const controller = new AbortController();
      const onAbort = (): void => controller.abort(options.signal?.reason);
      options.signal?.addEventListener("abort", onAbort, { once: true });
      if (options.signal?.aborted === true) onAbort();
      const { timeoutMs } = options;
      const limits = { signal: controller.signal, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
      try {
        return await body(limits, new Phases());
      } catch (error) {
        // Weights on their way, and gradients, are of no use any more.
        controller.abort(error);
        await this.#exchange.failTogether(error);
        throw error;
      } finally {
        options.signal?.removeEventListener("abort", onAbort);
      }
    });
  }
}
