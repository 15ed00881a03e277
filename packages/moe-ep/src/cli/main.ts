/** The `moe-ep` program: finds the command, and turns errors into messages and exit codes. */
import { parseArgs } from "node:util";
import { PcclError } from "@pccl/core/base";
import { UsageError } from "./usage.js";
import { VERSION } from "../base/version.js";

const USAGE = `Usage: moe-ep <command> [options]

Least-loaded expert parallelism for mixture-of-experts layers.

Commands:
  bench         Measure planners against each other on processes of this host
  launch        Run a script in several processes that form an expert group
  plan          Plan the loads of a file: who computes what, and which weights are lent
  simulate      Predict time and memory of a layer on a cluster that you don't have
  tune          Measure this machine, and find the planner's settings that suit it
  verify        Compare layers on groups of processes with given results, and with one process

Options:
  -h, --help    Show this help; after a command: the command's help
  --version     Show the version

Exit codes: 0 success, 1 failure at run time, 2 wrong usage
`;

/** Loaded when they are called: some need all of the communication library, and some nothing. */
const COMMANDS: Record<string, (args: readonly string[]) => Promise<number>> = {
  bench: async (args) => await (await import("./bench.js")).runBench(args),
  launch: async (args) => await (await import("./launch.js")).runLaunch(args),
  plan: async (args) => (await import("./plan.js")).runPlan(args),
  simulate: async (args) => (await import("./simulate.js")).runSimulate(args),
  tune: async (args) => await (await import("./tune.js")).runTune(args),
  verify: async (args) => await (await import("./verify.js")).runVerify(args),
};

async function main([command, ...rest]: readonly string[]): Promise<number> {
  if (command !== undefined && !command.startsWith("-")) {
    const run = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
    if (run === undefined) throw new UsageError(`unknown command "${command}"`);
    return await run(rest);
  }
  const { values } = parseArgs({
    args: command === undefined ? [] : [command, ...rest],
    options: { help: { type: "boolean", short: "h" }, version: { type: "boolean" } },
  });
  if (values.help) process.stdout.write(USAGE);
  else if (values.version) process.stdout.write(`${VERSION}\n`);
  else throw new UsageError("no command given");
  return 0;
}

/** node:util's own complaints about a command line, which carry no class of their own. */
function isParseArgsError(error: unknown): error is Error {
  return error instanceof Error && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS");
}

const args = process.argv.slice(2);
try {
  process.exitCode = await main(args);
} catch (error) {
  const wrongUsage = error instanceof UsageError || isParseArgsError(error);
  if (!wrongUsage && !(error instanceof PcclError)) throw error;
  process.stderr.write(`moe-ep: ${error.message}\n`);
  if (wrongUsage) {
    const command = Object.hasOwn(COMMANDS, args[0] ?? "") ? `moe-ep ${args[0]}` : "moe-ep";
    process.stderr.write(`See \`${command} --help\`.\n`);
  }
  process.exitCode = wrongUsage ? 2 : 1;
}
