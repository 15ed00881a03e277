/** Experts on the CPU: packed weights, and tokens through them forward and backward. */
import type { RawExpertShape } from "@pccl/bindings";
import { checkInteger, checkOneOf, checkOptions, pcclError } from "@pccl/core/base";
import { awaitNative, callNative } from "../base/native.js";

/** bf16 lies in a Uint16Array, as its bits. */
export type ExpertNumbers = Float32Array | Uint16Array;

/** What experts of a layer have in common. D is hiddenSize, H is ffnSize. */
export interface ExpertFormat {
  /**
   * swiglu: down(silu(gate x) · up x), as Mixtral, Qwen3-MoE and DeepSeek-V3 have it. gpt-oss: with biases, the gate at
   * most 7 and up in [-7, 7]: down((up + 1) · gate · sigmoid(1.702 gate)).
   */
  readonly kind: "swiglu" | "gpt-oss";
  /** Of weights, tokens and results; sums are f32, and so are gradients of weights. */
  readonly dtype: "f32" | "bf16";
  readonly hiddenSize: number;
  readonly ffnSize: number;
}

const TENSOR_NAMES = {
  swiglu: ["gate", "up", "down"],
  "gpt-oss": ["gateUp", "gateUpBias", "down", "downBias"],
} as const;
const SIZE_MAX = 2 ** 20;

/**
 * An expert's tensors by name, row-major. swiglu, as torch's linear layers: gate [H][D], up [H][D], down [D][H].
 * gpt-oss: gateUp [D][2H] with gates and ups in turn, gateUpBias [2H], down [H][D], downBias [D].
 */
export type ExpertTensors<T extends ExpertNumbers = ExpertNumbers> = Readonly<Record<string, T>>;

export interface PackOptions {
  readonly tensors: ExpertTensors;
  /** Whether expertBackward is to run with them, which takes twice the memory. Default false. */
  readonly training?: boolean | undefined;
}

export function rawShape(call: string, format: ExpertFormat): RawExpertShape {
  if (format === undefined) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: format must be an object with a kind`);
  }
  checkOptions(call, format, ["kind", "dtype", "hiddenSize", "ffnSize"]);
  return {
    kind: checkOneOf(call, "kind", format.kind, ["swiglu", "gpt-oss"]),
    dtype: checkOneOf(call, "dtype", format.dtype, ["f32", "bf16"]),
    hidden: checkInteger(call, "hiddenSize", format.hiddenSize, 1, SIZE_MAX),
    inner: checkInteger(call, "ffnSize", format.ffnSize, 1, SIZE_MAX),
  };
}

/** In the addon's order. */
export function tensorsOf<T extends ExpertNumbers>(
  call: string,
  kind: ExpertFormat["kind"],
  tensors: ExpertTensors<T>,
): T[] {
  checkOptions(call, tensors ?? {}, TENSOR_NAMES[kind]);
  return TENSOR_NAMES[kind].map((name) => {
    const tensor = tensors?.[name];
    if (tensor === undefined) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${name} is missing from the tensors of ${kind}`);
    }
    return tensor;
  });
}

/** Elements of each tensor, by name, in the addon's order. */
export function tensorSizes({ kind, hiddenSize, ffnSize }: ExpertFormat): Readonly<Record<string, number>> {
  const product = hiddenSize * ffnSize;
  return kind === "swiglu"
    ? { gate: product, up: product, down: product }
    : { gateUp: 2 * product, gateUpBias: 2 * ffnSize, down: product, downBias: hiddenSize };
}

/** One expert's weights, packed for the matrix products. They don't change; training packs them anew. */
export class ExpertWeights {
  readonly format: ExpertFormat;
  readonly training: boolean;
  /** The same on every machine, at a multiple of 64 bytes. The first packedBytes().inference suffice for inference. */
  readonly packed: Uint8Array;

  private constructor(format: ExpertFormat, training: boolean, packed: Uint8Array) {
    this.format = format;
    this.training = training;
    this.packed = packed;
  }

  /** Bytes of one packed expert: its weights once, and for training twice, with rows filled up to 32. */
  static packedBytes(format: ExpertFormat): { readonly inference: number; readonly training: number } {
    const shape = rawShape("ExpertWeights.packedBytes", format);
    return callNative((addon) => addon.expertBytes(shape));
  }

