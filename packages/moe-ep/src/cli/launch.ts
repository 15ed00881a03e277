/** `moe-ep launch`: a script in several processes that find each other. */
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { extname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { pcclError } from "@pccl/core/base";
import { RankProcesses } from "../launch/rank-processes.js";
import { parseInteger, UsageError } from "./usage.js";

const RANKS_MAX = 256;

export const LAUNCH_USAGE: string = `Usage: moe-ep launch -n N SCRIPT [arguments]

Runs a script in N processes of this host, with a coordinator in this one. In the script,
ExpertGroup.fromEnvironment() gives the group of all of them. Each process has in its environment
what torchrun sets: RANK (0 to N-1), WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, and the coordinator's
MASTER_ADDR and MASTER_PORT. Lines that they print get their rank in front.

When a process fails, the others are ended, and its exit code is this one's. SIGINT, SIGTERM and SIGHUP
are passed on; the second one kills. TypeScript works with every version of Node.

Options:
  -n, --processes N        How many (1 to ${RANKS_MAX})
  -h, --help               Show this help

Exit codes: 0 success, that of the process that failed (128 + its signal), 2 wrong usage
`;

/** Returns the exit code. Throws UsageError or PcclError. */
export async function runLaunch(args: readonly string[]): Promise<number> {
  // What comes after the script is the script's.
  const at = args.findIndex(
    (arg, i) => !arg.startsWith("-") && !/^(-n|--processes)$/.test(args[i - 1] ?? ""),
  );
  const { values } = parseArgs({
    args: at < 0 ? [...args] : args.slice(0, at),
    options: {
      processes: { type: "string", short: "n" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(LAUNCH_USAGE);
    return 0;
  }
  const ranks = parseInteger("-n", values.processes, 1, RANKS_MAX);
  if (at < 0) throw new UsageError("no script given");
  const script = resolve(args[at] as string);
  if (!existsSync(script)) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${script} doesn't exist`);
  }
  return await run(ranks, [...loaderOf(script), script, ...args.slice(at + 1)]);
}

/** Node before 22.18 doesn't read TypeScript by itself. */
function loaderOf(script: string): string[] {
  const isTypeScript = [".ts", ".mts", ".cts"].includes(extname(script));
  const features = process.features as { typescript?: unknown };
  if (!isTypeScript || features.typescript) return [];
  return [`--import=${import.meta.resolve("tsx")}`];
}

async function run(ranks: number, args: readonly string[]): Promise<number> {
  let processes: RankProcesses | undefined;
  let received: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    processes?.signal(received === undefined ? signal : "SIGKILL");
    received = signal;
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  try {
    processes = await RankProcesses.start({ ranks, args, output: "ranks" });
    if (received !== undefined) processes.signal(received);
    const failure = await processes.ended;
    if (failure === undefined) return 0;
    const { rank, code, signal } = failure;
    process.stderr.write(`moe-ep: rank ${rank} ended with ${signal ?? `exit code ${code}`}\n`);
    return signal === null ? (code ?? 1) : 128 + constants.signals[signal];
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
  }
}
