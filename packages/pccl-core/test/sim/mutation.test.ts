/** The simulator has to catch a coordinator that is wrong: the verdict rule is replaced by plausible others. */
import { describe, expect, it, vi } from "vitest";
import type { OpReport, OpState } from "../../src/membership/messages.js";
import { runSeed } from "../../src/sim/cluster.js";

type Rule = (states: readonly (OpState | undefined)[]) => boolean;

const broken = vi.hoisted(() => ({ rule: (() => false) as Rule }));

vi.mock("../../src/membership/verdicts.js", async (original) => ({
  ...(await original<typeof import("../../src/membership/verdicts.js")>()),
  decide: (epoch: number, reports: ReadonlyMap<number, ReadonlyMap<string, OpReport>>) => {
    const survivors = [...reports.values()];
    const ops = new Map(survivors.flatMap((ofPeer) => [...ofPeer]));
    const verdicts = [...ops].map(([key, { tag, seq }]) => ({
      epoch,
      tag,
      seq,
      commit: broken.rule(survivors.map((ofPeer) => ofPeer.get(key)?.state)),
    }));
    return { verdicts, contradictions: [] };
  },
}));

const isDone = (state: OpState | undefined): boolean => state === "done" || state === "committed";

function firstFailure(rule: Rule): string | undefined {
  broken.rule = rule;
  for (let seed = 1; seed <= 300; seed++) {
    try {
      runSeed(seed);
    } catch (error) {
      return (error as Error).message;
    }
  }
  return undefined;
}

describe("the simulator", () => {
  it("passes with the same rule written another way", () => {
    expect(firstFailure((states) => states.includes("committed") || states.every(isDone))).toBeUndefined();
  });

  it.each<[string, Rule, RegExp]>([
    ["aborts what all survivors have done", (states) => states.includes("committed"), /I1/],
    ["commits what one survivor has done", (states) => states.some(isDone), /I1|doesn't hold|verdict says/],
    [
      "leaves out survivors that have aborted",
      (states) => states.filter((state) => state !== "aborted").every(isDone),
      /I1|verdict says/,
    ],
    ["aborts always", () => false, /I1|verdict says/],
  ])("catches a coordinator that %s", (_, rule, message) => {
    expect(firstFailure(rule)).toMatch(message);
  });
});
