/** What each rank contributes to a reduction, and what comes out, exactly. */
import type { ReduceOp } from "@pccl/bindings";
import type { DType } from "../peer/tensor.js";
import { integerMax, Pattern, scatter } from "./pattern.js";

export const REDUCE_OPS: readonly ReduceOp[] = ["sum", "avg", "max", "min", "prod"];

/** Seeds of what all ranks know; ranks are seeds of their own numbers. */
const BASE_SEED = 1_000_003;
const OWNER_SEED = 1_000_033;
/** Large factors would say no more. */
const FACTOR_MAX = 100;

/** So that sums are numbers that every quantized format has room for; of up to 64 peers. */
const QUANTIZED_MAX = 2 ** 15;

/** What contributions and results are made of. */
export interface Reduction {
  readonly dtype: DType;
  readonly op: ReduceOp;
  readonly world: number;
  readonly isQuantized: boolean;
}

/**
 * An integer for each rank and position, such that the results of all ops, and what rings and trees have in between,
 * are integers that the dtype has.
 */
function contribution(reduction: Reduction, rank: number, position: number): number {
  const { op, world } = reduction;
  const max = valueMax(reduction);
  const isOwner = rank === scatter(OWNER_SEED, position, world);
  switch (op) {
    case "sum":
      return scatter(rank, position, Math.floor(max / world) + 1);
    case "avg":
      // The sum is a multiple of the number of ranks.
      return scatter(BASE_SEED, position, Math.floor(max / world)) + (isOwner ? world : 0);
    case "prod":
      return isOwner ? 2 + scatter(BASE_SEED, position, Math.min(max, FACTOR_MAX) - 1) : 1;
    case "max":
    case "min":
      return scatter(rank, position, max + 1);
  }
}

const COMBINE: Readonly<Record<ReduceOp, (a: number, b: number) => number>> = {
  sum: (a, b) => a + b,
  avg: (a, b) => a + b,
  max: (a, b) => Math.max(a, b),
  min: (a, b) => Math.min(a, b),
  prod: (a, b) => a * b,
};

function valueMax({ dtype, isQuantized }: Reduction): number {
  return isQuantized ? Math.min(QUANTIZED_MAX, integerMax(dtype)) : integerMax(dtype);
}

export function contributionOf(reduction: Reduction, rank: number): Pattern {
  return new Pattern(reduction.dtype, (position) => contribution(reduction, rank, position));
}

/** Of all ranks' contributions. */
export function reductionOf(reduction: Reduction): Pattern {
  const { dtype, op, world } = reduction;
  return new Pattern(dtype, (position) => {
    const all = Array.from({ length: world }, (_, rank) => contribution(reduction, rank, position));
    const combined = all.reduce(COMBINE[op]);
    return op === "avg" ? combined / world : combined;
  });
}

/** The most that a contribution, and a result, can be. */
export function extremesOf(reduction: Reduction): { readonly part: number; readonly result: number } {
  const { op, world } = reduction;
  const max = valueMax(reduction);
  if (op === "sum") return { part: Math.floor(max / world), result: max };
  if (op === "avg") return { part: Math.floor(max / world) + world, result: Math.floor(max / world) + 1 };
  return { part: max, result: max };
}

/** Values that an op leaves as they are, however often it is applied in place. */
export function restingValue(dtype: DType, op: ReduceOp): Pattern {
  return new Pattern(dtype, () => (op === "prod" ? 1 : 0));
}
