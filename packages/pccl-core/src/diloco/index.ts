export { DiLoCo, type DiLoCoOptions, type OuterStep, type StepOptions } from "./diloco.js";
export { OuterOptimizer, type OuterOptimizerOptions } from "./outer-optimizer.js";
export { fromViews, ParameterArena, type ParameterSource, type ParameterSpan } from "./parameters.js";
