/**
 * `npm test [-- --only STEP]`: sets up what is missing, then runs every check there is. The last line is
 * `N passed, N failed`; the status is 1 when anything failed or nothing ran.
 */
import { parseArgs } from "node:util";
import { bootstrap } from "./bootstrap.mjs";
import { secondsSince } from "./lib/command.mjs";
import { STEP_GROUPS } from "./lib/test-step.mjs";

/** @typedef {import("./lib/test-step.mjs").TestCounts} TestCounts */

/** @param {TestCounts} counts */
function summary({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`;
}

/**
 * @param {string} name
 * @param {() => Promise<TestCounts>} step
 */
async function timed(name, step) {
  const started = performance.now();
  const counts = await step();
  process.stdout.write(`${name}: ${summary(counts)} (${secondsSince(started)})\n`);
  return counts;
}

/** @returns {Promise<TestCounts>} */
async function setUp() {
  try {
    await bootstrap();
    return { passed: 0, failed: 0, skipped: [] };
  } catch (error) {
    process.stdout.write(`\n${error instanceof Error ? error.message : String(error)}\n`);
    return { passed: 0, failed: 1, skipped: [] };
  }
}

/** @param {string | undefined} only @returns {Promise<TestCounts>} */
async function runAll(only) {
  const total = await setUp();
  if (total.failed > 0) return total;
  for (const group of STEP_GROUPS) {
    const chosen = Object.entries(group).filter(([name]) => only === undefined || name === only);
    for (const counts of await Promise.all(chosen.map(([name, step]) => timed(name, step)))) {
      total.passed += counts.passed;
      total.failed += counts.failed;
      total.skipped.push(...counts.skipped);
    }
  }
  return total;
}

const { values } = parseArgs({ options: { only: { type: "string" } } });
const names = STEP_GROUPS.flatMap((group) => Object.keys(group));
if (values.only !== undefined && !names.includes(values.only)) {
  process.stderr.write(`--only takes one of ${names.join(", ")}, not ${values.only}.\n`);
  process.exit(2);
}
const total = await runAll(values.only);
for (const { name, reason } of total.skipped) process.stdout.write(`skipped: ${name}: ${reason}\n`);
process.stdout.write(`${summary(total)}\n`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
