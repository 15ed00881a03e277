/** `npm run bench [-- name options]`: runs a benchmark of bench/src, or lists them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { bootstrapOrExit } from "./bootstrap.mjs";
import { ROOT } from "./lib/command.mjs";
import { runProgram } from "./lib/run-program.mjs";

const names = readdirSync(join(ROOT, "bench", "src"))
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -".ts".length));
const [name, ...args] = process.argv.slice(2);

if (name !== undefined && names.includes(name)) {
  await bootstrapOrExit();
  await runProgram(`bench/dist/${name}.js`, args);
} else {
  process.stderr.write(`Benchmarks, each run by: npm run bench -- NAME [options]\n  ${names.join("\n  ")}\n`);
  process.exitCode = name === undefined ? 0 : 2;
}
