export { Diloco } from "./diloco.js";
export type { DilocoEvents, OuterStep } from "./events.js";
export type { Suspect } from "./guard.js";
export type { DilocoOptions, RunOptions } from "./options.js";
export type { OuterOptions } from "./outer-optimizer.js";
export { fromViews, ParameterArena, type ParameterSource, type ParameterSpan } from "./parameters.js";
export type { ScheduleOptions } from "./schedule.js";
export type { StepOptions } from "./step-count.js";
export type { WireOptions } from "./wire.js";
