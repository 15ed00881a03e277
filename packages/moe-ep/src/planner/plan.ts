/** Which rank computes which tokens of which expert in this step, and whose weights must travel for that. */
import type { PlanRequest, RawPlan } from "@pccl/bindings";
import {
  checkInteger,
  checkNumber,
  checkOneOf,
  checkOptions,
  describe,
  type PcclError,
  pcclError,
} from "@pccl/core/base";
import { type CostModel, DEFAULT_COST_MODEL } from "./cost-model.js";
import { callNative } from "../base/native.js";

export const PLANNERS = ["ep", "lla", "auto", "eplb"] as const;

/**
 * ep: every expert on its native rank. lla: the greedy of the LLEP paper. auto: the plan with the lowest predicted
 * step time, never above ep's. eplb: replication by past statistics, for comparison.
 */
export type Planner = (typeof PLANNERS)[number];

export interface PlanOptions {
  /** Default: "auto". */
  readonly planner?: Planner | undefined;
  /** lla's α: a rank computes at most this times its fair share, unless loans get too small. Default 1. */
  readonly capacityFactor?: number | undefined;
  /** The paper's m: no loan has fewer token-copies. Default 64, a CPU's; the paper uses 1024 on GPUs. */
  readonly minChunkCopies?: number | undefined;
  /** lla's λ: lends nothing while the most loaded rank is below this times the mean; 0 always plans. Default 1.3. */
  readonly minImbalance?: number | undefined;
  /** lla exactly as its authors' code plans, defects included: for comparison. Default false. */
  readonly strictReference?: boolean | undefined;
  /** The rank that holds each expert's weights. Default: equal blocks of consecutive experts, as near as may be. */
  readonly nativeRanks?: readonly number[] | undefined;
  /** Relative speed of each rank. Default: all alike. */
  readonly rankSpeeds?: readonly number[] | undefined;
  /** The node that each rank is on, as numbers; copies and weights stay within nodes where they can. Default: one. */
  readonly nodes?: readonly number[] | undefined;
  /** Memory that ranks may spend on borrowed weights, for all or each; needs expertBytes. Default: no bound. */
  readonly importBudgetBytes?: number | readonly number[] | undefined;
  /** Bytes of one expert's weights. */
  readonly expertBytes?: number | undefined;
  /** What auto minimizes and what predictions are made of. Default: DEFAULT_COST_MODEL. */
  readonly costModel?: CostModel | undefined;
  readonly eplb?: EplbOptions | undefined;
}

export interface EplbOptions {
  /** Past loads of the experts. Default: this batch's own. */
  readonly statistics?: readonly number[] | undefined;
  /** Replicas beyond one per expert. With the experts they divide by the ranks. Default: the fewest, at least one. */
  readonly redundantExperts?: number | undefined;
}

/**
 * Positions [start, end) of an expert are computed by `rank`. An expert's token-copies are numbered by source rank,
 * then by their order on that rank.
 */
export interface Interval {
  readonly rank: number;
  readonly start: number;
  readonly end: number;
}

/** `target` borrows the expert's weights from `source` for `copies` token-copies. */
export interface Transfer {
  readonly expert: number;
  readonly source: number;
  readonly target: number;
  readonly copies: number;
}

export interface Prediction {
  readonly rankSeconds: readonly number[];
  /** The slowest rank's. */
  readonly stepSeconds: number;
}

export interface ExpertPlan {
  readonly planner: Planner;
  /** Whether the plan differs from plain EP; in strict mode, whether λ lets it be used. */
  readonly isApplied: boolean;
  /** By expert: intervals that cover its positions in order; empty for an expert without copies. */
  readonly assignments: readonly (readonly Interval[])[];
  /** In the order in which they were decided. */
  readonly transfers: readonly Transfer[];
  /** Token-copies by rank, under plain EP and under the plan. */
  readonly loadsBefore: readonly number[];
  readonly loadsAfter: readonly number[];
  /** Token-copies by source rank and computing rank, under plain EP and under the plan. */
  readonly sendMatrixBefore: readonly (readonly number[])[];
  readonly sendMatrix: readonly (readonly number[])[];
  /** Under plain EP and under the plan, by the cost model. */
  readonly predictedBefore: Prediction;
  readonly predicted: Prediction;
}

const CALL = "planExperts";
const OPTION_KEYS = [
  "planner",
  "capacityFactor",
  "minChunkCopies",
  "minImbalance",
  "strictReference",
  "nativeRanks",
  "rankSpeeds",
  "nodes",
  "importBudgetBytes",
  "expertBytes",
  "costModel",
  "eplb",
];
const COST_KEYS = [
  "copySeconds",
  "expertSeconds",
  "transferSeconds",
  "farTransferSeconds",
  "crossCopySeconds",
  "farCrossCopySeconds",
  "lendSeconds",
] as const;
const UINT32_MAX = 2 ** 32 - 1;

