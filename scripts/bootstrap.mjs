/**
 * Brings a fresh clone to the point where everything is built, and does nothing that is done already.
 * Downloads come from the npm registry and from Debian only. Messages go to stderr: stdout is the caller's.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ROOT, onPath, run, secondsSince } from "./lib/command.mjs";
import { withLock } from "./lib/lock.mjs";
import { unlessUnchanged } from "./lib/stamp.mjs";
import { installPackages, missingPackages } from "./lib/system-packages.mjs";

const NODE_MIN = [20, 19];
/** package.json names the same version for people who have pnpm. */
const PNPM_VERSION = "10.34.9";
const OUTPUT_LINES_MAX = 80;

function checkPlatform() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const [minMajor = 0, minMinor = 0] = NODE_MIN;
  if (major < minMajor || (major === minMajor && minor < minMinor)) {
    throw new Error(`Node ${NODE_MIN.join(".")} or newer is needed; this is ${process.versions.node}.`);
  }
  if (process.platform !== "linux") {
    throw new Error(`The native data plane runs on Linux only; this is ${process.platform}.`);
  }
}

/**
 * Says what is being done, then how long it took.
 * @param {string} what
 * @param {() => Promise<void>} action
 */
async function report(what, action) {
  const started = performance.now();
  process.stderr.write(`set-up: ${what} … `);
  try {
    await action();
  } catch (error) {
    process.stderr.write(`failed after ${secondsSince(started)}\n`);
    throw error;
  }
  process.stderr.write(`${secondsSince(started)}\n`);
}

/** @param {readonly [string, ...string[]]} argv */
async function mustRun(argv) {
  const { code, output } = await run(argv);
  if (code === 0) return;
  const lines = output.trimEnd().split("\n");
  const shown = lines.slice(-OUTPUT_LINES_MAX);
  const cut = lines.length > shown.length ? `(the last ${shown.length} of ${lines.length} lines)\n` : "";
  throw new Error(`${argv.join(" ")} ended with status ${code}:\n${cut}${shown.join("\n")}`);
}

/** pnpm as a command prefix. Never a global install: without a fitting pnpm, npx keeps one in npm's own cache. */
/** @type {readonly [string, ...string[]] | undefined} */
let pnpmPrefix;

/** @param {string[]} args */
async function pnpm(...args) {
  if (pnpmPrefix === undefined) {
    const { code, output } = onPath("pnpm") ? await run(["pnpm", "--version"]) : { code: 127, output: "" };
    // 11 doesn't run on Node 20; 10 and 12 are tried.
    const fits = code === 0 && /^(10|12)\./.test(output.trim().split("\n").at(-1) ?? "");
    pnpmPrefix = fits ? ["pnpm"] : ["npx", "--yes", `pnpm@${PNPM_VERSION}`];
  }
  await mustRun([...pnpmPrefix, ...args]);
}

/** The package.json files of the workspace that pnpm-workspace.yaml describes. */
function packageManifests() {
  const folders = ["packages", "examples"].flatMap((parent) =>
    readdirSync(join(ROOT, parent)).map((name) => join(parent, name)),
  );
  return [".", ...folders, "bench"].map((folder) => join(folder, "package.json"));
}

async function setUp() {
  const missing = missingPackages();
  if (missing.length > 0) {
    await report(`installing Debian packages ${missing.join(" ")}`, () => installPackages(missing));
  }

  await unlessUnchanged(
    {
      name: "install",
      inputs: ["pnpm-lock.yaml", "pnpm-workspace.yaml", ...packageManifests()],
      outputs: ["node_modules/.modules.yaml", "node_modules/.bin/tsc"],
    },
    () =>
      report("installing npm packages", () =>
        // A node_modules made with another store is replaced without a question nobody is there to answer.
        pnpm("install", "--frozen-lockfile", "--config.confirm-modules-purge=false"),
      ),
  );

  await unlessUnchanged(
    {
      name: "generate",
      inputs: ["proto", "packages/pccl-core/package.json", "packages/pccl-core/scripts"],
      outputs: ["packages/pccl-core/src/control/generated"],
    },
    () => report("generating types from proto/", () => pnpm("--filter", "@pccl/core", "run", "generate")),
  );

  await unlessUnchanged(
    {
      name: "native",
      inputs: ["native", "packages/bindings/CMakeLists.txt", "packages/bindings/package.json"],
      outputs: ["build/native"],
    },
    () =>
      report("building the native addon", () => pnpm("--filter", "@pccl/bindings", "run", "build:native")),
  );

  await mustRun(["node_modules/.bin/tsc", "-b"]);
}

/** Throws an error with the failed command's output; runs of several processes wait for each other. */
export async function bootstrap() {
  checkPlatform();
  await withLock("set-up", setUp);
}

/** For scripts that have nothing to do without a set-up: its failure is theirs. */
export async function bootstrapOrExit() {
  const started = performance.now();
  try {
    await bootstrap();
  } catch (error) {
    process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  }
  process.stderr.write(`set-up: ready in ${secondsSince(started)}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await bootstrapOrExit();
