/** planExperts on small batches whose plans one can see, and on requests that make no sense. */
import { costModelInCopies, type PlanOptions, planExperts } from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";

const even = (ranks: number, row: readonly number[]): number[][] =>
  Array.from({ length: ranks }, () => [...row]);
const free = costModelInCopies(0);

describe("planExperts", () => {
  it("splits a hot expert between two ranks, each computing its own tokens first", () => {
    const plan = planExperts(even(2, [800, 0]), { costModel: costModelInCopies(100) });
    expect(plan.transfers).toEqual([{ expert: 0, source: 0, target: 1, copies: 800 }]);
    expect(plan.assignments[0]).toEqual([
      { rank: 0, start: 0, end: 800 },
      { rank: 1, start: 800, end: 1600 },
    ]);
    expect(plan.sendMatrix).toEqual([
      [800, 0],
      [0, 800],
    ]);
    expect([plan.predictedBefore.stepSeconds, plan.predicted.stepSeconds]).toEqual([1600, 900]);
  });

  it("lends nothing when that would take longer, or saves too little", () => {
    expect(planExperts(even(2, [800, 0]), { costModel: costModelInCopies(900) })).toMatchObject({
      isApplied: false,
      transfers: [],
      loadsAfter: [1600, 0],
    });
    expect(planExperts([[510, 490]], { costModel: free }).isApplied).toBe(false);
  });

  it("does not collapse when chunks are larger than the room", () => {
    // The reference keeps 1000 copies and forces 7000 onto one helper.
    const counts = even(8, [1000, ...new Array<number>(15).fill(0)]);
    const plan = planExperts(counts, { planner: "lla", minChunkCopies: 1024 });
    expect(Math.max(...plan.loadsAfter)).toBe(1024);
    expect(plan.transfers).toHaveLength(7);
  });

  it("rounds capacities up, so that a remainder costs no transfer", () => {
    const plan = planExperts(
      [
        [1001, 0],
        [0, 1000],
      ],
      { planner: "lla", minChunkCopies: 1, minImbalance: 0 },
    );
    expect(plan.transfers).toEqual([]);
  });

  it("waits under lla until the imbalance is worth it", () => {
    const counts = even(2, [120, 80]);
    const options: PlanOptions = { planner: "lla", minChunkCopies: 1 };
    expect(planExperts(counts, options).isApplied).toBe(false);
    expect(planExperts(counts, { ...options, minImbalance: 1.2 }).isApplied).toBe(true);
  });

  it("stays within a node where that is cheaper, and prefers tokens of the node", () => {
    // Experts 0 to 3 on ranks 0 to 3, nodes {0, 1} and {2, 3}; expert 0 is hot, its tokens on ranks 1 and 3.
    const counts = [
      [0, 0, 0, 0],
      [600, 0, 0, 0],
      [0, 0, 0, 0],
      [600, 0, 0, 0],
    ];
    const far = { ...costModelInCopies(10), farTransferSeconds: 5_000 };
    const plan = planExperts(counts, { nodes: [0, 0, 1, 1], costModel: far });
    expect(plan.transfers).toEqual([{ expert: 0, source: 0, target: 1, copies: 600 }]);
    expect(plan.sendMatrix[1]?.[1]).toBe(600);
    expect(plan.sendMatrix[3]?.[0]).toBe(600);
  });

  it("lends only what gains more than lending itself takes", () => {
    const counts = even(2, [800, 0, 0, 0]);
    const plan = (lendSeconds: number) =>
      planExperts(counts, { costModel: { ...costModelInCopies(10), lendSeconds } });
    // Half of the 1,600 copies is lent, so a loan gains 790 copies.
    expect(plan(0).predicted.stepSeconds).toBe(810);
    expect(plan(700)).toMatchObject({ isApplied: true, predicted: { rankSeconds: [1_510, 1_510] } });
    expect(plan(800)).toMatchObject({ isApplied: false, transfers: [], predicted: { stepSeconds: 1_600 } });
  });

  it("under eplb replicates by the statistics, and divides this batch evenly", () => {
    const plan = planExperts(even(2, [30, 10, 10, 10]), {
      planner: "eplb",
      eplb: { statistics: [100, 1, 1, 1], redundantExperts: 2 },
    });
    // Two of the three replicas of expert 0 share a rank.
    const loads = [...plan.loadsAfter].sort((a, b) => a - b);
    expect(loads.reduce((a, b) => a + b, 0)).toBe(120);
    expect(plan.assignments[0]?.map(({ rank }) => rank)).toEqual(expect.arrayContaining([0, 1]));
    expect(new Set(plan.transfers.map(({ expert, target }) => `${expert} ${target}`)).size).toBe(
      plan.transfers.length,
    );
  });

  it("takes counts up to 2^53 in all, and ranks that experts don't divide by", () => {
    const plan = planExperts(
      [
        [2 ** 52, 0, 0],
        [2 ** 52, 0, 0],
      ],
      { planner: "lla", minChunkCopies: 1 },
    );
    expect(plan.loadsAfter).toEqual([2 ** 52, 2 ** 52]);
    expect(planExperts(even(2, [1, 1, 1])).loadsBefore).toEqual([2, 4]);
  });
});

