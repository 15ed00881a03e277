/** The mixture-of-experts layers of known models. */
import { checkOneOf } from "@pccl/core/base";

export interface ModelLayer {
  /** N. */
  readonly experts: number;
  /** K. */
  readonly topK: number;
  readonly hiddenSize: number;
  /** Of one expert. */
  readonly ffnSize: number;
  /** What the LLEP paper ran per GPU; 16,384 for models that it didn't run. */
  readonly tokensPerRank: number;
  /** Whose measured runtime stands for this model's on GPUs: runtimes.ts. */
  readonly family: "gpt-oss" | "deepseek";
}

const layer = (
  family: ModelLayer["family"],
  [experts, topK, hiddenSize, ffnSize]: readonly [number, number, number, number],
  tokensPerRank = 16_384,
): ModelLayer => ({ experts, topK, hiddenSize, ffnSize, tokensPerRank, family });

/** From the models' own config.json. */
const MODELS: Readonly<Record<string, ModelLayer>> = {
  "gpt-oss-120b": layer("gpt-oss", [128, 4, 2880, 2880], 32_768),
  "gpt-oss-20b": layer("gpt-oss", [32, 4, 2880, 2880], 32_768),
  "deepseek-v3": layer("deepseek", [256, 8, 7168, 2048]),
  "kimi-k2": layer("deepseek", [384, 8, 7168, 2048]),
  "mixtral-8x7b": layer("gpt-oss", [8, 2, 4096, 14_336]),
  "mixtral-8x22b": layer("gpt-oss", [8, 2, 6144, 16_384]),
  "qwen3-30b-a3b": layer("gpt-oss", [128, 8, 2048, 768]),
  "qwen3-235b-a22b": layer("gpt-oss", [128, 8, 4096, 1536]),
};

export const MODEL_NAMES: readonly string[] = Object.keys(MODELS);

/** By its name, in any case. Throws ERR_PCCL_INVALID_ARGUMENT for a model that isn't known. */
export function modelLayer(name: string): ModelLayer {
  const lower = typeof name === "string" ? name.toLowerCase() : name;
  return MODELS[checkOneOf("modelLayer", "model", lower, MODEL_NAMES)] as ModelLayer;
}
