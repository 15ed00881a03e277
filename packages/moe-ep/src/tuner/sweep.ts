/** Tries the planners' settings on scenarios, by predicted time. */
import { checkOptions } from "@pccl/core/base";
import type { CostModel } from "../planner/cost-model.js";
import { type Planner, planExperts } from "../planner/plan.js";
import { generateCounts } from "../routing/generate.js";

export interface SweepOptions {
  /** Default: planExperts'. */
  readonly costModel?: CostModel | undefined;
  readonly experts: number;
  readonly topK: number;
  /** Of each rank. */
  readonly tokens: number;
  readonly ranks: number;
  readonly scenarios: readonly string[];
}

export interface Setting {
  readonly planner: Planner;
  /** m. */
  readonly minChunkCopies: number;
  /** α and λ, which only lla has. */
  readonly capacityFactor?: number | undefined;
  readonly minImbalance?: number | undefined;
}

export interface SweptSetting extends Setting {
  /** Over plain expert parallelism: the geometric mean over the scenarios, and the least. */
  readonly speedup: number;
  readonly leastSpeedup: number;
  /** Experts lent per step, in the mean. */
  readonly transfers: number;
  /** No other setting is as fast, or faster, with as few transfers, or fewer. */
  readonly isPareto: boolean;
}

const CHUNKS = [16, 64, 256, 1024];
const CAPACITY_FACTORS = [1, 1.1, 1.25, 1.5, 2];
const IMBALANCES = [0, 1.1, 1.3, 1.5, 2];

const SETTINGS: readonly Setting[] = [
  { planner: "ep", minChunkCopies: 1 },
  ...CHUNKS.map((minChunkCopies) => ({ planner: "auto" as const, minChunkCopies })),
  ...CHUNKS.flatMap((minChunkCopies) =>
    CAPACITY_FACTORS.flatMap((capacityFactor) =>
      IMBALANCES.map((minImbalance) => ({
        planner: "lla" as const,
        minChunkCopies,
        capacityFactor,
        minImbalance,
      })),
    ),
  ),
];

/** Every setting, fastest first; of equally fast ones those with fewer transfers first. */
export function sweep(options: SweepOptions): readonly SweptSetting[] {
  checkOptions("sweep", options, ["costModel", "experts", "topK", "tokens", "ranks", "scenarios"]);
  const { costModel, scenarios, ...rest } = options;
  const batches = scenarios.map((scenario) => generateCounts({ scenario, ...rest }));
  const swept = SETTINGS.map((setting) => {
    let [logs, least, transfers] = [0, Number.POSITIVE_INFINITY, 0];
    for (const counts of batches) {
      const plan = planExperts(counts, { ...setting, costModel });
      const seconds = plan.predicted.stepSeconds;
      const speedup = seconds > 0 ? plan.predictedBefore.stepSeconds / seconds : 1;
      logs += Math.log(speedup);
      least = Math.min(least, speedup);
      transfers += plan.transfers.length;
    }
    return {
      ...setting,
      speedup: Math.exp(logs / batches.length),
      leastSpeedup: least,
      transfers: transfers / batches.length,
    };
  });
  swept.sort((a, b) => b.speedup - a.speedup || a.transfers - b.transfers);
  let fewest = Number.POSITIVE_INFINITY;
  return swept.map((setting) => {
    const isPareto = setting.transfers < fewest;
    fewest = Math.min(fewest, setting.transfers);
    return { ...setting, isPareto };
  });
}
