/** `moe-ep bench`: planners against each other on real processes. */
import { basename, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type PcclError, pcclError } from "@pccl/core/base";
import { bench, type BenchResult } from "../bench/bench.js";
import type { BenchJob } from "../bench/messages.js";
import { parseScenario } from "../routing/scenario.js";
import { readTrace } from "../routing/trace-reader.js";
import { calibratedCostModel, readCalibration } from "../tuner/calibration.js";
import { untilSignal } from "./until-signal.js";
import { parseInteger, parsePlanners, UsageError } from "./usage.js";

export const BENCH_USAGE: string = `Usage: moe-ep bench --world P --experts N --topk K --hidden D --ffn H --tokens B --scenario S [options]

Runs the forward pass of a layer's experts (SwiGLU) on P processes of this host, each with B tokens and
one thread that computes: plain expert parallelism (ep), the paper's greedy (lla) and auto, in turn.
One round isn't counted.

Options:
  --world P                Processes
  --experts N, --topk K    Experts of the layer, and of a token
  --hidden D, --ffn H      Sizes of a token, and between an expert's two layers
  --tokens B               Of each process
  --scenario S             balanced, 80%:4 (80 % of the tokens to 4 experts), zipf:1.1, dirichlet:0.3,
                           drift:80%:4:10; or several, with commas
  --trace FILE             Instead of a scenario and --tokens: the routings of a trace's layer 0
  --calibration FILE       auto goes by what \`moe-ep tune\` measured
  --planner LIST           Beside ep: lla, auto (default lla,auto)
  --dtype f32|bf16         Default f32
  --repeats R              Rounds that count (default 5)
  --json                   Print {"results": [...]} instead of a table
  -h, --help               Show this help

With more processes than cores, times say little; compare the CPU time of the busiest process instead
(cpuSpeedupOverEp).

Exit codes: 0 success, 1 failure at run time, 2 wrong usage
`;

/** Returns the exit code. Throws UsageError or PcclError. */
export async function runBench(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      world: { type: "string" },
      experts: { type: "string" },
      topk: { type: "string" },
      hidden: { type: "string" },
      ffn: { type: "string" },
      tokens: { type: "string" },
      scenario: { type: "string" },
      trace: { type: "string" },
      calibration: { type: "string" },
      planner: { type: "string", default: "lla,auto" },
      dtype: { type: "string", default: "f32" },
      repeats: { type: "string", default: "5" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(BENCH_USAGE);
    return 0;
  }
  const { dtype } = values;
  if (dtype !== "f32" && dtype !== "bf16") {
    throw new UsageError(`--dtype must be f32 or bf16, got "${dtype}"`);
  }
  const world = parseInteger("--world", values.world, 1, 64);
  const experts = parseInteger("--experts", values.experts, world, 65_536);
  const hiddenSize = parseInteger("--hidden", values.hidden, 1, 65_536);
  const ffnSize = parseInteger("--ffn", values.ffn, 1, 65_536);
  const { calibration, trace } = values;
  const job: Omit<BenchJob, "scenario"> = {
    experts,
    topK: parseInteger("--topk", values.topk, 1, experts),
    hiddenSize,
    ffnSize,
    tokens: trace === undefined ? parseInteger("--tokens", values.tokens, 1, 2 ** 20) : 0,
    trace: trace === undefined ? undefined : resolve(trace),
    dtype,
    planners: [...new Set(["ep" as const, ...parsePlanners(values.planner)])],
    repeats: parseInteger("--repeats", values.repeats, 1, 1000),
    costModel:
      calibration === undefined
        ? undefined
        : calibratedCostModel(readCalibration(calibration), { hiddenSize, ffnSize }),
  };
  const scenarios = scenariosOf(values.scenario, trace);
  if (trace !== undefined) checkTrace(trace, world, experts);
  const results = await untilSignal(async (signal) => {
    const all: BenchResult[] = [];
    for (const scenario of scenarios) all.push(...(await bench({ ...job, scenario }, world, signal)));
    return all;
  });
  process.stdout.write(values.json ? `${JSON.stringify({ results })}\n` : tableOf(results));
  return 0;
}

function scenariosOf(scenario: string | undefined, trace: string | undefined): string[] {
  if ((scenario === undefined) === (trace === undefined)) {
    throw new UsageError("give either --scenario or --trace");
  }
  if (scenario === undefined) return [`trace ${basename(trace as string)}`];
  const scenarios = scenario.split(",");
  for (const one of scenarios) parseScenario(one);
  return scenarios;
}

/** Throws ERR_PCCL_INVALID_ARGUMENT if a trace isn't one of such a layer, or has no routings. */
function checkTrace(file: string, world: number, experts: number): void {
  const { ranks, layerExperts, batches } = readTrace(file);
  const invalid = (reason: string): PcclError => pcclError("ERR_PCCL_INVALID_ARGUMENT", `${file} ${reason}`);
  if (ranks !== world) throw invalid(`is of ${ranks} ranks, not ${world}`);
  if (layerExperts[0] !== experts) throw invalid(`has ${layerExperts[0]} experts in layer 0, not ${experts}`);
  const own = batches.filter(({ layer }) => layer === 0);
  if (own.length === 0 || own.some(({ routings }) => routings === undefined)) {
    throw invalid("doesn't hold whole routings of layer 0, only counts if anything");
  }
}

function tableOf(results: readonly BenchResult[]): string {
  const lines = results.map((one) =>
    [
      one.scenario.padEnd(12),
      one.planner.padEnd(5),
      `${(one.medianSeconds * 1000).toFixed(1)} ms`.padStart(11),
      `${one.speedupOverEp.toFixed(2)}x`.padStart(7),
      `(bound ${one.imbalanceBound.toFixed(2)}x, by CPU time ${one.cpuSpeedupOverEp.toFixed(2)}x)`,
      `peak ${(Math.max(...one.peakBytesPerRank) / 1e6).toFixed(1)} MB`,
      one.bitIdenticalToEp ? "same bits" : "OTHER BITS",
    ].join("  "),
  );
  return `${lines.join("\n")}\n`;
}