function invalid(message: string): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${CALL}: ${message}`);
}

/**
 * Plans one step of expert parallelism. `counts[r][e]` is how many token-copies (token, slot) of rank r chose expert
 * e; every rank that calls it with the same numbers gets the same plan. Takes microseconds. Throws PcclError with
 * ERR_PCCL_INVALID_ARGUMENT or ERR_PCCL_UNKNOWN_OPTION.
 */
export function planExperts(counts: readonly ArrayLike<number>[], options: PlanOptions = {}): ExpertPlan {
  const request = requestOf(counts, options);
  let raw: RawPlan;
  try {
    raw = callNative((addon) => addon.planExperts(request));
  } catch (error) {
    for (const [rank, row] of counts.entries()) checkRow(rank, row);
    throw error;
  }
  return planOf(request, raw);
}

function requestOf(counts: readonly ArrayLike<number>[], options: PlanOptions): PlanRequest {
  checkOptions(CALL, options, OPTION_KEYS);
  const planner = checkOneOf(CALL, "planner", options.planner ?? "auto", PLANNERS);
  const matrix = flatten(counts);
  const ranks = counts.length;
  const experts = matrix.length / ranks;
  const strictReference = options.strictReference ?? false;
  if (typeof strictReference !== "boolean") {
    throw invalid(`strictReference must be a boolean, got ${describe(strictReference)}`);
  }
  if (strictReference) {
    for (const key of ["nativeRanks", "rankSpeeds", "nodes", "importBudgetBytes"] as const) {
      if (options[key] !== undefined)
        throw invalid(`strictReference knows no ${key}: the reference has none`);
    }
  }
  const eplb = eplbOf(options.eplb, planner, ranks, experts, matrix);
  return {
    planner,
    ranks,
    experts,
    counts: matrix,
    owners:
      options.nativeRanks === undefined
        ? new Float64Array(experts).map((_, expert) => nativeRank(expert, experts, ranks))
        : numbersOf("nativeRanks", options.nativeRanks, experts),
    speeds:
      options.rankSpeeds === undefined
        ? new Float64Array(ranks).fill(1)
        : numbersOf("rankSpeeds", options.rankSpeeds, ranks),
    nodes: options.nodes === undefined ? new Float64Array(ranks) : numbersOf("nodes", options.nodes, ranks),
    importsMax: importsMaxOf(options, ranks, experts),
    capacityFactor: checkNumber(CALL, "capacityFactor", options.capacityFactor ?? 1, 1e-6, 1e6),
    minChunkCopies: checkInteger(CALL, "minChunkCopies", options.minChunkCopies ?? 64, 1, 2 ** 53 - 1),
    minImbalance: checkNumber(CALL, "minImbalance", options.minImbalance ?? 1.3, -1e6, 1e6),
    strictReference,
    costModel: costModelOf(options.costModel),
    ...eplb,
  };
}

/** Where an expert lives by default: in blocks whose sizes differ by one at most, the larger ones spread evenly. */
export function nativeRank(expert: number, experts: number, ranks: number): number {
  return Math.floor(((expert + 1) * ranks - 1) / experts);
}

/**
 * All rows in one array, valid until the next call: new memory of this size would take longer than the planning.
 * Typed arrays are copied as they are; native code looks at each number, and checkRow says which one is wrong.
 */
function flatten(counts: readonly ArrayLike<number>[]): Float64Array {
  if (!Array.isArray(counts) || counts.length === 0) {
    throw invalid(`counts must be an array with a row for each rank, got ${describe(counts)}`);
  }
  const rows = counts as readonly unknown[];
  const experts = (rows[0] as ArrayLike<number> | undefined)?.length ?? 0;
  const matrix = scratchOf(rows.length * experts);
  for (const [rank, row] of rows.entries()) {
    if (!(Array.isArray(row) || (ArrayBuffer.isView(row) && !(row instanceof DataView)))) {
      throw invalid(`counts[${rank}] must be an array of numbers, got ${describe(row)}`);
    }
    const values = row as ArrayLike<number>;
    if (values.length !== experts) {
      throw invalid(`counts[${rank}] has ${values.length} experts, and counts[0] has ${experts}`);
    }
    if (Array.isArray(row) || typeof values[0] !== "number") checkRow(rank, values);
    matrix.set(values, rank * experts);
  }
  if (experts === 0) throw invalid("counts has rows without experts");
  return matrix;
}

function checkRow(rank: number, values: ArrayLike<unknown>): void {
  for (let expert = 0; expert < values.length; expert++) {
    const value = values[expert];
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
      throw invalid(`counts[${rank}][${expert}] must be an integer of 0 or more, got ${describe(value)}`);
    }
  }
}

const SCRATCH_MAX = 2 ** 20;
let scratch = new Float64Array(0);

function scratchOf(count: number): Float64Array {
  if (count > SCRATCH_MAX) return new Float64Array(count);
  if (scratch.length < count) scratch = new Float64Array(count);
  return scratch.subarray(0, count);
}

function numbersOf(name: string, values: unknown, length: number): Float64Array {
  if (!Array.isArray(values) || values.length !== length) {
    const got = Array.isArray(values) ? `${values.length}` : describe(values);
    throw invalid(`${name} must be an array of ${length} numbers, got ${got}`);
  }
  return Float64Array.from(values, (value: unknown, index) =>
    checkNumber(CALL, `${name}[${index}]`, value, 0, Number.MAX_VALUE),
  );
}

function importsMaxOf(options: PlanOptions, ranks: number, experts: number): Float64Array {
  const budget = options.importBudgetBytes;
  if (budget === undefined) {
    if (options.expertBytes !== undefined) checkNumber(CALL, "expertBytes", options.expertBytes, 1, 1e18);
    return new Float64Array(ranks).fill(experts);
  }
  if (options.expertBytes === undefined) throw invalid("importBudgetBytes needs expertBytes");
  const bytes = checkNumber(CALL, "expertBytes", options.expertBytes, 1, 1e18);
  const budgets =
    typeof budget === "number"
      ? new Float64Array(ranks).fill(checkNumber(CALL, "importBudgetBytes", budget, 0, Number.MAX_VALUE))
      : numbersOf("importBudgetBytes", budget, ranks);
  return budgets.map((limit) => Math.min(UINT32_MAX, Math.floor(limit / bytes)));
}

function costModelOf(model: CostModel = DEFAULT_COST_MODEL): PlanRequest["costModel"] {
  checkOptions(CALL, model, COST_KEYS);
  const complete = { ...model, lendSeconds: model.lendSeconds ?? 0 };
  for (const key of COST_KEYS) checkNumber(CALL, `costModel.${key}`, complete[key], 0, 1e15);
  return complete;
}

function eplbOf(
  options: EplbOptions | undefined,
  planner: Planner,
  ranks: number,
  experts: number,
  matrix: Float64Array,
): { readonly statistics: Float64Array; readonly redundantExperts: number } {
  if (planner !== "eplb") {
    if (options !== undefined) throw invalid(`eplb's options need planner "eplb", got "${planner}"`);
    return { statistics: new Float64Array(0), redundantExperts: 0 };
  }
  checkOptions(CALL, options, ["statistics", "redundantExperts"]);
  let statistics: Float64Array = new Float64Array(experts);
  if (options?.statistics === undefined) {
    for (let i = 0; i < matrix.length; i++)
      statistics[i % experts] = (statistics[i % experts] ?? 0) + (matrix[i] ?? 0);
  } else {
    statistics = numbersOf("eplb.statistics", options.statistics, experts);
  }
  const fewest = ranks - (experts % ranks);
  const redundantExperts = options?.redundantExperts ?? fewest;
  return {
    statistics,
    redundantExperts: checkInteger(CALL, "eplb.redundantExperts", redundantExperts, 0, 65_536),
  };
}