  /** Packs off the main thread. Rejects with ERR_PCCL_INVALID_ARGUMENT on tensors of another type or size. */
  static async pack(format: ExpertFormat, options: PackOptions): Promise<ExpertWeights> {
    const call = "ExpertWeights.pack";
    const shape = rawShape(call, format);
    checkOptions(call, options, ["tensors", "training"]);
    const training = options?.training ?? false;
    if (typeof training !== "boolean") {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: training must be a boolean`);
    }
    const tensors = tensorsOf(call, shape.kind, options?.tensors);
    const packed = await awaitNative(async (addon) => {
      const { inference, training: all } = addon.expertBytes(shape);
      const into = new Uint8Array(addon.allocate(training ? all : inference));
      await addon.packExpert(shape, tensors, into);
      return into;
    });
    return new ExpertWeights({ ...format }, training, packed);
  }

  /** Zeros in the shapes of the tensors, for expertBackward to add to. */
  zeroGradients(): Record<string, Float32Array> {
    return Object.fromEntries(
      Object.entries(tensorSizes(this.format)).map(([name, size]) => [name, new Float32Array(size)]),
    );
  }
}

/** The tokens of one expert. Those of several lie one after the other in a call's arrays. */
export interface ExpertTokens {
  readonly weights: ExpertWeights;
  readonly tokens: number;
}

export interface ExpertForward {
  /** Of one format. */
  readonly experts: readonly ExpertTokens[];
  /** tokens × D. */
  readonly x: ExpertNumbers;
  /** tokens × D; receives the results, without gates. */
  readonly y: ExpertNumbers;
  /** tokens × 2H; receives what expertBackward needs. */
  readonly preactivations?: ExpertNumbers | undefined;
}

export interface ExpertBackward {
  readonly experts: readonly (ExpertTokens & {
    /** Of the first token among all tokens of this expert, wherever they are computed. */
    readonly firstPosition: number;
    /** What this adds the gradients of the weights to; several lists may share one. */
    readonly gradients: ExpertTensors<Float32Array>;
  })[];
  readonly x: ExpertNumbers;
  /** As expertForward left them. */
  readonly preactivations: ExpertNumbers;
  /** tokens × D: gradients by y. */
  readonly yGradient: ExpertNumbers;
  /** tokens × D; receives the gradients by x. */
  readonly xGradient: ExpertNumbers;
}

function commonShape(call: string, experts: readonly ExpertTokens[]): RawExpertShape {
  if (!Array.isArray(experts) || experts.length === 0) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: experts must be an array with one or more`);
  }
  let shape: RawExpertShape | undefined;
  for (const [i, expert] of (experts as readonly (ExpertTokens | undefined)[]).entries()) {
    if (!(expert?.weights instanceof ExpertWeights)) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: experts[${i}].weights must be ExpertWeights`);
    }
    const own = rawShape(call, expert.weights.format);
    shape ??= own;
    const { kind, dtype, hidden, inner } = own;
    if (kind !== shape.kind || dtype !== shape.dtype || hidden !== shape.hidden || inner !== shape.inner) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: experts[${i}] has another format than experts[0]`,
      );
    }
  }
  return shape as RawExpertShape;
}

/**
 * Runs tokens through experts, off the main thread, one call after the other. A token's result has the same bits
 * whatever tokens it is with, and in every process on CPUs of one kind. The arrays must be left alone meanwhile.
 * Rejects with ERR_PCCL_INVALID_ARGUMENT before anything has changed.
 */
export async function expertForward(options: ExpertForward): Promise<void> {
  const call = "expertForward";
  checkOptions(call, options, ["experts", "x", "y", "preactivations"]);
  const shape = commonShape(call, options?.experts);
  const { experts, x, y, preactivations } = options;
  const lists = experts.map((expert, i) => {
    checkOptions(`${call}: experts[${i}]`, expert, ["weights", "tokens"]);
    return { tokens: expert.tokens, weights: expert.weights.packed };
  });
  await awaitNative((addon) => addon.expertForward(shape, lists, x, y, preactivations));
}

/**
 * The gradients, likewise: those by x have the bits of each token alone. Those of weights are sums over the tokens in
 * blocks of 512 positions, added up in order: repeatable, and the same however a list is cut at multiples of 512.
 */
export async function expertBackward(options: ExpertBackward): Promise<void> {
  const call = "expertBackward";
  checkOptions(call, options, ["experts", "x", "preactivations", "yGradient", "xGradient"]);
  const shape = commonShape(call, options?.experts);
  const { experts, x, preactivations, yGradient, xGradient } = options;
  const lists = experts.map((expert, i) => {
    const here = `${call}: experts[${i}]`;
    checkOptions(here, expert, ["weights", "tokens", "firstPosition", "gradients"]);
    const { tokens, firstPosition, weights } = expert;
    if (!weights.training) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${here}: its weights must be packed with training: true`);
    }
    return {
      tokens,
      firstPosition,
      weights: weights.packed,
      gradients: tensorsOf(here, shape.kind, expert.gradients),
    };
  });
  await awaitNative((addon) => addon.expertBackward(shape, lists, x, preactivations, yGradient, xGradient));
}
