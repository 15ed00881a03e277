/** Between `moe-ep bench` and its rank processes. */
import type { StepStatistics } from "../layer/statistics.js";
import type { CostModel } from "../planner/cost-model.js";
import type { Planner } from "../planner/plan.js";

export interface BenchJob {
  readonly experts: number;
  readonly topK: number;
  readonly hiddenSize: number;
  readonly ffnSize: number;
  /** Of each rank. */
  readonly tokens: number;
  /** A scenario, or the file of a trace with whole routings: their layer 0, batch after batch, round after round. */
  readonly scenario: string;
  readonly trace: string | undefined;
  /** For auto; undefined: the layer's own. */
  readonly costModel: CostModel | undefined;
  readonly dtype: "f32" | "bf16";
  readonly planners: readonly Planner[];
  /** How many times each planner's step is measured. */
  readonly repeats: number;
}

export interface BenchStep {
  /** From when all ranks were ready to when this one had its output. */
  readonly seconds: number;
  /** Of all threads of the rank's process, meanwhile. */
  readonly cpuSeconds: number;
  readonly statistics: StepStatistics;
}

/** One rank's steps with one planner. */
export interface BenchMessage {
  readonly kind: "steps";
  readonly planner: Planner;
  readonly steps: readonly BenchStep[];
  /** Of the output's bits. */
  readonly outputHash: string;
}
