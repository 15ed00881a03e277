import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["packages/*/test/**/*.test.ts", "examples/*/test/**/*.test.ts", "scripts/**/*.test.ts"],
    // Native addons and tests that end processes belong in processes of their own.
    pool: "forks",
    // Generous, because a slow machine isn't a failure: a test that hangs waits on something that never comes.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
