/** Remembers what a set-up step was last run on, so that an unchanged step costs a few file reads. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ROOT } from "./command.mjs";

/** @param {string} path relative to the root; a file, a folder, or nothing @returns {string[]} files, sorted */
function filesUnder(path) {
  const absolute = join(ROOT, path);
  if (!existsSync(absolute)) return [];
  if (!statSync(absolute).isDirectory()) return [path];
  return readdirSync(absolute)
    .sort()
    .flatMap((name) => (name === "build" || name === "node_modules" ? [] : filesUnder(join(path, name))));
}

/** @param {readonly string[]} paths files and folders @returns {string} a hash of all names and contents */
function fingerprint(paths) {
  // An addon built by another system, or a CMake cache from another place, is of no use here.
  const hash = createHash("sha256").update(`${process.platform} ${process.arch} ${ROOT}\n`);
  for (const file of paths.flatMap(filesUnder)) {
    const content = readFileSync(join(ROOT, file));
    hash.update(`${file} ${content.length}\n`).update(content);
  }
  return hash.digest("hex");
}

/**
 * Runs `action` unless it succeeded before on the same inputs and its outputs are still there.
 * @param {{ name: string, inputs: readonly string[], outputs: readonly string[] }} step
 * @param {() => Promise<void>} action
 */
export async function unlessUnchanged({ name, inputs, outputs }, action) {
  const path = join(ROOT, "build", "stamps", name);
  const current = fingerprint(inputs);
  const done = existsSync(path) && readFileSync(path, "utf8") === current;
  if (done && outputs.every((output) => existsSync(join(ROOT, output)))) return;
  rmSync(path, { force: true });
  await action();
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, current);
}
