/**
 * How long planExperts takes with everything that JavaScript adds, for shapes of known models: batches with a few hot
 * experts. native/bench/planner_bench.cc measures the planners alone.
 *
 *   node bench/dist/plan-experts.js [--seconds 1] [--out FILE]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { costModelInCopies, type Planner, planExperts } from "@pccl/moe-ep";
import { Bench } from "tinybench";
import { describeMachine } from "./machine.js";

interface Measurement {
  readonly experts: number;
  readonly ranks: number;
  readonly planner: Planner;
  readonly medianUs: number;
  readonly p99Us: number;
  readonly transfers: number;
  readonly maxLoadBefore: number;
  readonly maxLoad: number;
}

const SHAPES = [
  { experts: 32, ranks: 8 },
  { experts: 128, ranks: 8 },
  { experts: 384, ranks: 8 },
  { experts: 256, ranks: 32 },
  { experts: 384, ranks: 64 },
];

/** 8192 tokens per rank with 8 slots each; expert e gets a part that falls with its rank in a scrambled order. */
function makeCounts(experts: number, ranks: number): number[][] {
  const weights = Array.from({ length: experts }, (_, expert) => 1 / (1 + ((expert * 7919) % experts)));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return Array.from({ length: ranks }, (_, rank) =>
    weights.map((weight, expert) =>
      Math.round(((8192 * 8 * weight) / sum) * (0.5 + ((rank * 31 + expert * 17) % 64) / 64)),
    ),
  );
}

function measure(seconds: number): Measurement[] {
  const results: Measurement[] = [];
  for (const { experts, ranks } of SHAPES) {
    const counts = makeCounts(experts, ranks);
    for (const planner of ["lla", "auto"] as const) {
      const options = { planner, costModel: costModelInCopies(1714) };
      const plan = planExperts(counts, options);
      const bench = new Bench({ time: seconds * 1_000, retainSamples: true });
      bench.add("planExperts", () => {
        planExperts(counts, options);
      });
      bench.runSync();
      const result = bench.tasks[0]?.result;
      if (result?.state !== "completed") throw new Error(`the benchmark did not complete: ${result?.state}`);
      results.push({
        experts,
        ranks,
        planner,
        medianUs: Math.round(result.latency.p50 * 1e4) / 10,
        p99Us: Math.round(result.latency.p99 * 1e4) / 10,
        transfers: plan.transfers.length,
        maxLoadBefore: Math.max(...plan.loadsBefore),
        maxLoad: Math.max(...plan.loadsAfter),
      });
    }
  }
  return results;
}

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "1" }, out: { type: "string" } },
});
const seconds = Number(values.seconds);
if (!(seconds > 0 && seconds <= 600)) throw new Error("--seconds must be above 0 and at most 600");
const measurements = measure(seconds);
console.table(measurements);
if (values.out !== undefined) {
  mkdirSync(dirname(values.out), { recursive: true });
  writeFileSync(values.out, `${JSON.stringify({ machine: describeMachine(), measurements }, null, 2)}\n`);
}
