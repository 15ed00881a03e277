/** `moe-ep simulate`: how long a layer would take on a cluster that one doesn't have, by planner. */
import { parseArgs } from "node:util";
import { generateCounts } from "../routing/generate.js";
import { SCENARIO_FORMS } from "../routing/scenario.js";
import { readTrace } from "../routing/trace-reader.js";
import { CLUSTER_FORMS, type Cluster, parseCluster } from "../simulator/clusters.js";
import type { ModelLayer } from "../simulator/models.js";
import { LEAN_RUNTIME, PAPER_RUNTIMES, type Runtime } from "../simulator/runtimes.js";
import { type Forecast, type Simulation, simulate } from "../simulator/simulate.js";
import { calibratedCluster, readCalibration } from "../tuner/calibration.js";
import { LAYER_OPTIONS, LAYER_USAGE, layerOf } from "./layer.js";
import { integerOption, numberOption, oneOfOption } from "./options.js";
import { formatGigabytes, formatSeconds, formatTable } from "./table.js";
import { UsageError } from "./usage.js";

export const SIMULATE_USAGE: string = `Usage: moe-ep simulate --model NAME --cluster CLUSTER --scenario SCENARIO [options]

Predicts how long a mixture-of-experts layer takes in the forward pass, and how much memory its
experts need, under plain expert parallelism (ep), the LLEP paper's planner as published and with
its defects mended (lla), and auto; beside a lower bound for any plan.

What runs:
${LAYER_USAGE}  --tokens B             Tokens of each rank (default: the paper's for the model)
  --scenario SCENARIO    ${SCENARIO_FORMS}
  --steps S              Steps of the scenario to average over (default 1)
  --seed S               Of random scenarios (default 0)
  --trace FILE           Counts of a recorded run instead of a scenario; may be repeated for the
                         files of several ranks

On what:
  --cluster CLUSTER      ${CLUSTER_FORMS.replace("; kinds: ", ";\n                         kinds: ")}
  --calibration FILE     What \`moe-ep tune\` measured: --cluster COUNTxthis is so many ranks of that
                         machine
  --runtime NAME         paper: what the paper's own software adds to the hardware's times
                         (default on GPUs); lean: nothing (default on CPUs)

Planners:
  --alpha A              lla's capacity factor (default 1)
  --min-chunk M          Smallest loan in token-copies (default: 1024 on GPUs, 64 on CPUs)
  --min-imbalance L      lla's threshold (default 1.3)

  --json                 Print one JSON object instead of a table
  -h, --help             Show this help

Exit codes: 0 success, 1 a trace can't be read or simulated, 2 wrong usage
`;

/** Returns the exit code. Throws UsageError or PcclError. */
export function runSimulate(args: readonly string[]): number {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...LAYER_OPTIONS,
      tokens: text,
      scenario: text,
      steps: text,
      seed: text,
      trace: { type: "string", multiple: true },
      cluster: text,
      calibration: text,
      runtime: text,
      alpha: text,
      "min-chunk": text,
      "min-imbalance": text,
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(SIMULATE_USAGE);
    return 0;
  }
  if (values.cluster === undefined) throw new UsageError("--cluster CLUSTER is missing");
  if ((values.scenario === undefined) === (values.trace === undefined)) {
    throw new UsageError("give either --scenario SCENARIO or --trace FILE");
  }
  const layer = layerOf(values);
  const { cluster, runtime, runtimeName } = placeOf(values, layer);
  const tokens = integerOption("tokens", values.tokens, 0) ?? layer.tokensPerRank;
  const steps = integerOption("steps", values.steps, 1, 1_000_000) ?? 1;
  const seed = integerOption("seed", values.seed, 0) ?? 0;
  const { scenario } = values;
  const { experts, topK, hiddenSize, ffnSize } = layer;
  const batches =
    scenario === undefined
      ? readTrace(...(values.trace ?? [])).batches.map(({ counts }) => counts)
      : Array.from({ length: steps }, (_, step) =>
          generateCounts({ experts, topK, scenario, tokens, ranks: cluster.ranks, seed, step }),
        );
  const simulation = simulate({
    shape: { hiddenSize, ffnSize, elementBytes: cluster.dtype === "f32" ? 4 : 2 },
    cluster,
    runtime,
    batches,
    capacityFactor: numberOption("alpha", values.alpha, 1e-6, 1e6),
    minChunkCopies: integerOption("min-chunk", values["min-chunk"], 1),
    minImbalance: numberOption("min-imbalance", values["min-imbalance"], 0, 1e6),
  });
  if (values.json) {
    const what = { model: values.model ?? null, cluster: values.cluster, scenario: scenario ?? null };
    const { lowerBoundSeconds, forecasts } = simulation;
    process.stdout.write(
      `${JSON.stringify({ ...what, tokensPerRank: tokens, dtype: cluster.dtype, runtime: runtimeName, lowerBoundSeconds, results: forecasts })}\n`,
    );
  } else {
    const what =
      scenario === undefined
        ? `${batches.length} batches of a trace`
        : `${scenario}, ${tokens} tokens per rank`;
    process.stdout.write(
      `${values.model ?? "a layer"} on ${values.cluster}: ${what}, ${cluster.dtype}, ${runtimeName} runtime\n\n`,
    );
    process.stdout.write(tableOf(simulation, cluster));
  }
  return 0;
}

