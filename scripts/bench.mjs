/** `npm run bench [-- name options]`: runs a benchmark of bench/src, or lists them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bootstrapOrExit } from "./bootstrap.mjs";
import { ROOT } from "./lib/command.mjs";
import { runProgram } from "./lib/run-program.mjs";

const folder = join(ROOT, "bench", "src");
const files = readdirSync(folder).filter((file) => file.endsWith(".ts"));
const sources = files.map((file) => readFileSync(join(folder, file), "utf8"));
// What another file imports is a part of a benchmark, not one.
const names = files
  .map((file) => file.slice(0, -".ts".length))
  .filter((name) => !sources.some((source) => source.includes(`"./${name}.js"`)));
const [name, ...args] = process.argv.slice(2);

if (name !== undefined && names.includes(name)) {
  await bootstrapOrExit();
  await runProgram(`bench/dist/${name}.js`, args);
} else {
  process.stderr.write(`Benchmarks, each run by: npm run bench -- NAME [options]\n  ${names.join("\n  ")}\n`);
  process.exitCode = name === undefined ? 0 : 2;
}
