/**
 * Planner cases in the field names of the LLEP reference's data: `plan` of one and its outputs, so that plans can be
 * compared with the reference's, and with other planners', case by case.
 */
import { checkInteger, checkNumber, describe, pcclError } from "@pccl/core/base";
import type { CostModel } from "./cost-model.js";
import { type ExpertPlan, type Planner, planExperts } from "./plan.js";

/** The inputs of a case; whatever else it holds is ignored. */
export interface LlepCase {
  readonly name?: string | undefined;
  readonly world_size: number;
  readonly num_experts: number;
  readonly counts_per_rank: readonly (readonly number[])[];
  /** α; default 1. */
  readonly alpha?: number | undefined;
  /** m; default 64. */
  readonly min_tokens_per_gemm?: number | undefined;
  /** λ; default 1.3. */
  readonly lam?: number | undefined;
}

export interface LlepCaseOptions {
  readonly planner: Planner;
  readonly strictReference: boolean;
  readonly costModel: CostModel;
}

export interface LlepOutputs {
  readonly name?: string;
  readonly planner: Planner;
  readonly total: number;
  readonly max_tokens_per_gpu: number;
  readonly imbalance_ratio_gpu: number;
  readonly imbalance_ratio_expert: number;
  readonly use_lpt: boolean;
  readonly order: readonly number[];
  readonly plan: Readonly<Record<string, readonly (readonly [number, number, number])[]>>;
  readonly weight_transfers: readonly (readonly [number, number, number, number, number])[];
  readonly weights_to_send: readonly (readonly (readonly [number, number])[])[];
  readonly weights_to_receive: readonly (readonly (readonly [number, number])[])[];
  readonly loads_before: readonly number[];
  readonly loads_after: readonly number[];
  readonly effective_loads: readonly number[];
  readonly send_matrix_ep: readonly (readonly number[])[];
  readonly send_matrix_llep: readonly (readonly number[])[];
  readonly stats: Readonly<Record<string, number>>;
  readonly predicted_step_ep: number;
  readonly predicted_step: number;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const largest = (values: readonly number[]): number =>
  values.reduce((most, value) => Math.max(most, value), 0);

/** A case, or each case of a file's `{"cases": […]}`. Throws PcclError on anything else. */
export function parseLlepCases(file: string, json: unknown): readonly LlepCase[] {
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  if (!isObject(json)) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${file}: must hold an object, got ${describe(json)}`);
  }
  const cases = Array.isArray(json.cases) ? (json.cases as unknown[]) : [json];
  return cases.map((value, index) => {
    if (!isObject(value)) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${file}: case ${index} must be an object`);
    }
    const call = `${file}: case ${typeof value.name === "string" ? value.name : index}`;
    const ranks = checkInteger(call, "world_size", value.world_size, 1, 4096);
    const experts = checkInteger(call, "num_experts", value.num_experts, 1, 65_536);
    const counts = value.counts_per_rank;
    const fits =
      Array.isArray(counts) &&
      counts.length === ranks &&
      counts.every((row) => Array.isArray(row) && row.length === experts);
    if (!fits) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: counts_per_rank must be ${ranks} rows of ${experts} numbers`,
      );
    }
    if (value.alpha !== undefined) checkNumber(call, "alpha", value.alpha, 1e-6, 1e6);
    if (value.min_tokens_per_gemm !== undefined) {
      checkInteger(call, "min_tokens_per_gemm", value.min_tokens_per_gemm, 1, 2 ** 53 - 1);
    }
    if (value.lam !== undefined) checkNumber(call, "lam", value.lam, -1e6, 1e6);
    return { ...value, name: typeof value.name === "string" ? value.name : undefined } as unknown as LlepCase;
  });
}

/** Plans a case and gives the result in the reference's fields. */
export function planLlepCase(input: LlepCase, options: LlepCaseOptions): LlepOutputs {
  const plan = planExperts(input.counts_per_rank, {
    ...options,
    capacityFactor: input.alpha,
    minChunkCopies: input.min_tokens_per_gemm,
    minImbalance: input.lam,
  });
  const { world_size: ranks } = input;
  const expertCounts = plan.assignments.map((intervals) => intervals.at(-1)?.end ?? 0);
  const total = sum(expertCounts);
  const mean = Math.floor(total / ranks);
  const capacity = Math.max(1, mean > 0 ? Math.trunc((input.alpha ?? 1) * mean) : total);
  const order = expertCounts
    .map((count, expert) => ({ count, expert }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count || a.expert - b.expert)
    .map(({ expert }) => expert);
  const byRank = <T>(pairs: readonly { readonly rank: number; readonly value: T }[]): T[][] =>
    Array.from({ length: ranks }, (_, rank) =>
      pairs.filter((pair) => pair.rank === rank).map((p) => p.value),
    );
  return {
    ...(input.name !== undefined && { name: input.name }),
    planner: options.planner,
    total,
    max_tokens_per_gpu: capacity,
    imbalance_ratio_gpu:
      total === 0
        ? 1
        : Math.fround(
            Math.fround(largest(plan.loadsBefore)) / Math.fround(Math.fround(total) / Math.fround(ranks)),
          ),
    imbalance_ratio_expert: total === 0 ? 1 : largest(expertCounts) / (total / expertCounts.length),
    use_lpt: plan.isApplied,
    order,
    plan: Object.fromEntries(
      order.map((expert) => [
        String(expert),
        (plan.assignments[expert] ?? []).map(({ rank, start, end }) => [rank, start, end] as const),
      ]),
    ),
    weight_transfers: weightTransfers(plan, expertCounts),
    weights_to_send: byRank(
      plan.transfers.map(({ expert, source, target }) => ({
        rank: source,
        value: [expert, target] as const,
      })),
    ),
    weights_to_receive: byRank(
      plan.transfers.map(({ expert, source, target }) => ({
        rank: target,
        value: [expert, source] as const,
      })),
    ),
    loads_before: plan.loadsBefore,
    loads_after: plan.loadsAfter,
    effective_loads: plan.isApplied ? plan.loadsAfter : plan.loadsBefore,
    send_matrix_ep: plan.sendMatrixBefore,
    send_matrix_llep: plan.sendMatrix,
    stats: statsOf(input, plan, expertCounts, capacity),
    predicted_step_ep: plan.predictedBefore.stepSeconds,
    predicted_step: plan.predicted.stepSeconds,
  };
}

/**
 * [expert, source, target, start, end], where the expert's copies are counted in the order in which they were given
 * away: the native rank's first, then each loan's. So `end - start` is what a loan is for, also where its copies lie
 * in several intervals.
 */
function weightTransfers(
  plan: ExpertPlan,
  expertCounts: readonly number[],
): (readonly [number, number, number, number, number])[] {
  const next = [...expertCounts];
  for (const { expert, copies } of plan.transfers) next[expert] = (next[expert] ?? 0) - copies;
  return plan.transfers.map(({ expert, source, target, copies }) => {
    const start = next[expert] ?? 0;
    next[expert] = start + copies;
    return [expert, source, target, start, start + copies] as const;
  });
}

function statsOf(
  input: LlepCase,
  plan: ExpertPlan,
  expertCounts: readonly number[],
  capacity: number,
): Record<string, number> {
  const { world_size: ranks, counts_per_rank: counts } = input;
  const chunkMin = input.min_tokens_per_gemm ?? 64;
  const total = sum(expertCounts);
  const pairs = new Set(plan.transfers.map(({ expert, target }) => `${expert} ${target}`));
  const distinct = (end: "source" | "target"): number =>
    largest(
      Array.from({ length: ranks }, (_, rank) => {
        const of = plan.transfers.filter((transfer) => transfer[end] === rank);
        return new Set(of.map(({ expert, target }) => `${expert} ${target}`)).size;
      }),
    );
  // The parts of each expert that is cut into several.
  const parts = expertCounts.map((count, expert) => {
    const lent = plan.transfers.filter((transfer) => transfer.expert === expert).map(({ copies }) => copies);
    return [count - sum(lent), ...lent].filter((copies) => copies > 0);
  });
  const chunks = parts.filter(({ length }) => length > 1).flat();
  const isSmall = (copies: number): boolean => copies < chunkMin;
  const crossing = (matrix: readonly (readonly number[])[]): number =>
    total - sum(matrix.map((row, rank) => row[rank] ?? 0));
  const local = plan.assignments.map((intervals, expert) => {
    const shares = new Map<number, number>();
    for (const { rank, start, end } of intervals) shares.set(rank, (shares.get(rank) ?? 0) + end - start);
    return sum([...shares].map(([rank, copies]) => Math.min(copies, counts[rank]?.[expert] ?? 0)));
  });
  return {
    max_before: largest(plan.loadsBefore),
    max_after: largest(plan.loadsAfter),
    ideal: Math.ceil(total / ranks),
    n_transfers: plan.transfers.length,
    n_unique_transfers: pairs.size,
    duplicate_transfers: plan.transfers.length - pairs.size,
    small_foreign_chunks: plan.transfers.filter(({ copies }) => isSmall(copies)).length,
    small_chunks: chunks.filter(isSmall).length,
    over_capacity_ranks: plan.loadsAfter.filter((load) => load > capacity).length,
    max_imports: distinct("target"),
    max_exports: distinct("source"),
    cross_rank_tokens_ep: crossing(plan.sendMatrixBefore),
    cross_rank_tokens_llep: crossing(plan.sendMatrix),
    cross_rank_tokens_best_interval: total - sum(local),
  };
}
