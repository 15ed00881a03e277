/** A mixture-of-experts layer on one rank of a group: router, experts of all ranks, and a shared expert if it has one. */
import type { CallOptions } from "@pccl/core";
import { checkOptions, describe, pcclError } from "@pccl/core/base";
import type { ExpertNumbers, ExpertTensors } from "../experts/experts.js";
import type { ExpertGroup } from "../group/expert-group.js";
import { Router, type RouterOptions, routerLogits, routerLogitsGradient } from "../routing/router.js";
import type { Routing } from "../routing/routing.js";
import { ExpertLayer, type ExpertsGradients } from "./expert-layer.js";
import { checkTokens } from "./format.js";
import type { Gradients } from "./gradient-return.js";
import type { ExpertLayerOptions } from "./layer-config.js";
import { SharedExpert } from "./shared-expert.js";
import type { StepStatistics } from "./statistics.js";

export interface MoELayerOptions extends Omit<ExpertLayerOptions, "experts"> {
  readonly router: RouterOptions;
  /** experts × D, and one number per expert: read by every pass, so that a step of training may change them. */
  readonly routerWeight: Float32Array;
  readonly routerBias?: Float32Array | undefined;
  /** An expert for every token, the same on all ranks, with an H of its own. */
  readonly sharedExpert?: { readonly ffnSize: number; readonly tensors: ExpertTensors } | undefined;
}

export interface MoEGradients extends ExpertsGradients {
  /** Of the router and the shared expert: over this rank's tokens; their sum over the ranks is the layer's. */
  readonly routerWeight: Float32Array;
  readonly routerBias: Float32Array;
  readonly sharedExpert: Gradients | undefined;
}

interface Pass {
  readonly x: ExpertNumbers;
  readonly logits: Float32Array;
  readonly routing: Routing;
}

const OPTION_KEYS = [
  "router",
  "routerWeight",
  "routerBias",
  "sharedExpert",
  "format",
  "tensors",
  "training",
  "plan",
  "lending",
];

/**
 * Output, gradients by x and by gates have the same bits as of the layer on one process, whatever the plan and the number
 * of ranks. Calls are collective and fail together, as ExpertLayer's.
 */
export class MoELayer {
  /** To give single experts new weights, and to compute with a routing of one's own. */
  readonly experts: ExpertLayer;
  readonly #router: Router;
  readonly #weight: Float32Array;
  readonly #bias: Float32Array;
  readonly #shared: SharedExpert | undefined;
  #pass: Pass | undefined;

  private constructor(
    experts: ExpertLayer,
    router: Router,
    options: MoELayerOptions,
    shared: SharedExpert | undefined,
  ) {
    this.experts = experts;
    this.#router = router;
    this.#weight = options.routerWeight;
    this.#bias = options.routerBias ?? new Float32Array(0);
    this.#shared = shared;
  }

  /** Packs this rank's experts. Collective; bad options on one rank reject on all. */
  static async create(group: ExpertGroup, options: MoELayerOptions): Promise<MoELayer> {
    const call = "MoELayer.create";
    let router!: Router;
    let shared: SharedExpert | undefined;
    const experts = await ExpertLayer.createWhen(call, group, async () => {
      checkOptions(call, options, OPTION_KEYS);
      const { router: routing, routerWeight, routerBias, sharedExpert, ...rest } = options;
      router = new Router(routing);
      checkFloats(call, "routerWeight", routerWeight, router.experts * (rest.format?.hiddenSize ?? 0));
      if (routerBias !== undefined) checkFloats(call, "routerBias", routerBias, router.experts);
      if (sharedExpert !== undefined) {
        checkOptions(`${call}: sharedExpert`, sharedExpert, ["ffnSize", "tensors"]);
        const format = { ...rest.format, ffnSize: sharedExpert.ffnSize };
        shared = await SharedExpert.create(format, sharedExpert.tensors, rest.training ?? false);
      }
      return { ...rest, experts: router.experts };
    });
    return new MoELayer(experts, router, options, shared);
  }

  /** Of the last step, forward or backward. */
  get statistics(): StepStatistics | undefined {
    return this.experts.statistics;
  }

  /** How the last forward pass routed this rank's tokens. */
  get routing(): Routing | undefined {
    return this.#pass?.routing;
  }

  /** The layer's output for this rank's tokens; both are tokens × D in the layer's dtype. */
  async forward(x: ExpertNumbers, options: CallOptions = {}): Promise<ExpertNumbers> {
    const call = "MoELayer.forward";
    this.#pass = undefined;
    const route = (): Pass => {
      checkTokens(call, "x", x, this.experts.config.format);
      const logits = routerLogits(x, this.#weight, this.#router.experts, this.#bias);
      this.#pass = { x, logits, routing: this.#router.route(logits) };
      return this.#pass;
    };
    const beside = async (): Promise<ExpertNumbers[]> =>
      this.#shared === undefined ? [] : [await this.#shared.forward(x)];
    return await this.experts.forwardWhen(call, route, beside, options);
  }

  /**
   * The gradients of the last forward pass, given that by its output. The choice of experts counts as constant. x of
   * that pass must be as it was.
   */
  async backward(outputGradient: ExpertNumbers, options: CallOptions = {}): Promise<MoEGradients> {
    let router: ReturnType<typeof routerLogitsGradient> | undefined;
    let shared: { x: ExpertNumbers; tensors: Gradients } | undefined;
    const beside = async (gates: Float32Array): Promise<ExpertNumbers[]> => {
      const { x, logits, routing } = this.#pass as Pass;
      const gradient = this.#router.gradient(logits, routing, gates);
      router = routerLogitsGradient(x, this.#weight, this.#router.experts, gradient);
      shared = await this.#shared?.backward(outputGradient);
      return shared === undefined ? [router.x] : [router.x, shared.x];
    };
    const experts = await this.experts.backwardWhen("MoELayer.backward", outputGradient, beside, options);
    const { weight, bias } = router as NonNullable<typeof router>;
    return { ...experts, routerWeight: weight, routerBias: bias, sharedExpert: shared?.tensors };
  }

  /** New weights for the shared expert, the same on all ranks; not during a step. */
  async setSharedExpert(tensors: ExpertTensors): Promise<void> {
    if (this.#shared === undefined) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", "setSharedExpert: the layer has no shared expert");
    }
    await this.#shared.setTensors(tensors);
  }
}

function checkFloats(call: string, name: string, value: unknown, count: number): void {
  if (!(value instanceof Float32Array) || value.length !== count) {
    const got = value instanceof Float32Array ? `${value.length}` : describe(value);
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be a Float32Array of ${count} elements, got ${got}`,
    );
  }
}
