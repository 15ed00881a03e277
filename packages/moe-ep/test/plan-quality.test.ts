/**
 * How good auto's plans are, as numbers that must not get worse: against the reference's plans on its own cases, and
 * against optima from a mixed-integer program. Everything is deterministic; no time is measured.
 */
import { costModelInCopies, type ExpertPlan, planExperts } from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";
import { hasGolden, readGoldenJson, WHY_SKIPPED } from "./shared.js";

interface LargeCase {
  readonly total: number;
  readonly counts_per_rank: number[][];
}

interface SmallCase {
  readonly P: number;
  readonly N: number;
  readonly m: number;
  readonly w: number;
  readonly loads: number[];
  /** 0 or missing where the solver found none. */
  readonly cost_opt: number | null;
}

/** max over ranks of (load + w · max(imports, exports)), in token-copies. */
function costOf({ loadsAfter, transfers }: Pick<ExpertPlan, "loadsAfter" | "transfers">, w: number): number {
  const pairs = [...new Map(transfers.map((loan) => [`${loan.expert} ${loan.target}`, loan])).values()];
  return Math.max(
    ...loadsAfter.map((load, rank) => {
      const imports = pairs.filter(({ target }) => target === rank).length;
      const exports = pairs.filter(({ source }) => source === rank).length;
      return load + w * Math.max(imports, exports);
    }),
  );
}

describe.skipIf(!hasGolden)(`auto (${WHY_SKIPPED})`, () => {
  const bounds = [
    { w: 200, cost: 0.98, speedUp: 1 / 0.98, transfers: 0.75 },
    { w: 1_714, cost: 0.93, speedUp: 1 / 0.93, transfers: 0.63 },
    { w: 12_000, cost: 0.75, speedUp: 1 / 0.67, transfers: 0.38 },
  ];
  it.each(bounds)("at $w copies a transfer costs at most $cost of the reference", ({ w, ...bound }) => {
    const cases = ["paper", "scenario", "random"]
      .flatMap((name) => readGoldenJson<{ cases: LargeCase[] }>(`llep/${name}.json`).cases)
      .filter(({ total }) => total >= 50_000);
    expect(cases.length).toBeGreaterThan(100);
    const sums = { auto: 0, reference: 0, autoTransfers: 0, referenceTransfers: 0, ratios: 0, speedUps: 0 };
    for (const { counts_per_rank: counts } of cases) {
      const strict = planExperts(counts, { planner: "lla", strictReference: true, minChunkCopies: 1024 });
      const reference = strict.isApplied ? strict : planExperts(counts, { planner: "ep" });
      const auto = planExperts(counts, { minChunkCopies: 1024, costModel: costModelInCopies(w) });
      const cost = costOf(auto, w);
      expect(cost).toBeLessThanOrEqual(Math.max(...auto.loadsBefore));
      sums.auto += cost;
      sums.reference += costOf(reference, w);
      sums.ratios += cost / costOf(reference, w) / cases.length;
      sums.speedUps += costOf(reference, w) / cost / cases.length;
      sums.autoTransfers += auto.transfers.length;
      sums.referenceTransfers += reference.transfers.length;
    }
    expect(sums.ratios).toBeLessThanOrEqual(bound.cost);
    expect(sums.speedUps).toBeGreaterThanOrEqual(bound.speedUp);
    expect(sums.auto / sums.reference).toBeLessThanOrEqual(bound.cost);
    expect(sums.autoTransfers / sums.referenceTransfers).toBeLessThanOrEqual(bound.transfers);
  });

  it("comes within 5 % of the optimum on average", () => {
    const rows = readGoldenJson<{ rows: SmallCase[] }>("llep/small_milp.json").rows;
    const solved = rows.filter(({ cost_opt: optimum }) => optimum !== null && optimum > 0);
    expect(solved.length).toBeGreaterThan(200);
    const ratios = solved.map(({ P, N, m, w, loads, cost_opt: optimum }) => {
      const counts = Array.from({ length: P }, (_, rank) =>
        rank === 0 ? loads : new Array<number>(N).fill(0),
      );
      const plan = planExperts(counts, { minChunkCopies: m, costModel: costModelInCopies(w) });
      return costOf(plan, w) / (optimum as number);
    });
    expect(ratios.reduce((a, b) => a + b, 0) / ratios.length).toBeLessThanOrEqual(1.05);
  });
});
