/** The options that say which layer a command is about. */
import { MODEL_NAMES, type ModelLayer, modelLayer } from "../simulator/models.js";
import { integerOption } from "./options.js";
import { UsageError } from "./usage.js";

export const LAYER_USAGE: string = `  --model NAME           ${MODEL_NAMES.slice(0, 4).join(", ")},
                         ${MODEL_NAMES.slice(4).join(", ")}
  --experts N --topk K --hidden D --ffn H
                         Instead of a model, or other than the model's
`;

const text = { type: "string" } as const;
/** For parseArgs. */
export const LAYER_OPTIONS: Readonly<
  Record<"model" | "experts" | "topk" | "hidden" | "ffn", { readonly type: "string" }>
> = { model: text, experts: text, topk: text, hidden: text, ffn: text };

const OWN_TOKENS_PER_RANK = 16_384;

type Given = Partial<Readonly<Record<keyof typeof LAYER_OPTIONS, string>>>;

/** Without a model, what isn't given is as in `fallback`, or must be given. Throws UsageError or PcclError. */
export function layerOf(values: Given, fallback: Partial<ModelLayer> = {}): ModelLayer {
  const base = values.model === undefined ? fallback : modelLayer(values.model);
  const number = (name: keyof Given, otherwise: number | undefined, max: number): number => {
    const value = integerOption(name, values[name], 1, max) ?? otherwise;
    if (value === undefined) {
      throw new UsageError("give --model NAME, or all of --experts, --topk, --hidden and --ffn");
    }
    return value;
  };
  return {
    tokensPerRank: OWN_TOKENS_PER_RANK,
    family: "gpt-oss",
    ...base,
    experts: number("experts", base.experts, 65_536),
    topK: number("topk", base.topK, 65_536),
    hiddenSize: number("hidden", base.hiddenSize, 2 ** 20),
    ffnSize: number("ffn", base.ffnSize, 2 ** 20),
  };
}
