/**
 * Whole worlds in virtual time: the coordinator and session machines that ship, a modelled data plane, and faults
 * at random moments. To run one seed again: PCCL_SIM_SEED=123. To run more: PCCL_SIM_SEEDS=5000.
 */
import { describe, expect, it } from "vitest";
import { type RunResult, runSeed } from "../../src/sim/cluster.js";

const one = process.env["PCCL_SIM_SEED"];
const count = Number(process.env["PCCL_SIM_SEEDS"] ?? 300);
const seeds = one === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(one)];

describe("the simulator", () => {
  const runs: RunResult[] = [];

  it("keeps every invariant and ends every call", { timeout: 600_000 }, () => {
    for (const seed of seeds) runs.push(runSeed(seed));
    expect(runs).toHaveLength(seeds.length);
  });

  it("gives the same run for the same seed", () => {
    const seed = seeds[0] as number;
    expect(runSeed(seed)).toEqual(runs[0]);
  });

  it.skipIf(one !== undefined)("reaches what it is there for", () => {
    const total = (pick: (run: RunResult) => number): number => runs.reduce((sum, run) => sum + pick(run), 0);
    for (const kind of ["commits", "aborts", "installs", "syncs", "restarts"] as const) {
      expect(
        total((run) => run.counts[kind]),
        kind,
      ).toBeGreaterThan(0);
    }
    for (const fault of [
      "crash",
      "stop",
      "control stream cut",
      "control stream black-holed",
      "link cut",
      "pair unreachable",
      "coordinator stopped",
    ]) {
      expect(
        total((run) => run.faults[fault] ?? 0),
        fault,
      ).toBeGreaterThan(0);
    }
    const results = runs.flatMap((run) => run.results);
    expect(results.filter((result) => result === "done").length).toBeGreaterThan(results.length / 3);
    expect(results).toContain("ERR_PCCL_REMOVED");
  });
});
