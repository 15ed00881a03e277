/**
 * Whether the simulator predicts this machine's own runs: calibrates, runs `moe-ep bench` on two processes, calibrates
 * again, and holds predicted beside measured step times and speed-ups. For a machine that does nothing else.
 *
 *   node bench/dist/simulator-check.js [--tokens 4096] [--experts 64] [--size 1024] [--repeats 5] [--dtype f32]
 */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { calibrate, calibratedCluster, type Calibration, generateCounts, simulate } from "@pccl/moe-ep";
import { medianOf } from "./statistics.js";

interface BenchResult {
  readonly planner: string;
  readonly scenario: string;
  readonly medianSeconds: number;
  readonly speedupOverEp: number;
  readonly cpuSpeedupOverEp: number;
}

const RANKS = 2;
const TOP_K = 4;
const SCENARIOS = ["balanced", "50%:1", "50%:4", "80%:1", "80%:4", "95%:1", "95%:4"];
const { values } = parseArgs({
  options: {
    tokens: { type: "string", default: "4096" },
    experts: { type: "string", default: "64" },
    size: { type: "string", default: "1024" },
    repeats: { type: "string", default: "5" },
    dtype: { type: "string", default: "f32" },
  },
});
const [tokens, experts, size] = [Number(values.tokens), Number(values.experts), Number(values.size)];
const dtype = values.dtype === "bf16" ? "bf16" : "f32";
const layer = { hiddenSize: size, ffnSize: size };

function runBench(): readonly BenchResult[] {
  const program = join(dirname(fileURLToPath(import.meta.resolve("@pccl/moe-ep"))), "../bin/moe-ep.js");
  const options = {
    "--world": RANKS,
    "--experts": experts,
    "--topk": TOP_K,
    "--hidden": size,
    "--ffn": size,
    "--tokens": tokens,
    "--scenario": SCENARIOS.join(","),
    "--repeats": values.repeats,
    "--dtype": dtype,
  };
  const args = [
    "bench",
    "--json",
    ...Object.entries(options).flatMap(([name, value]) => [name, String(value)]),
  ];
  const { status, stdout } = spawnSync(process.execPath, [program, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`moe-ep bench ended with status ${status}`);
  return (JSON.parse(stdout) as { results: BenchResult[] }).results;
}

function predict(calibration: Calibration, scenario: string, planner: string): number {
  const shape = { ...layer, elementBytes: dtype === "f32" ? 4 : 2 };
  const batches = [generateCounts({ scenario, experts, topK: TOP_K, tokens, ranks: RANKS })];
  const { forecasts } = simulate({ shape, batches, ...calibratedCluster(calibration, RANKS, layer) });
  const forecast = forecasts.find((one) => one.planner === planner && !one.strictReference);
  return forecast?.stepSeconds ?? Number.NaN;
}

const before = await calibrate({ ...layer, dtype });
const measured = runBench();
const after = await calibrate({ ...layer, dtype });
const both = [before, after];
const secondsOf = (scenario: string, planner: string): number =>
  both.reduce((sum, calibration) => sum + predict(calibration, scenario, planner), 0) / both.length;
const rows = measured.map((result) => {
  const { scenario, planner, medianSeconds, speedupOverEp, cpuSpeedupOverEp } = result;
  const seconds = secondsOf(scenario, planner);
  return {
    scenario,
    planner,
    predictedSeconds: Number(seconds.toPrecision(3)),
    measuredSeconds: Number(medianSeconds.toPrecision(3)),
    timeError: Number((seconds / medianSeconds - 1).toFixed(3)),
    predictedSpeedup: Number((secondsOf(scenario, "ep") / seconds).toFixed(3)),
    measuredSpeedup: Number(speedupOverEp.toFixed(3)),
    measuredCpuSpeedup: Number(cpuSpeedupOverEp.toFixed(3)),
  };
});
console.table(rows);
const medianError = (of: (row: (typeof rows)[number]) => number): string =>
  `${(medianOf(rows.map((row) => Math.abs(of(row)))) * 100).toFixed(1)} %`;
const lent = rows.filter(({ planner }) => planner !== "ep");
process.stdout.write(
  `median error of step times ${medianError(({ timeError }) => timeError)}, largest ${(
    Math.max(...rows.map(({ timeError }) => Math.abs(timeError))) * 100
  ).toFixed(1)} %; of speed-ups ${(
    medianOf(
      lent.map(({ predictedSpeedup, measuredSpeedup }) => Math.abs(predictedSpeedup / measuredSpeedup - 1)),
    ) * 100
  ).toFixed(1)} %\n`,
);
