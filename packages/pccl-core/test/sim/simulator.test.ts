/**
 * Whole worlds in virtual time: the coordinator and session machines that ship, a modelled data plane, and faults
 * at any moment. Runs as many seeds as fit into PCCL_SIM_SECONDS, from PCCL_SIM_SEED on; without that, in CI from one
 * that the sources give, and elsewhere from one that the clock gives. To see a failing seed: npx pccl simulate --seed S.
 */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { drawScenario } from "../../src/sim/scenario.js";
import { runScenario, runSeed } from "../../src/sim/simulation.js";
import { addRun, emptyTally } from "../../src/sim/tally.js";

const { CI, PCCL_SIM_SECONDS, PCCL_SIM_SEED } = process.env;
const seconds = Number(PCCL_SIM_SECONDS ?? 60);
const first = Number(PCCL_SIM_SEED ?? (CI === "true" ? seedOfTree() : undefined) ?? seedOfClock());
/** Too few to reach everything, but no machine is so slow. */
const SEEDS_MIN = 1_000;

function seedOfClock(): number {
  return (Math.floor(Date.now() / 1_000) * 1_000) % 2 ** 31;
}

/** What was checked in decides which seeds are run, so that the same sources pass or fail in the same way. */
function seedOfTree(): number | undefined {
  const { status, stdout } = spawnSync("git", ["rev-parse", "HEAD^{tree}"], { encoding: "utf8" });
  return status === 0 ? Number.parseInt(stdout.slice(0, 7), 16) : undefined;
}

describe("the simulator", () => {
  const tally = emptyTally();

  it("keeps every rule and ends every call", { timeout: (seconds + 600) * 1_000 }, () => {
    const deadlineMs = performance.now() + seconds * 1_000;
    for (let seed = first; performance.now() < deadlineMs || tally.seeds < SEEDS_MIN; seed++) {
      const result = runSeed(seed);
      addRun(tally, result);
      if (result.violation !== undefined) {
        expect.fail(`${result.violation.message}\nsee: npx pccl simulate --seed ${seed}`);
      }
    }
    console.info(`simulated seeds ${first}..${first + tally.seeds - 1}`);
  });

  it.each([
    [58_090_781, "a removed peer withdrew an op, and was taken for one of those whose verdicts must agree"],
    [58_026_214, "two firewalls, one for each way, kept a pair apart that was thought to be able to link"],
    [58_103_490, "likewise"],
    [60_092_517, "a stopped coordinator counted its own pause against those who were to prepare a view"],
    [61_187_301, "engines told of a link that broke between prepared and installed, as the real ones don't"],
    [59_905_939, "a third peer that nobody can dial was thought to be able to relay"],
    [64_104_233, "a member that was stopped while it was to be linked was thought to have been there"],
    [70_073_571, "two peers waited for each other that a new, large ring didn't link"],
    [
      5_209,
      "a member that still fetched was taken for one that waited for an op's caller, and never heard again",
    ],
    [
      25_684_538,
      "one of two who exchange had died before the other one called, while the coordinator was stopped",
    ],
  ])("keeps every rule with seed %i, which once broke one: %s", (seed) => {
    expect(runSeed(seed).violation).toBeUndefined();
  });

  it("gives the same run for the same seed", () => {
    for (const seed of [1, first]) {
      const run = runScenario(drawScenario(seed), { trace: true });
      expect(run.trace.length).toBeGreaterThan(0);
      expect(runScenario(drawScenario(seed), { trace: true })).toEqual(run);
    }
  });

  it("reaches what it is there for", () => {
    for (const [what, count] of Object.entries(tally.counts)) expect(count, what).toBeGreaterThan(0);
    const faults = [
      "crash",
      "vanish",
      "leave",
      "stop",
      "slow",
      "busy",
      "cut-control",
      "reset-lanes",
      "firewall",
      "partition",
      "restart-coordinator",
    ];
    expect(Object.keys(tally.faults).sort()).toEqual(faults.sort());
    const peers = Object.values(tally.results).reduce((sum, count) => sum + count, 0);
    expect(tally.results["done"]).toBeGreaterThan(peers / 2);
    expect(Object.keys(tally.results)).toEqual(
      expect.arrayContaining(["ERR_PCCL_REMOVED", "ERR_PCCL_COORDINATOR_LOST", "left", "dead"]),
    );
  });
});
