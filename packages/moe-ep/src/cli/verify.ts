/** `moe-ep verify`: golden layers through groups of processes. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { pcclError } from "@pccl/core/base";
import { verify, type VerifyResult } from "../verify/verify.js";
import { untilSignal } from "./until-signal.js";
import { parseIntegers, parsePlanners, UsageError } from "./usage.js";

export const VERIFY_USAGE: string = `Usage: moe-ep verify --golden DIR [options]

Runs the layers of DIR (*.safetensors: weights, tokens, and results and gradients in double precision)
through groups of processes of this host, forward and backward, and compares every result with the
file's and with the layer in one process. The layers are small, so single token-copies may be lent.

Options:
  --golden DIR             Where the layers are
  --world LIST             Numbers of processes (default 1,2,4)
  --planner NAME           ep, lla or auto (default: each of them)
  --dtype f32              What to compute in
  --json                   Print {"results": [...]} instead of a table
  -h, --help               Show this help

Exit codes: 0 all within the files' tolerances and the same bits as in one process, 1 something isn't,
or can't be run, 2 wrong usage
`;

/** Returns the exit code. Throws UsageError or PcclError. */
export async function runVerify(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      golden: { type: "string" },
      world: { type: "string", default: "1,2,4" },
      planner: { type: "string", default: "ep,lla,auto" },
      dtype: { type: "string", default: "f32" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(VERIFY_USAGE);
    return 0;
  }
  if (values.golden === undefined) throw new UsageError("--golden DIR is missing");
  if (values.dtype !== "f32") {
    throw new UsageError(`--dtype must be f32, which the layers' tolerances are for, got "${values.dtype}"`);
  }
  const worlds = parseIntegers("--world", values.world, 1, 64);
  const planners = parsePlanners(values.planner);
  const files = goldenFiles(values.golden);
  const results = await untilSignal((signal) => verify({ files, planners }, worlds, signal));
  process.stdout.write(values.json ? `${JSON.stringify({ results })}\n` : results.map(line).join(""));
  return results.every((one) => one.withinTolerance && one.bitIdenticalToSingle) ? 0 : 1;
}

function goldenFiles(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => name.endsWith(".safetensors"));
  } catch (error) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${folder} can't be read: ${String(error)}`, {
      cause: error,
    });
  }
  if (names.length === 0) throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${folder} has no *.safetensors`);
  return names.toSorted().map((name) => join(folder, name));
}

function line({
  file,
  world,
  planner,
  maxAbsError,
  withinTolerance,
  bitIdenticalToSingle,
}: VerifyResult): string {
  const worst = Math.max(...Object.values(maxAbsError)).toExponential(1);
  const verdict = withinTolerance ? "within tolerance" : "OUTSIDE TOLERANCE";
  const bits = bitIdenticalToSingle ? "same bits" : "OTHER BITS";
  return `${file.padEnd(40)} world ${String(world).padEnd(3)} ${planner.padEnd(5)} ${worst}  ${verdict}, ${bits}\n`;
}