describe("planExperts refuses", () => {
  const counts = even(2, [5, 5, 5, 5]);
  const bad: readonly [string, unknown, unknown, string][] = [
    ["no rows", [], {}, "counts"],
    ["rows of different lengths", [[1, 2], [1]], {}, "counts[1]"],
    ["rows that are no arrays", [[1], "1"], {}, "counts[1]"],
    ["negative counts", [[1, -1]], {}, "counts[0][1]"],
    ["fractions", [[1, 1.5]], {}, "counts[0][1]"],
    ["NaN", [[Number.NaN]], {}, "counts[0][0]"],
    ["texts", [[1], ["2"]], {}, "counts[1][0]"],
    ["fractions in a typed array", [Float64Array.of(1, 1), Float32Array.of(1, 0.5)], {}, "counts[1][1]"],
    ["negative counts in a typed array", [Int8Array.of(1, 1), Int8Array.of(-1, 0)], {}, "counts[1][0]"],
    ["bigints", [BigInt64Array.of(1n, 2n)], {}, "counts[0][0]"],
    ["fewer experts than ranks", [[1], [1]], {}, "1 experts can't occupy 2 ranks"],
    ["more than 2^53 copies", [[2 ** 53 - 1, 2]], {}, "2^53"],
    ["an unknown planner", counts, { planner: "best" }, "planner"],
    ["a capacity factor of 0", counts, { capacityFactor: 0 }, "capacityFactor"],
    ["a chunk of 0", counts, { minChunkCopies: 0 }, "minChunkCopies"],
    ["a speed of 0", counts, { rankSpeeds: [1, 0] }, "speeds"],
    ["a speed too few", counts, { rankSpeeds: [1] }, "rankSpeeds"],
    ["a native rank that doesn't exist", counts, { nativeRanks: [0, 1, 2, 0] }, "native rank 2"],
    ["half a node", counts, { nodes: [0, 0.5] }, "nodes"],
    ["a budget without a size", counts, { importBudgetBytes: 10 }, "expertBytes"],
    ["a free copy", counts, { costModel: { ...free, copySeconds: 0 } }, "copySeconds"],
    ["a cost model with a hole", counts, { costModel: { copySeconds: 1 } }, "costModel.expertSeconds"],
    ["eplb's options for another planner", counts, { eplb: {} }, "eplb"],
    [
      "replicas that don't divide",
      counts,
      { planner: "eplb", eplb: { redundantExperts: 1 } },
      "don't divide",
    ],
    ["strict mode of another planner", counts, { strictReference: true }, "lla"],
    [
      "strict mode with speeds",
      counts,
      { planner: "lla", strictReference: true, rankSpeeds: [1, 2] },
      "rankSpeeds",
    ],
    [
      "strict mode with uneven ranks",
      even(2, [1, 1, 1]),
      { planner: "lla", strictReference: true },
      "3 on 2",
    ],
  ];
  it.each(bad)("%s", (_, rows, options, name) => {
    expect(() => planExperts(rows as number[][], options as PlanOptions)).toThrow(
      expect.objectContaining({
        code: "ERR_PCCL_INVALID_ARGUMENT",
        message: expect.stringContaining(name) as string,
      }),
    );
  });

  it("an unknown option", () => {
    expect(() => planExperts(counts, { alpha: 1 } as PlanOptions)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_UNKNOWN_OPTION" }),
    );
  });
});
