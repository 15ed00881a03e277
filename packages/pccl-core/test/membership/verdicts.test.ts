/** The verdict rule against the thing that it decides about: every cut through a run of done and commit. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { OpReport } from "../../src/membership/messages.js";
import { decide, opKey } from "../../src/membership/verdicts.js";
import { op, pairOp } from "./world.js";

function reports(...ofPeers: OpReport[][]): Map<number, Map<string, OpReport>> {
  return new Map(ofPeers.map((ops, i) => [i + 1, new Map(ops.map((report) => [opKey(report), report]))]));
}

function verdict(...states: (OpReport["state"] | "unknown")[]): boolean | undefined {
  const ofPeers = states.map((state) => (state === "unknown" ? [] : [op(3, 1n, state)]));
  return decide(3, reports(...ofPeers)).verdicts[0]?.commit;
}

describe("decide", () => {
  it.each([
    [true, ["committed"]],
    [true, ["committed", "done"]],
    [true, ["done", "done"]],
    [false, ["done", "not-done"]],
    [false, ["done", "aborted"]],
    [false, ["done", "unknown"]],
    [false, ["not-done", "not-done"]],
    [undefined, ["unknown", "unknown"]],
  ] as const)("says commit=%s to %j", (commit, states) => {
    expect(verdict(...states)).toBe(commit);
  });

  it("names reports that can't both be true", () => {
    const { contradictions } = decide(3, reports([op(3, 1n, "committed")], [op(3, 1n, "not-done")]));
    expect(contradictions).toEqual([expect.stringMatching(/peer 1 committed, peer 2 not-done/)]);
  });

  it("asks only those who take part in an op between two members", () => {
    const [one, two, three] = [
      [pairOp(3, 1, 2, "done")],
      [pairOp(3, 1, 2, "done"), pairOp(3, 2, 3, "done")],
      [],
    ];
    expect(decide(3, reports(one, two, three)).verdicts).toMatchObject([
      { from: 1, to: 2, commit: true },
      // Its receiver lives, and doesn't know it.
      { from: 2, to: 3, commit: false },
    ]);
    // The receiver is dead.
    expect(decide(3, reports(one, two)).verdicts[1]).toMatchObject({ from: 2, to: 3, commit: true });
  });

  it("tells a send from the one the other way, and from an op of the group", () => {
    const mine = [pairOp(3, 1, 2, "done"), pairOp(3, 2, 1, "not-done"), op(3, 7n, "done")];
    const theirs = [pairOp(3, 1, 2, "done"), pairOp(3, 2, 1, "done"), op(3, 7n, "done")];
    expect(decide(3, reports(mine, theirs)).verdicts.map(({ commit }) => commit)).toEqual([
      true,
      false,
      true,
    ]);
  });

  it("tells ops apart by tag and by seq", () => {
    const { verdicts } = decide(
      3,
      reports(
        [op(3, 1n, "committed", 0), op(3, 1n, "not-done", 1), op(3, 2n ** 64n - 1n, "done", 0)],
        [op(3, 1n, "committed", 0), op(3, 1n, "done", 1), op(3, 2n ** 64n - 1n, "done", 0)],
      ),
    );
    expect(verdicts.map(({ tag, seq, commit }) => [tag, seq, commit])).toEqual([
      [1n, 0, true],
      [1n, 1, false],
      [2n ** 64n - 1n, 0, true],
    ]);
  });

  /**
   * Any state that a real op can be frozen in: some members done; if all are, some of those have heard of all the
   * others and committed. Whoever survives, the verdict must agree with every commit, the dead members' included,
   * and must not commit what a survivor lacks.
   */
  it("agrees with whoever has committed, dead or alive, and never commits what a survivor lacks", () => {
    const member = fc.record({ done: fc.boolean(), commits: fc.boolean(), survives: fc.boolean() });
    fc.assert(
      fc.property(fc.array(member, { minLength: 1, maxLength: 6 }), (members) => {
        const allDone = members.every(({ done }) => done);
        const states = members.map(({ done, commits }) =>
          !done ? "not-done" : allDone && commits ? "committed" : "done",
        );
        const survivors = states.filter((_, i) => members[i]?.survives);
        if (survivors.length === 0) return;
        const commit = verdict(...survivors);
        if (states.includes("committed")) expect(commit).toBe(true);
        if (survivors.includes("not-done")) expect(commit).toBe(false);
      }),
    );
  });
});
