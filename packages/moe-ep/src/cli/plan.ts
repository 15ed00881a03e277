/** `moe-ep plan`: plans the cases of a file and prints the plans. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { pcclError } from "@pccl/core/base";
import { costModelInCopies, DEFAULT_COST_MODEL } from "../planner/cost-model.js";
import { type LlepOutputs, parseLlepCases, planLlepCase } from "../planner/llep-case.js";
import { PLANNERS } from "../planner/plan.js";
import { calibratedCostModel, readCalibration } from "../tuner/calibration.js";
import { oneOfOption } from "./options.js";
import { UsageError } from "./usage.js";

export const PLAN_USAGE: string = `Usage: moe-ep plan --input FILE [options]

Plans expert parallelism for given loads: which rank computes which token-copies of which expert,
and which weights are lent. FILE holds one case as JSON, or several as {"cases": [...]}:

  {"world_size": 2, "num_experts": 4, "counts_per_rank": [[900, 20, 10, 10], [700, 30, 5, 5]],
   "alpha": 1.0, "min_tokens_per_gemm": 64, "lam": 1.3}

counts_per_rank[r][e] counts the token-copies of rank r that chose expert e. The other fields that
are read are alpha, min_tokens_per_gemm and lam (optional: 1, 64, 1.3) and name.

Options:
  --input FILE             The case or cases
  --planner NAME           ep    every expert on its native rank
                           lla   the greedy of the LLEP paper, with its defects mended
                           auto  the lowest predicted step time, never above ep's (default)
                           eplb  replication by these very loads, for comparison
  --strict-reference       lla exactly as the paper's code plans it, defects included; implies lla
  --transfer-copies W      What sending one expert's weights costs, in token-copies computed
                           (default ${DEFAULT_COST_MODEL.transferSeconds})
  --calibration FILE       Instead: seconds, as \`moe-ep tune\` measured them for its own layer
  --json                   Print {"cases": [...]} with every field instead of a summary
  -h, --help               Show this help

Exit codes: 0 success, 1 the file can't be read or planned, 2 wrong usage
`;

/** Returns the exit code. Throws UsageError or PcclError. */
export function runPlan(args: readonly string[]): number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      input: { type: "string" },
      planner: { type: "string" },
      "strict-reference": { type: "boolean", default: false },
      "transfer-copies": { type: "string" },
      calibration: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(PLAN_USAGE);
    return 0;
  }
  const strictReference = values["strict-reference"];
  const planner = oneOfOption("planner", values.planner ?? (strictReference ? "lla" : "auto"), PLANNERS);
  if (strictReference && planner !== "lla") {
    throw new UsageError(`--strict-reference is a mode of the planner lla, not of ${planner}`);
  }
  const transferCopies = Number(values["transfer-copies"] ?? DEFAULT_COST_MODEL.transferSeconds);
  if (!(transferCopies >= 0 && transferCopies <= 1e12)) {
    throw new UsageError(
      `--transfer-copies must be a number of 0 or more, got "${values["transfer-copies"]}"`,
    );
  }
  if (values.input === undefined) throw new UsageError("--input FILE is missing");
  if (values.calibration !== undefined && values["transfer-copies"] !== undefined) {
    throw new UsageError("give either --transfer-copies or --calibration");
  }
  const calibration = values.calibration === undefined ? undefined : readCalibration(values.calibration);
  const costModel =
    calibration === undefined
      ? costModelInCopies(transferCopies)
      : calibratedCostModel(calibration, calibration);
  const cases = parseLlepCases(values.input, readJson(values.input)).map((input) =>
    planLlepCase(input, { planner, strictReference, costModel }),
  );
  process.stdout.write(values.json ? `${JSON.stringify({ cases })}\n` : cases.map(summary).join(""));
  return 0;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${file} can't be read as JSON: ${reason}`, {
      cause: error,
    });
  }
}

function summary(
  { name, planner, stats, predicted_step_ep, predicted_step }: LlepOutputs,
  index: number,
): string {
  const times = predicted_step > 0 ? predicted_step_ep / predicted_step : 1;
  return `${name ?? `case ${index}`} (${planner})
  largest load    ${stats.max_before} -> ${stats.max_after} token-copies (even: ${stats.ideal})
  weights lent    ${stats.n_transfers} (to one rank ${stats.max_imports} at most, from one ${stats.max_exports})
  cross-rank      ${stats.cross_rank_tokens_ep} -> ${stats.cross_rank_tokens_llep} token-copies
  predicted step  ${times.toFixed(2)} times as fast as plain expert parallelism
`;
}
