/** The `pccl` program: finds the command, and turns errors into messages and exit codes. */
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { PcclError } from "../base/errors.js";
import { runBenchCommand } from "./bench.js";
import { runCoordinator } from "./coordinator.js";
import { runSimulate } from "./simulate.js";
import { runStress } from "./stress.js";
import { USAGE, UsageError } from "./usage.js";

const COMMANDS: Record<string, (args: readonly string[]) => Promise<number>> = {
  bench: runBenchCommand,
  coordinator: runCoordinator,
  simulate: runSimulate,
  stress: runStress,
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
  else if (values.version) {
    const { version } = createRequire(import.meta.url)("../../package.json") as { version: string };
    process.stdout.write(`${version}\n`);
  } else throw new UsageError("no command given");
  return 0;
}

/** node:util's own complaints about a command line, which carry no class of their own. */
function isParseArgsError(error: unknown): error is Error {
  return error instanceof Error && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS");
}

/** Bad values are found where the options are checked, also for callers of the API. */
const USAGE_CODES: ReadonlySet<string> = new Set(["ERR_PCCL_INVALID_ARGUMENT", "ERR_PCCL_UNKNOWN_OPTION"]);

const args = process.argv.slice(2);
try {
  process.exitCode = await main(args);
} catch (error) {
  const wrongUsage =
    error instanceof UsageError ||
    isParseArgsError(error) ||
    (error instanceof PcclError && USAGE_CODES.has(error.code));
  if (!wrongUsage && !(error instanceof PcclError)) throw error;
  process.stderr.write(`pccl: ${error.message}\n`);
  if (wrongUsage) {
    const command = Object.hasOwn(COMMANDS, args[0] ?? "") ? `pccl ${args[0]}` : "pccl";
    process.stderr.write(`See \`${command} --help\`.\n`);
  }
  process.exitCode = wrongUsage ? 2 : 1;
}
