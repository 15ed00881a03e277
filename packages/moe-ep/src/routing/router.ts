/** Routers of mixture-of-experts models: from logits to each token's experts and gates, and back with gradients. */
import type { RawRouterOptions } from "@pccl/bindings";
import { checkInteger, checkNumber, checkOneOf, checkOptions, pcclError } from "@pccl/core/base";
import { callNative } from "../base/native.js";
import { countCopies, EXPERTS_MAX, type Routing } from "./routing.js";

export type RouterOptions =
  | {
      /** gpt-oss: the K largest logits, gates by a softmax over them. mixtral: a softmax over all, renormalized. */
      readonly kind: "gpt-oss" | "mixtral";
      readonly experts: number;
      /** K, the experts of every token. */
      readonly topK: number;
    }
  | {
      readonly kind: "qwen3-moe";
      readonly experts: number;
      readonly topK: number;
      /** norm_topk_prob: whether a token's gates add up to 1. Default true. */
      readonly renormalize?: boolean | undefined;
    }
  | {
      /** Sigmoid scores, a correction for the choice only, and whole groups of experts chosen first. */
      readonly kind: "deepseek-v3";
      readonly experts: number;
      readonly topK: number;
      /** e_score_correction_bias, one number per expert. Default: none. */
      readonly correction?: ArrayLike<number> | undefined;
      /** n_group and topk_group. Default 1 and 1. */
      readonly groups?: number | undefined;
      readonly groupsKept?: number | undefined;
      /** norm_topk_prob. Default true. */
      readonly renormalize?: boolean | undefined;
      /** routed_scaling_factor. Default 2.5. */
      readonly scale?: number | undefined;
      /** The score of experts in other groups: -Infinity as in DeepSeek's code (default), 0 as in Hugging Face's. */
      readonly maskedScore?: number | undefined;
    }
  | {
      /** Experts in falling probability until they reach `probability`: at least one, at most `maxExperts`. */
      readonly kind: "top-p";
      readonly experts: number;
      /** Above 0, at most 1. */
      readonly probability: number;
      /** Default: all. */
      readonly maxExperts?: number | undefined;
      /** Default false: gates are the probabilities themselves. */
      readonly renormalize?: boolean | undefined;
    };

const KEYS: Readonly<Record<RouterOptions["kind"], readonly string[]>> = {
  "gpt-oss": ["topK"],
  mixtral: ["topK"],
  "qwen3-moe": ["topK", "renormalize"],
  "deepseek-v3": ["topK", "correction", "groups", "groupsKept", "renormalize", "scale", "maskedScore"],
  "top-p": ["probability", "maxExperts", "renormalize"],
};

/** Pure: a router holds its options only. All calls throw PcclError with ERR_PCCL_INVALID_ARGUMENT on bad input. */
export class Router {
  readonly experts: number;
  readonly #options: RawRouterOptions;

  constructor(options: RouterOptions) {
    this.#options = rawOptions(options);
    this.experts = this.#options.experts;
  }

  /** `logits` is tokens × experts, f32, row-major, finite. */
  route(logits: Float32Array): Routing {
    return callNative((addon) => addon.route(this.#options, logits));
  }

  /**
   * The gradient by the logits (tokens × experts), given that by the gates (one number per slot). The choice of
   * experts counts as constant, as in training.
   */
  gradient(
    logits: Float32Array,
    routing: Pick<Routing, "firstSlot" | "experts">,
    gateGradients: Float32Array,
  ): Float32Array {
    return callNative((addon) => addon.routeGradient(this.#options, logits, routing, gateGradients));
  }

  /** How many of the slots go to each expert: a row of planExperts' counts. */
  count(routing: Pick<Routing, "experts">): Float64Array {
    return countCopies("count", routing, this.experts);
  }
}

/** Logits of the router's linear layer: x weightᵀ + bias. x is tokens × hidden, weight experts × hidden; f32, x also bf16. */
export function routerLogits(
  x: Float32Array | Uint16Array,
  weight: Float32Array,
  experts: number,
  bias: Float32Array = new Float32Array(0),
): Float32Array {
  return callNative((addon) => addon.projectRouter(x, weight, bias, experts));
}

/** The linear layer's gradients, shaped as x, weight and bias, given that by the logits. */
export function routerLogitsGradient(
  x: Float32Array | Uint16Array,
  weight: Float32Array,
  experts: number,
  logitGradients: Float32Array,
): { readonly x: Float32Array; readonly weight: Float32Array; readonly bias: Float32Array } {
  return callNative((addon) => addon.projectRouterGradient(x, weight, logitGradients, experts));
}

function rawOptions(options: RouterOptions): RawRouterOptions {
  const call = "Router";
  if (typeof options !== "object" || options === null) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: options must be an object with a kind`);
  }
  const kind = checkOneOf(call, "kind", options.kind, Object.keys(KEYS) as RouterOptions["kind"][]);
  checkOptions(call, options, ["kind", "experts", ...KEYS[kind]]);
  const experts = checkInteger(call, "experts", options.experts, 1, EXPERTS_MAX);
  const flag = (value: boolean | undefined, otherwise: boolean): boolean => {
    if (value !== undefined && typeof value !== "boolean") {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: renormalize must be a boolean`);
    }
    return value ?? otherwise;
  };
  const plain: RawRouterOptions = {
    experts,
    slotsMax: experts,
    score: "softmax",
    renormalize: true,
    scale: 1,
    probabilityMin: 1,
    groups: 1,
    groupsKept: 1,
    maskedScore: 0,
    correction: new Float32Array(0),
  };
  if (options.kind === "top-p") {
    const probabilityMin = checkNumber(call, "probability", options.probability, Number.MIN_VALUE, 1);
    const slotsMax = checkInteger(call, "maxExperts", options.maxExperts ?? experts, 1, experts);
    return { ...plain, slotsMax, probabilityMin, renormalize: flag(options.renormalize, false) };
  }
  const slotsMax = checkInteger(call, "topK", options.topK, 1, experts);
  if (options.kind === "qwen3-moe") {
    return { ...plain, slotsMax, renormalize: flag(options.renormalize, true) };
  }
  if (options.kind !== "deepseek-v3") return { ...plain, slotsMax };
  return {
    ...plain,
    slotsMax,
    score: "sigmoid",
    renormalize: flag(options.renormalize, true),
    scale: checkNumber(call, "scale", options.scale ?? 2.5, -1e9, 1e9),
    groups: checkInteger(call, "groups", options.groups ?? 1, 1, experts),
    groupsKept: checkInteger(call, "groupsKept", options.groupsKept ?? 1, 1, experts),
    maskedScore: options.maskedScore ?? Number.NEGATIVE_INFINITY,
    correction: Float32Array.from(options.correction ?? []),
  };
}