/** Array.from takes ten times as long for it. */
function toArray(values: Float64Array, start = 0, end: number = values.length): number[] {
  const array: number[] = [];
  for (let i = start; i < end; i++) array.push(values[i] as number);
  return array;
}

function planOf({ planner, ranks, experts, owners }: PlanRequest, raw: RawPlan): ExpertPlan {
  const at = (values: Float64Array, index: number): number => values[index] as number;
  const matrix = (values: Float64Array): number[][] => {
    const rows: number[][] = [];
    for (let rank = 0; rank < ranks; rank++) rows.push(toArray(values, rank * ranks, (rank + 1) * ranks));
    return rows;
  };
  const prediction = (seconds: Float64Array): Prediction => ({
    rankSeconds: toArray(seconds),
    stepSeconds: seconds.reduce((slowest, rank) => Math.max(slowest, rank), 0),
  });
  const assignments: Interval[][] = [];
  for (let expert = 0; expert < experts; expert++) {
    const intervals: Interval[] = [];
    for (let i = at(raw.firstInterval, expert); i < at(raw.firstInterval, expert + 1); i++) {
      intervals.push({
        rank: at(raw.intervalRanks, i),
        start: at(raw.intervalStarts, i),
        end: at(raw.intervalEnds, i),
      });
    }
    assignments.push(intervals);
  }
  return {
    planner,
    isApplied: raw.isApplied,
    assignments,
    transfers: Array.from(raw.loanExperts, (expert, i) => ({
      expert,
      source: at(owners, expert),
      target: at(raw.loanTargets, i),
      copies: at(raw.loanCopies, i),
    })),
    loadsBefore: toArray(raw.loadsBefore),
    loadsAfter: toArray(raw.loadsAfter),
    sendMatrixBefore: matrix(raw.sentBefore),
    sendMatrix: matrix(raw.sentAfter),
    predictedBefore: prediction(raw.secondsBefore),
    predicted: prediction(raw.secondsAfter),
  };
}
