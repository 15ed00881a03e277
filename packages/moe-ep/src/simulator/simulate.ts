/** How long steps of expert parallelism would take on a cluster, and how much memory, by planner. */
import { checkInteger, checkNumber, checkOptions, pcclError } from "@pccl/core/base";
import { type ExpertShape, expertBytes } from "../planner/cost-model.js";
import { type PlanOptions, type Planner, planExperts } from "../planner/plan.js";
import type { Cluster } from "./clusters.js";
import { costModelOf, type Runtime } from "./runtimes.js";
import { forecastStep } from "./step-forecast.js";

export interface SimulateOptions {
  readonly shape: ExpertShape;
  readonly cluster: Cluster;
  readonly runtime: Runtime;
  /** Batches, each P rows of N: a scenario's, or a trace's. At least one. */
  readonly batches: readonly (readonly ArrayLike<number>[])[];
  /** α, m, λ; the defaults are planExperts', with the cluster's m. */
  readonly capacityFactor?: number | undefined;
  readonly minChunkCopies?: number | undefined;
  readonly minImbalance?: number | undefined;
  /** Memory for borrowed weights, on each rank. Default: no bound. */
  readonly importBudgetBytes?: number | undefined;
}

/** Means over the batches, unless something else is said. */
export interface Forecast {
  readonly planner: Planner;
  /** lla as its authors' code plans it, and as they ran it: its tokens are chosen without regard to where they are. */
  readonly strictReference: boolean;
  readonly stepSeconds: number;
  readonly speedupOverEp: number;
  /** Of the slowest rank: its experts, weights on the way, and tokens on the way. */
  readonly computeSeconds: number;
  readonly transferSeconds: number;
  readonly crossCopySeconds: number;
  /** Token-copies of the most loaded rank, and of the mean rank. */
  readonly maxLoad: number;
  readonly meanLoad: number;
  readonly transfers: number;
  readonly crossRankCopies: number;
  /** The largest over the batches, by rank: its own experts, borrowed ones, and the copies that it computes. */
  readonly peakBytesPerRank: readonly number[];
}

export interface Simulation {
  /** What no plan can be below: all ranks compute all the time, and nothing travels. */
  readonly lowerBoundSeconds: number;
  /** ep, lla as in the paper (where the cluster is one node and experts divide evenly), lla, auto. */
  readonly forecasts: readonly Forecast[];
}

const CALL = "simulate";
const VARIANTS = [
  { planner: "ep", strictReference: false },
  { planner: "lla", strictReference: true },
  { planner: "lla", strictReference: false },
  { planner: "auto", strictReference: false },
] as const;

/**
 * Pure arithmetic: planExperts' own predictions, with the hardware's rates and the runtime's overheads. Nothing is
 * assumed to overlap. Throws ERR_PCCL_INVALID_ARGUMENT or ERR_PCCL_UNKNOWN_OPTION.
 */
export function simulate(options: SimulateOptions): Simulation {
  checkOptions(CALL, options, [
    "shape",
    "cluster",
    "runtime",
    "batches",
    "capacityFactor",
    "minChunkCopies",
    "minImbalance",
    "importBudgetBytes",
  ]);
  const { cluster, runtime, batches } = options;
  const { shape } = options;
  for (const key of ["expertSeconds", "lendSeconds", "hiddenPerCopy", "ffnPerCopy"] as const) {
    checkNumber(CALL, `runtime.${key}`, runtime[key], 0, 1e6);
  }
  checkInteger(CALL, "the number of batches", batches.length, 1, 1e9);
  const costModel = costModelOf(shape, cluster, runtime);
  for (const [index, { length }] of batches.entries()) {
    if (length !== cluster.ranks) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${CALL}: batch ${index} is of ${length} ranks, and the cluster has ${cluster.ranks}`,
      );
    }
  }
  const isOneNode = new Set(cluster.nodes).size === 1;
  const isEven = batches.every((counts) => (counts[0] as ArrayLike<number>).length % cluster.ranks === 0);
  const settings: PlanOptions = {
    costModel,
    capacityFactor: options.capacityFactor,
    minChunkCopies: options.minChunkCopies ?? cluster.minChunkCopies,
    minImbalance: options.minImbalance,
  };
  const placed: PlanOptions = {
    ...settings,
    nodes: cluster.nodes,
    importBudgetBytes: options.importBudgetBytes,
    expertBytes: expertBytes(shape),
  };
  const perVariant = VARIANTS.filter(({ strictReference }) => !strictReference || (isOneNode && isEven)).map(
    (variant) => ({
      variant,
      steps: batches.map((counts) => {
        const plan = planExperts(counts, { ...(variant.strictReference ? settings : placed), ...variant });
        return forecastStep(plan, costModel, shape, runtime, cluster.nodes);
      }),
    }),
  );
  const meanOf = <T>(values: readonly T[], of: (value: T) => number): number =>
    values.reduce((sum, value) => sum + of(value), 0) / values.length;
  const ep = perVariant[0] as (typeof perVariant)[number];
  const epSeconds = meanOf(ep.steps, ({ seconds }) => seconds);
  return {
    lowerBoundSeconds: meanOf(ep.steps, ({ allComputeSeconds }) => allComputeSeconds / cluster.ranks),
    forecasts: perVariant.map(({ variant, steps }) => {
      const stepSeconds = meanOf(steps, ({ seconds }) => seconds);
      return {
        ...variant,
        stepSeconds,
        speedupOverEp: stepSeconds > 0 ? epSeconds / stepSeconds : 1,
        computeSeconds: meanOf(steps, ({ computeSeconds }) => computeSeconds),
        transferSeconds: meanOf(steps, ({ transferSeconds }) => transferSeconds),
        crossCopySeconds: meanOf(steps, ({ crossCopySeconds }) => crossCopySeconds),
        maxLoad: meanOf(steps, ({ loads }) => Math.max(...loads)),
        meanLoad: meanOf(steps, ({ loads }) => meanOf(loads, (load) => load)),
        transfers: meanOf(steps, ({ transfers }) => transfers),
        crossRankCopies: meanOf(steps, ({ crossRankCopies }) => crossRankCopies),
        peakBytesPerRank: cluster.nodes.map((_, rank) =>
          steps.reduce((peak, { bytes }) => Math.max(peak, bytes[rank] as number), 0),
        ),
      };
    }),
  };
}
