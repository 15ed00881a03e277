/** What one step under a plan takes, part by part, and the memory that it needs. */
import { type CostModel, type ExpertShape, expertBytes } from "../planner/cost-model.js";
import { type ExpertPlan, nativeRank, type Transfer } from "../planner/plan.js";
import type { Runtime } from "./runtimes.js";

export interface StepForecast {
  readonly seconds: number;
  /** Of the slowest rank. */
  readonly computeSeconds: number;
  readonly transferSeconds: number;
  readonly crossCopySeconds: number;
  /** Of all ranks together. */
  readonly allComputeSeconds: number;
  readonly loads: readonly number[];
  readonly transfers: number;
  readonly crossRankCopies: number;
  /** By rank. */
  readonly bytes: readonly number[];
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

export function forecastStep(
  plan: ExpertPlan,
  cost: CostModel & { readonly lendSeconds: number },
  shape: ExpertShape,
  runtime: Runtime,
  nodes: readonly number[],
): StepForecast {
  const experts = plan.assignments.length;
  const nativeRanks = plan.assignments.map((_, expert) => nativeRank(expert, experts, nodes.length));
  // In strict mode there is a plan that λ doesn't let be used.
  const isApplied = plan.isApplied;
  const loads = isApplied ? plan.loadsAfter : plan.loadsBefore;
  const sent = isApplied ? plan.sendMatrix : plan.sendMatrixBefore;
  const transfers = isApplied ? plan.transfers : [];
  const { rankSeconds, stepSeconds } = isApplied ? plan.predicted : plan.predictedBefore;
  const active = loads.map(() => 0);
  for (const [expert, intervals] of plan.assignments.entries()) {
    const ranks = isApplied ? intervals.map(({ rank }) => rank) : [nativeRanks[expert] as number];
    for (const rank of intervals.length > 0 ? new Set(ranks) : [])
      active[rank] = (active[rank] as number) + 1;
  }
  const computeSeconds = loads.map(
    (load, rank) => load * cost.copySeconds + (active[rank] as number) * cost.expertSeconds,
  );
  const slowest = rankSeconds.indexOf(stepSeconds);
  const secondsOf = (end: "source" | "target"): number =>
    sum(
      transfers
        .filter((transfer) => transfer[end] === slowest)
        .map((transfer) => (isNear(transfer) ? cost.transferSeconds : cost.farTransferSeconds)),
    );
  const isNear = ({ source, target }: Transfer): boolean => nodes[source] === nodes[target];
  const transferSeconds = Math.max(secondsOf("source"), secondsOf("target"));
  const lendSeconds = transfers.length > 0 ? cost.lendSeconds : 0;
  const weightBytes = expertBytes(shape);
  const copyBytes =
    (runtime.hiddenPerCopy * shape.hiddenSize + runtime.ffnPerCopy * shape.ffnSize) * shape.elementBytes;
  return {
    seconds: stepSeconds,
    computeSeconds: computeSeconds[slowest] as number,
    transferSeconds,
    crossCopySeconds: stepSeconds - (computeSeconds[slowest] as number) - transferSeconds - lendSeconds,
    allComputeSeconds: sum(computeSeconds),
    loads,
    transfers: transfers.length,
    crossRankCopies: sum(sent.map((row, source) => sum(row) - (row[source] as number))),
    bytes: loads.map((load, rank) => {
      const own = nativeRanks.filter((native) => native === rank);
      const borrowed = transfers.filter(({ target }) => target === rank);
      return (own.length + borrowed.length) * weightBytes + load * copyBytes;
    }),
  };
}
