/**
 * Runs a built program as if it had been started itself: in this very process, so that the terminal, signals
 * and the exit status are its own.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ROOT } from "./command.mjs";

/** @param {string} path relative to the root @param {readonly string[]} args */
export async function runProgram(path, args) {
  const program = join(ROOT, path);
  if (!existsSync(program)) throw new Error(`${path} hasn't been built.`);
  process.argv = [process.execPath, program, ...args];
  await import(pathToFileURL(program).href);
}