interface Place {
  readonly cluster: Cluster;
  readonly runtime: Runtime;
  readonly runtimeName: string;
}

function placeOf(
  values: { readonly cluster?: string; readonly calibration?: string; readonly runtime?: string },
  layer: ModelLayer,
): Place {
  const ranks = /^(\d{1,4})xthis$/i.exec(values.cluster ?? "")?.[1];
  if (ranks === undefined) {
    if (values.calibration !== undefined)
      throw new UsageError("--calibration FILE needs --cluster COUNTxthis");
    const cluster = parseCluster(values.cluster ?? "");
    const runtimeName = values.runtime ?? (cluster.isGpu ? "paper" : "lean");
    const isLean = oneOfOption("runtime", runtimeName, ["paper", "lean"]) === "lean";
    return { cluster, runtime: isLean ? LEAN_RUNTIME : PAPER_RUNTIMES[layer.family], runtimeName };
  }
  if (values.calibration === undefined) throw new UsageError("--cluster COUNTxthis needs --calibration FILE");
  if (values.runtime !== undefined) throw new UsageError("--runtime is what --calibration FILE says");
  if (Number(ranks) === 0) throw new UsageError("--cluster COUNTxthis needs at least one rank");
  const { cluster, runtime } = calibratedCluster(readCalibration(values.calibration), Number(ranks), layer);
  return { cluster, runtime, runtimeName: "measured" };
}

function tableOf({ lowerBoundSeconds, forecasts }: Simulation, cluster: Cluster): string {
  const header = [
    "planner",
    "step",
    "× ep",
    "experts",
    "weights",
    "tokens",
    "loans",
    "largest/mean",
    "peak memory",
  ];
  const name = ({ planner, strictReference }: Forecast): string =>
    strictReference ? "lla, as published" : planner;
  const rows = forecasts.map((forecast) => [
    name(forecast),
    formatSeconds(forecast.stepSeconds),
    forecast.speedupOverEp.toFixed(2),
    formatSeconds(forecast.computeSeconds),
    formatSeconds(forecast.transferSeconds),
    formatSeconds(forecast.crossCopySeconds),
    Number.isInteger(forecast.transfers) ? String(forecast.transfers) : forecast.transfers.toFixed(1),
    (forecast.meanLoad === 0 ? 1 : forecast.maxLoad / forecast.meanLoad).toFixed(2),
    formatGigabytes(Math.max(...forecast.peakBytesPerRank)),
  ]);
  const epSeconds = forecasts[0]?.stepSeconds ?? 0;
  const bound = lowerBoundSeconds === 0 ? "1.00" : (epSeconds / lowerBoundSeconds).toFixed(2);
  const nodes = new Set(cluster.nodes).size;
  return `${formatTable([header, ...rows, ["lower bound", formatSeconds(lowerBoundSeconds), bound]])}
The slowest of ${cluster.ranks} ranks${nodes > 1 ? ` on ${nodes} nodes` : ""}: experts, weights and tokens on the way add up to its step,
with what the runtime takes for lending. Nothing is assumed to overlap.
`;
}
