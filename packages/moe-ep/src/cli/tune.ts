/** `moe-ep tune`: measures this machine, and finds the planner's settings that suit it. */
import { parseArgs } from "node:util";
import type { ModelLayer } from "../simulator/models.js";
import { calibrate } from "../tuner/calibrate.js";
import {
  type Calibration,
  calibratedCostModel,
  readCalibration,
  writeCalibration,
} from "../tuner/calibration.js";
import { type SweptSetting, sweep } from "../tuner/sweep.js";
import { LAYER_OPTIONS, LAYER_USAGE, layerOf } from "./layer.js";
import { integerOption, numberOption, oneOfOption } from "./options.js";
import { formatSeconds, formatTable } from "./table.js";

const DEFAULT_LAYER: Partial<ModelLayer> = {
  experts: 64,
  topK: 4,
  hiddenSize: 1024,
  ffnSize: 1024,
  tokensPerRank: 4096,
};
const DEFAULT_SCENARIOS = ["balanced", "30%:4", "50%:4", "80%:4", "95%:1", "zipf:1.1", "dirichlet:0.3"];

export const TUNE_USAGE: string = `Usage: moe-ep tune [options]

Measures this machine with two processes that compute and talk to each other (experts by their
rows, messages by their bytes, memory), then tries the planners' settings on scenarios with the
cost model that follows: the smallest loan m for auto, and α, m and λ for lla. Prints the settings
of which none is both faster and lends less, and the one to use. Takes about five seconds.

Options:
${LAYER_USAGE}                         (default: 64 experts, 4 of them per token, 1024 × 1024)
  --dtype TYPE           f32 (default) or bf16
  --ranks P              Ranks of the layer (default 8)
  --tokens B             Tokens of each rank (default: the model's, or 4096)
  --scenario SCENARIO    May be repeated (default: ${DEFAULT_SCENARIOS.slice(0, 4).join(", ")},
                         ${DEFAULT_SCENARIOS.slice(4).join(", ")})
  --seconds S            How long experts are timed for each number of rows (default 0.5)
  --out FILE             Write what was measured, for \`simulate --calibration\`, \`plan --calibration\`
                         and readCalibration
  --calibration FILE     Don't measure; use what was written
  --json                 Print one JSON object instead of tables
  -h, --help             Show this help

Exit codes: 0 success, 1 failure at run time, 2 wrong usage
`;

/** Returns the exit code. Throws UsageError or PcclError. */
export async function runTune(args: readonly string[]): Promise<number> {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...LAYER_OPTIONS,
      dtype: text,
      ranks: text,
      tokens: text,
      scenario: { type: "string", multiple: true },
      seconds: text,
      out: text,
      calibration: text,
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(TUNE_USAGE);
    return 0;
  }
  const layer = layerOf(values, DEFAULT_LAYER);
  const { experts, topK, hiddenSize, ffnSize } = layer;
  const dtype = oneOfOption("dtype", values.dtype ?? "f32", ["f32", "bf16"]);
  const seconds = numberOption("seconds", values.seconds, 0, 3600);
  const ranks = integerOption("ranks", values.ranks, 1, Math.min(4096, experts)) ?? Math.min(8, experts);
  const tokens = integerOption("tokens", values.tokens, 1) ?? layer.tokensPerRank;
  const scenarios = values.scenario ?? DEFAULT_SCENARIOS;
  const given = { experts, topK, tokens, ranks, scenarios };
  // What the scenarios need is checked before anything takes time.
  if (values.calibration === undefined) sweep({ ...given, tokens: 0, costModel: undefined });
  const calibration =
    values.calibration === undefined
      ? await calibrate({
          hiddenSize,
          ffnSize,
          dtype,
          seconds,
          onProgress: values.json ? undefined : tellProgress,
        })
      : readCalibration(values.calibration);
  if (values.out !== undefined) writeCalibration(values.out, calibration);
  const costModel = calibratedCostModel(calibration, layer);
  const settings = sweep({ ...given, costModel });
  const recommended = settings[0] as SweptSetting;
  const pareto = settings.filter(({ isPareto }) => isPareto);
  if (values.json) {
    process.stdout.write(
      `${JSON.stringify({ calibration, costModel, ...given, recommended, pareto, settings })}\n`,
    );
    return 0;
  }
  process.stdout.write(`${tableOfMeasurements(calibration)}\n`);
  process.stdout.write(
    `Predicted for ${ranks} ranks with ${tokens} tokens each, ${experts} experts of ${hiddenSize} × ${ffnSize}, ${topK} per token:\n\n`,
  );
  process.stdout.write(`${tableOfSettings(pareto)}\n`);
  process.stdout.write(`Use ${optionsOf(recommended)}\n`);
  const lla = settings.find(({ planner }) => planner === "lla");
  if (lla !== undefined && recommended.planner !== "lla")
    process.stdout.write(`With lla ${optionsOf(lla)}\n`);
  return 0;
}

function tellProgress(what: string): void {
  process.stderr.write(`measuring ${what}\n`);
}

function tableOfMeasurements({
  machine,
  dtype,
  hiddenSize,
  ffnSize,
  expert,
  link,
  memoryBytesPerSecond,
}: Calibration): string {
  const gflops = (rows: number, seconds: number): string =>
    ((6 * hiddenSize * ffnSize * rows) / seconds / 1e9).toPrecision(3);
  const experts = expert.map(({ size, seconds }) => [
    String(size),
    formatSeconds(seconds),
    gflops(size, seconds),
  ]);
  const messages = link.map(({ size, seconds }) => [
    `${size / 1024} KiB`,
    formatSeconds(seconds),
    (size / seconds / 1e9).toPrecision(3),
  ]);
  return `${machine}; experts of ${hiddenSize} × ${ffnSize} in ${dtype}, while another process computes

${formatTable([["rows", "time", "Gflop/s"], ...experts])}
${formatTable([["message", "time", "GB/s"], ...messages])}
memory: ${(memoryBytesPerSecond / 1e9).toPrecision(3)} GB/s copied
`;
}

function tableOfSettings(settings: readonly SweptSetting[]): string {
  return formatTable([
    ["planner", "m", "α", "λ", "× ep", "at least", "loans"],
    ...settings.map((setting) => [
      setting.planner,
      String(setting.minChunkCopies),
      setting.capacityFactor?.toString() ?? "",
      setting.minImbalance?.toString() ?? "",
      setting.speedup.toFixed(3),
      setting.leastSpeedup.toFixed(3),
      setting.transfers.toFixed(1),
    ]),
  ]);
}

function optionsOf({ planner, minChunkCopies, capacityFactor, minImbalance }: SweptSetting): string {
  const lla = planner === "lla" ? `, capacityFactor: ${capacityFactor}, minImbalance: ${minImbalance}` : "";
  return `{ planner: "${planner}", minChunkCopies: ${minChunkCopies}${lla} }`;
}
