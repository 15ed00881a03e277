/** Steps of a layer on real processes of this host, under several planners in turn. */
import { runOnRanks } from "../launch/run-job.js";
import type { Planner } from "../planner/plan.js";
import type { BenchJob, BenchMessage, BenchStep } from "./messages.js";

export interface BenchResult {
  readonly planner: Planner;
  readonly scenario: string;
  readonly world: number;
  /** Of the slowest rank, from when all were ready to its output. */
  readonly medianSeconds: number;
  /** The median over rounds of EP's time over this planner's in the same round. */
  readonly speedupOverEp: number;
  /** Token-copies of a rank, as computed. */
  readonly maxLoad: number;
  readonly meanLoad: number;
  /** No plan can be faster than EP by more: EP's largest load over the mean. */
  readonly imbalanceBound: number;
  readonly peakBytesPerRank: readonly number[];
  /** Token-copies computed on another rank than their token's. */
  readonly tokensCrossRank: number;
  /** Of borrowed experts' weights: those that were sent, and all, also those that were read where they lie. */
  readonly weightBytesMoved: number;
  readonly weightBytesBorrowed: number;
  readonly bitIdenticalToEp: boolean;
  /**
   * CPU time of the busiest rank's process, all threads, and EP's over it: what counts when there are more ranks than
   * cores.
   */
  readonly medianCpuSeconds: number;
  readonly cpuSpeedupOverEp: number;
}

/** `job.planners` has to hold "ep". Rejects if a rank fails. */
export async function bench(job: BenchJob, world: number, signal: AbortSignal): Promise<BenchResult[]> {
  const told = new Map<Planner, BenchMessage[]>(job.planners.map((planner) => [planner, []]));
  const program = new URL("./rank.js", import.meta.url);
  await runOnRanks<BenchMessage>(program, job, { ranks: world, signal }, (rank, message) => {
    (told.get(message.planner) as BenchMessage[])[rank] = message;
  });
  const ep = told.get("ep") as BenchMessage[];
  return job.planners.map((planner) => ({
    planner,
    scenario: job.scenario,
    world,
    ...summarize(told.get(planner) as BenchMessage[], ep),
  }));
}

function summarize(
  ranks: readonly BenchMessage[],
  ep: readonly BenchMessage[],
): Omit<BenchResult, "planner" | "scenario" | "world"> {
  const seconds = slowest(ranks, (step) => step.seconds);
  const cpuSeconds = slowest(ranks, (step) => step.cpuSeconds);
  const speedup = (own: readonly number[], quantity: (step: BenchStep) => number): number =>
    median(slowest(ep, quantity).map((time, i) => time / (own[i] as number)));
  const last = ranks.map(({ steps }) => (steps.at(-1) as BenchStep).statistics);
  const [{ loadsBefore, loadsAfter, copiesCrossRank }] = last as [(typeof last)[number]];
  const mean = loadsAfter.reduce((sum, load) => sum + load, 0) / loadsAfter.length;
  const total = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);
  return {
    medianSeconds: median(seconds),
    speedupOverEp: speedup(seconds, (step) => step.seconds),
    maxLoad: Math.max(...loadsAfter),
    meanLoad: mean,
    imbalanceBound: mean === 0 ? 1 : Math.max(...loadsBefore) / mean,
    peakBytesPerRank: ranks.map(({ steps }) => Math.max(...steps.map((step) => step.statistics.peakBytes))),
    tokensCrossRank: copiesCrossRank,
    // Each byte is counted by who sends it and by who gets it.
    weightBytesMoved: total(last.map((one) => one.weightBytesMoved)) / 2,
    weightBytesBorrowed: total(last.map((one) => one.weightBytesBorrowed)),
    bitIdenticalToEp: ranks.every(({ outputHash }, rank) => outputHash === ep[rank]?.outputHash),
    medianCpuSeconds: median(cpuSeconds),
    cpuSpeedupOverEp: speedup(cpuSeconds, (step) => step.cpuSeconds),
  };
}

/** By round, that of the rank that took longest. */
function slowest(ranks: readonly BenchMessage[], quantity: (step: BenchStep) => number): number[] {
  const [{ steps }] = ranks as [BenchMessage];
  return steps.map((_, round) => Math.max(...ranks.map((rank) => quantity(rank.steps[round] as BenchStep))));
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const at = (i: number): number => sorted[i] as number;
  return Number.isInteger(middle) ? (at(middle - 1) + at(middle)) / 2 : at(Math.floor(middle));
}
