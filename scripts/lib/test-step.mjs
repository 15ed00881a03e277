/** The steps of `npm test`. Each gives counts and prints what a reader needs to mend a failure. */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ROOT, run } from "./command.mjs";
import { withLock } from "./lock.mjs";
import { COUNTS_FILE_VARIABLE } from "./vitest-counts.mjs";

/**
 * @typedef {object} TestCounts
 * @property {number} passed
 * @property {number} failed
 * @property {{ name: string, reason: string }[]} skipped
 */

/** @param {boolean} passed @returns {TestCounts} a step that is one test */
function single(passed) {
  return { passed: passed ? 1 : 0, failed: passed ? 0 : 1, skipped: [] };
}

/**
 * A step that is one command and prints only when it fails.
 * @param {readonly [string, ...string[]]} argv
 */
async function check(argv) {
  const { code, output } = await run(argv);
  if (code !== 0) process.stdout.write(`${argv.join(" ")}\n${output}\n`);
  return single(code === 0);
}

/** @param {string} text */
function unescapeXml(text) {
  return text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&amp;", "&");
}

/** @param {string} output of one skipped GoogleTest case */
function googleTestSkipReason(output) {
  return /: Skipped\n(.+?)\n\[ {2}SKIPPED \]/s.exec(output)?.[1] ?? "the test gives no reason";
}

/** @param {string} xml JUnit XML as ctest writes it @returns {TestCounts} */
export function countsOfCtest(xml) {
  /** @type {TestCounts} */
  const counts = { passed: 0, failed: 0, skipped: [] };
  for (const [, attributes = "", body = ""] of xml.matchAll(/<testcase ([^>]*)>(.*?)<\/testcase>/gs)) {
    const name = unescapeXml(/ ?name="([^"]*)"/.exec(attributes)?.[1] ?? "");
    const status = /status="([^"]*)"/.exec(attributes)?.[1];
    if (status === "run") counts.passed += 1;
    else if (status === "notrun" && body.includes("<skipped ")) {
      counts.skipped.push({ name, reason: googleTestSkipReason(unescapeXml(body)) });
    } else if (status === "disabled") counts.skipped.push({ name, reason: "disabled in the source" });
    else counts.failed += 1;
  }
  return counts;
}

const NATIVE_FOLDER = "build/native-test";
const NATIVE_STEPS = /** @type {const} */ ([
  [
    "cmake",
    "-S",
    "native",
    "-B",
    NATIVE_FOLDER,
    "-G",
    "Ninja",
    "-DCMAKE_BUILD_TYPE=Release",
    "-DPCCL_TESTS=ON",
  ],
  ["cmake", "--build", NATIVE_FOLDER, "--parallel", "2"],
]);

/** Two runs in one build folder would overwrite each other's objects. */
function nativeTests() {
  return withLock("native-test", async () => {
    for (const argv of NATIVE_STEPS) {
      const { code, output } = await run(argv);
      if (code !== 0) {
        process.stdout.write(`${argv.join(" ")}\n${output}\n`);
        return single(false);
      }
    }
    const report = join(ROOT, NATIVE_FOLDER, "junit.xml");
    rmSync(report, { force: true });
    const { code, output } = await run([
      "ctest",
      "--test-dir",
      NATIVE_FOLDER,
      "--output-on-failure",
      "--output-junit",
      report,
      "--parallel",
      "2",
      "--no-tests=error",
    ]);
    const counts = code === 127 ? single(false) : countsOfCtest(readFileSync(report, "utf8"));
    // ctest fails for reasons of its own, too: no tests, or a program that lists none.
    if (code !== 0 && counts.failed === 0) counts.failed = 1;
    if (counts.failed > 0) process.stdout.write(output);
    return counts;
  });
}

async function vitest() {
  mkdirSync(join(ROOT, "build"), { recursive: true });
  const file = join(ROOT, "build", `vitest-counts.${process.pid}.json`);
  try {
    const { code } = await run(
      ["node_modules/.bin/vitest", "run", "--reporter=default", "--reporter=./scripts/lib/vitest-counts.mjs"],
      // vitest sees a pipe, whatever this process writes to.
      {
        env: { [COUNTS_FILE_VARIABLE]: file, [process.stdout.isTTY ? "FORCE_COLOR" : "NO_COLOR"]: "1" },
        echo: true,
      },
    );
    const counts = /** @type {TestCounts} */ (JSON.parse(readFileSync(file, "utf8")));
    if (code !== 0 && counts.failed === 0) counts.failed = 1;
    return counts;
  } catch (error) {
    process.stdout.write(`vitest ended without a report: ${String(error)}\n`);
    return single(false);
  } finally {
    rmSync(file, { force: true });
  }
}

/** Steps of one group run at the same time. */
export const STEP_GROUPS = [
  {
    format: () => check(["node_modules/.bin/biome", "format", "."]),
    lint: () => check(["node_modules/.bin/oxlint"]),
    types: () => check(["node_modules/.bin/tsc", "-b", "tsconfig.tests.json"]),
  },
  { native: nativeTests },
  { vitest },
];
