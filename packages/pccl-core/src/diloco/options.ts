/** What a Diloco object is told, and the checks that it passes before anything is started. */
import { checkInteger, checkNumber, checkOneOf, checkOptions, checkSignal, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { TIMEOUT_MAX_MS } from "../base/limits.js";
import { Communicator } from "../peer/communicator.js";
import { type CheckpointOptions, Checkpoints } from "./checkpoint.js";
import type { Suspect } from "./guard.js";
import { createOuterOptimizer, type OuterOptimizer, type OuterOptions } from "./outer-optimizer.js";
import { checkLayout, layoutLength, type ParameterSource } from "./parameters.js";
import { createSchedule, type Schedule, type ScheduleOptions } from "./schedule.js";
import type { StepOptions } from "./step-count.js";
import { createWire, type Wire, type WireOptions } from "./wire.js";

export interface DilocoOptions {
  readonly communicator: Communicator;
  /** What is trained. Names and lengths are the same on every peer of the group. */
  readonly parameters: ParameterSource;
  /** H: inner steps between two averages of a parameter, the same on every peer; 500 unless told. */
  readonly innerSteps?: number;
  /** The outer optimizer, the same on every peer; { kind: "nesterov" } unless told. */
  readonly outer?: OuterOptions;
  /** The same on every peer; "sync" unless told. */
  readonly schedule?: ScheduleOptions;
  /** What contributions travel as, the same on every peer; "f32" unless told. */
  readonly wire?: WireOptions;
  /**
   * What counts in an average, the same on every peer. "uniform" (default): inner steps, so that peers count alike
   * and one that came late less. "tokens": what each step says it has learnt from.
   */
  readonly weighting?: "uniform" | "tokens";
  /** Takes part with weight 0: it receives everything and contributes nothing. */
  readonly observer?: boolean;
  /** A contribution is left out when its norm is so many times the median of the last ones. Default 10. */
  readonly outlierFactor?: number;
  /** Told on every peer of each contribution that was left out, and why; also of this peer's own. */
  readonly onSuspect?: (suspect: Suspect) => void;
  /** Where and when this peer's checkpoints are written; see restore(). */
  readonly checkpoint?: CheckpointOptions;
  /** What a peer does that is the last of its group: go on training (default), or wait for another one. */
  readonly alone?: "train" | "wait";
  /** Ends training: whatever waits rejects with its reason. Close the communicator then. */
  readonly signal?: AbortSignal | undefined;
  /**
   * How long join() or endStep() may wait for others, in milliseconds: then it rejects with ERR_PCCL_TIMEOUT. No limit
   * unless told.
   */
  readonly timeoutMs?: number | undefined;
}

export interface Settings {
  readonly communicator: Communicator;
  readonly source: ParameterSource;
  readonly innerSteps: number;
  readonly optimizer: OuterOptimizer;
  readonly schedule: Schedule;
  readonly wire: Wire;
  readonly weighting: "uniform" | "tokens";
  readonly observer: boolean;
  readonly outlierFactor: number;
  readonly onSuspect: ((suspect: Suspect) => void) | undefined;
  readonly checkpoints: Checkpoints | undefined;
  readonly alone: "train" | "wait";
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number | undefined;
  /** All that must be the same on every peer, for people to read. */
  readonly description: string;
}

const CALL = "new Diloco";
const KEYS = [
  "communicator",
  "parameters",
  "innerSteps",
  "outer",
  "schedule",
  "wire",
  "weighting",
  "observer",
  "outlierFactor",
  "onSuspect",
  "checkpoint",
  "alone",
  "signal",
  "timeoutMs",
] as const;

export function checkDilocoOptions(options: DilocoOptions): Settings {
  checkOptions(CALL, options, KEYS);
  const { communicator, parameters: source, observer = false, onSuspect, timeoutMs } = options ?? {};
  if (!(communicator instanceof Communicator)) {
    throw invalid(`communicator must be a Communicator, got ${describe(communicator)}`);
  }
  if (typeof source?.read !== "function" || typeof source.write !== "function") {
    throw invalid(`parameters must be a ParameterSource (layout, read, write), got ${describe(source)}`);
  }
  checkLayout(CALL, source.layout);
  const { data } = source;
  if (data !== undefined && !(data instanceof Float32Array && data.length === layoutLength(source.layout))) {
    throw invalid("parameters.data must be a Float32Array as long as the whole layout, or be left out");
  }
  if (typeof observer !== "boolean") throw invalid(`observer must be a boolean, got ${describe(observer)}`);
  if (onSuspect !== undefined && typeof onSuspect !== "function") {
    throw invalid(`onSuspect must be a function, got ${describe(onSuspect)}`);
  }
  if (timeoutMs !== undefined) checkInteger(CALL, "timeoutMs", timeoutMs, 1, TIMEOUT_MAX_MS);
  const innerSteps = checkInteger(CALL, "innerSteps", options.innerSteps ?? 500, 1, Number.MAX_SAFE_INTEGER);
  const optimizer = createOuterOptimizer(options.outer);
  const schedule = createSchedule(options.schedule ?? "sync", innerSteps, source.layout);
  const wire = createWire(options.wire ?? "f32");
  const weighting = checkOneOf(CALL, "weighting", options.weighting ?? "uniform", ["uniform", "tokens"]);
  return {
    communicator,
    source,
    innerSteps,
    optimizer,
    schedule,
    wire,
    weighting,
    observer,
    outlierFactor: checkNumber(CALL, "outlierFactor", options.outlierFactor ?? 10, 1, 1e9),
    onSuspect,
    checkpoints: options.checkpoint === undefined ? undefined : new Checkpoints(options.checkpoint),
    alone: checkOneOf(CALL, "alone", options.alone ?? "train", ["train", "wait"]),
    signal: checkSignal(CALL, options.signal),
    timeoutMs,
    description: [
      `${innerSteps} steps`,
      schedule.description,
      optimizer.description,
      wire.description,
      weighting,
    ].join(", "),
  };
}

export interface RunOptions {
  /** Trains one step on the parameters. Its loss counts unless it isn't finite; weighting by tokens asks for them. */
  readonly innerStep: () => StepOptions | void | Promise<StepOptions | void>;
  /** Outer steps that the group has made in the end, those before this peer joined among them. */
  readonly outerSteps: number;
}

export function checkRunOptions(options: RunOptions): RunOptions {
  const call = "diloco.run";
  checkOptions(call, options, ["innerStep", "outerSteps"]);
  if (typeof options?.innerStep !== "function") {
    const message = `${call}: innerStep must be a function, got ${describe(options?.innerStep)}.`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
  }
  checkInteger(call, "outerSteps", options.outerSteps, 0, Number.MAX_SAFE_INTEGER);
  return options;
}

function invalid(message: string): Error {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${CALL}: ${message}.`);
}
