/** Layers with their results and gradients, computed elsewhere in double precision, as this package's layers take them. */
import { pcclError } from "@pccl/core/base";
import type { ExpertFormat } from "../experts/experts.js";
import { Router, type RouterOptions } from "../routing/router.js";
import { readSafeTensors, type SafeTensors } from "./safetensors.js";

export interface GoldenLayer extends SafeTensors {
  readonly isDeepSeek: boolean;
  readonly router: Router;
  readonly routerOptions: RouterOptions;
  readonly format: ExpertFormat;
  /** By how much single precision may be off, per tensor: another order of sums is off by a few times the stored error. */
  readonly allowed: (name: string) => number;
  /** A tensor of experts by this package's name, and the files'. */
  readonly theirName: (name: string) => string;
  /** The tensors of one expert, by the names of this package; `prefix` is grad_ for gradients. */
  readonly expert: (index: number, prefix?: "" | "grad_") => Record<string, Float32Array>;
  /** Of DeepSeek-V3: the expert that every token goes to. */
  readonly sharedExpert: (prefix?: "" | "grad_") => Record<string, Float32Array>;
}

const FEW = 8;

/** Our names of experts' tensors, and the files'. */
const SWIGLU = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
const GPT_OSS = {
  gateUp: "gate_up_proj",
  gateUpBias: "gate_up_proj_bias",
  down: "down_proj",
  downBias: "down_proj_bias",
};

function routerOptionsOf(path: string, { metadata, f32 }: SafeTensors): RouterOptions {
  const { kind, E, K } = metadata as { kind: string; E: string; K: string };
  const common = { experts: Number(E), topK: Number(K) };
  const options = JSON.parse(metadata.opts as string) as Record<string, number | boolean | undefined>;
  if (kind === "gpt_oss") return { ...common, kind: "gpt-oss" };
  if (kind === "mixtral") return { ...common, kind };
  if (kind === "qwen3_moe") {
    return { ...common, kind: "qwen3-moe", renormalize: (options.renorm ?? true) as boolean };
  }
  if (kind !== "deepseek_v3") {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${path}: there is no layer of kind "${kind}"`);
  }
  return {
    ...common,
    kind: "deepseek-v3",
    correction: f32("e_score_correction_bias"),
    groups: Number(options.n_group ?? 1),
    groupsKept: Number(options.topk_group ?? 1),
    scale: Number(options.scale ?? 2.5),
    renormalize: (options.norm ?? true) as boolean,
    maskedScore: Number(options.mask_value ?? 0),
  };
}

export function readGoldenLayer(path: string): GoldenLayer {
  const tensors = readSafeTensors(path);
  const routerOptions = routerOptionsOf(path, tensors);
  const { metadata, f32 } = tensors;
  const errors = JSON.parse(metadata.fp32_max_abs_err as string) as Record<string, number>;
  const isGptOss = metadata.kind === "gpt_oss";
  const names = Object.entries(isGptOss ? GPT_OSS : SWIGLU);
  const experts = Number(metadata.E);
  return {
    ...tensors,
    isDeepSeek: metadata.kind === "deepseek_v3",
    router: new Router(routerOptions),
    routerOptions,
    format: {
      kind: isGptOss ? "gpt-oss" : "swiglu",
      dtype: "f32",
      hiddenSize: Number(metadata.D),
      ffnSize: Number(metadata.H),
    },
    allowed: (name) => FEW * (errors[name] as number),
    theirName: (name) => (isGptOss ? GPT_OSS : SWIGLU)[name as never],
    expert: (index, prefix = "") =>
      Object.fromEntries(
        names.map(([name, theirs]) => {
          const all = f32(`${prefix}${theirs}`);
          const size = all.length / experts;
          return [name, all.slice(index * size, (index + 1) * size)];
        }),
      ),
    sharedExpert: (prefix = "") =>
      Object.fromEntries(names.map(([name, theirs]) => [name, f32(`${prefix}shared_${theirs}`)])),
  };
}

/** By how much the worst element is off; NaN if one is, or if there are fewer or more. */
export function worstDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.NaN;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    if (Number.isNaN(difference)) return difference;
    if (difference > worst) worst = difference;
  }
  return worst;
}
