/** What the software of a run adds to the hardware's times. */
import { type CostModel, type ExpertShape, estimateCostModel } from "../planner/cost-model.js";
import type { Cluster } from "./clusters.js";

export interface Runtime {
  /** For each expert that a rank computes: launches, loops, and what short products lose. */
  readonly expertSeconds: number;
  /** For each step that lends anything: planning, barriers, buffers. */
  readonly lendSeconds: number;
  /** Numbers kept per token-copy at its peak, in multiples of the hidden and of the experts' inner size. */
  readonly hiddenPerCopy: number;
  readonly ffnPerCopy: number;
}

/**
 * The paper's own runtime (PyTorch, one product after the other, planner in Python), fitted to its figure 4: two times
 * per model family for speed-ups, two factors for all models for memory. docs/moe-ep.md says how well they fit.
 */
export const PAPER_RUNTIMES: Readonly<Record<"gpt-oss" | "deepseek", Runtime>> = {
  "gpt-oss": { expertSeconds: 3e-6, lendSeconds: 4e-3, hiddenPerCopy: 2.8, ffnPerCopy: 6.5 },
  deepseek: { expertSeconds: 79e-6, lendSeconds: 13.4e-3, hiddenPerCopy: 2.8, ffnPerCopy: 6.5 },
};

/** No overhead at all, and of each copy only the token and its result: as near as this library comes on CPUs. */
export const LEAN_RUNTIME: Runtime = { expertSeconds: 0, lendSeconds: 0, hiddenPerCopy: 2, ffnPerCopy: 0 };

/** Of a layer on a cluster, under a runtime. */
export function costModelOf(
  shape: ExpertShape,
  { hardware }: Pick<Cluster, "hardware">,
  { expertSeconds, lendSeconds }: Pick<Runtime, "expertSeconds" | "lendSeconds">,
): CostModel & { readonly lendSeconds: number } {
  return { ...estimateCostModel(shape, hardware), expertSeconds, lendSeconds };
}
