/** The `moe-ep` command. It has no subcommands yet, and says so. */
import { parseArgs } from "node:util";
import { VERSION } from "./version.js";

const HELP = `moe-ep: least-loaded expert parallelism for mixture-of-experts layers

Usage: moe-ep --help | --version

There is nothing to run yet. Planned: routing, load-balancing plans, expert
computation, and a simulator that predicts step times.
`;

function main(): number {
  try {
    const { values } = parseArgs({
      options: { help: { type: "boolean", short: "h" }, version: { type: "boolean" } },
    });
    process.stdout.write(values.version === true ? `${VERSION}\n` : HELP);
    return 0;
  } catch (error) {
    process.stderr.write(`moe-ep: ${error instanceof Error ? error.message : String(error)}\n\n${HELP}`);
    return 2;
  }
}

process.exitCode = main();
