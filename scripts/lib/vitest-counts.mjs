/** A vitest reporter that writes what test.mjs adds up: counts, and why tests were skipped. */
import { writeFileSync } from "node:fs";

/** The environment variable that names the file to write. */
export const COUNTS_FILE_VARIABLE = "PCCL_TEST_COUNTS_FILE";

/**
 * @param {import("vitest/node").TestCase} test
 * @param {string | undefined} note what the test said when it skipped itself
 */
function skipReason(test, note) {
  if (note !== undefined) return note;
  for (let parent = test.parent; ; parent = parent.parent) {
    if (parent.errors().length > 0) return "what it needs couldn't be set up";
    if (parent.type === "module") return "the test gives no reason";
  }
}

export default class CountsReporter {
  /**
   * @param {readonly import("vitest/node").TestModule[]} testModules
   * @param {readonly unknown[]} unhandledErrors
   */
  onTestRunEnd(testModules, unhandledErrors) {
    /** @type {import("./test-step.mjs").TestCounts} */
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: [] };
    for (const testModule of testModules) {
      // A file that can't be loaded, or a hook that fails, has no failed test of its own to be counted by.
      counts.failed += testModule.errors().length;
      for (const suite of testModule.children.allSuites()) counts.failed += suite.errors().length;
      for (const test of testModule.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") counts.passed += 1;
        else if (result.state === "skipped") {
          counts.skipped.push({ name: test.fullName, reason: skipReason(test, result.note) });
        } else counts.failed += 1;
      }
    }
    writeFileSync(process.env[COUNTS_FILE_VARIABLE] ?? "", JSON.stringify(counts));
  }
}
