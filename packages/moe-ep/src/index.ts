/** Least-loaded expert parallelism for mixture-of-experts layers: docs/moe-ep.md says what is here. */
export {
  type CostModel,
  type CostSamples,
  costModelInCopies,
  DEFAULT_COST_MODEL,
  type ExpertShape,
  estimateCostModel,
  expertBytes,
  fitCostModel,
  type Hardware,
  type Sample,
} from "./planner/cost-model.js";
export {
  type ExpertBackward,
  type ExpertForward,
  type ExpertFormat,
  type ExpertNumbers,
  type ExpertTensors,
  type ExpertTokens,
  ExpertWeights,
  expertBackward,
  expertForward,
  type PackOptions,
} from "./experts/experts.js";
export { ExpertGroup, type GroupOptions } from "./group/expert-group.js";
export { ExpertLayer, type ExpertsGradients } from "./layer/expert-layer.js";
export type { Gradients } from "./layer/gradient-return.js";
export type { ExpertLayerOptions } from "./layer/layer-config.js";
export { type MoEGradients, MoELayer, type MoELayerOptions } from "./layer/moe-layer.js";
export type { StepSeconds, StepStatistics } from "./layer/statistics.js";
export {
  type EplbOptions,
  type ExpertPlan,
  type Interval,
  type PlanOptions,
  type Planner,
  type Prediction,
  planExperts,
  type Transfer,
} from "./planner/plan.js";
export {
  type GenerateCountsOptions,
  type GenerateRoutingOptions,
  generateCounts,
  generateRouting,
} from "./routing/generate.js";
export { Router, type RouterOptions, routerLogits, routerLogitsGradient } from "./routing/router.js";
export type { Routing } from "./routing/routing.js";
export { formatScenario, parseScenario, type Scenario } from "./routing/scenario.js";
export type { RoutingTrace, TraceBatch, TraceLayout } from "./routing/trace-format.js";
export { parseTrace, readTrace } from "./routing/trace-reader.js";
export { TraceWriter } from "./routing/trace-writer.js";
export { type Cluster, parseCluster } from "./simulator/clusters.js";
export { MODEL_NAMES, type ModelLayer, modelLayer } from "./simulator/models.js";
export { LEAN_RUNTIME, PAPER_RUNTIMES, type Runtime } from "./simulator/runtimes.js";
export { type Forecast, type SimulateOptions, type Simulation, simulate } from "./simulator/simulate.js";
export { type CalibrateOptions, calibrate } from "./tuner/calibrate.js";
export {
  type Calibration,
  calibratedCluster,
  calibratedCostModel,
  readCalibration,
  writeCalibration,
} from "./tuner/calibration.js";
export { type Setting, type SweepOptions, type SweptSetting, sweep } from "./tuner/sweep.js";
export { VERSION } from "./base/version.js";
