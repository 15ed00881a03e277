/**
 * What every plan keeps, whatever the loads. Method: random batches (fast-check shrinks what fails), plans by every
 * planner, and each rule computed anew from the plan alone.
 */
import {
  costModelInCopies,
  type CostModel,
  type ExpertPlan,
  type PlanOptions,
  type Planner,
  planExperts,
} from "@pccl/moe-ep";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Batch, batches } from "./random-batch.js";

const RUNS = { numRuns: 300 };
const PLANNERS: readonly Planner[] = ["ep", "lla", "auto", "eplb"];
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const max = (values: readonly number[]): number => Math.max(0, ...values);

function expertCounts({ counts, experts }: Batch): number[] {
  return Array.from({ length: experts }, (_, expert) => sum(counts.map((row) => row[expert] as number)));
}

/** Copies of each expert at each rank, from the intervals alone. */
function sharesOf(plan: ExpertPlan, ranks: number): number[][] {
  return plan.assignments.map((intervals) => {
    const shares = new Array<number>(ranks).fill(0);
    for (const { rank, start, end } of intervals) shares[rank] = (shares[rank] as number) + end - start;
    return shares;
  });
}

/** The send matrix by definition: each position belongs to a source rank and lies in one interval. */
function sendMatrixOf(plan: ExpertPlan, { ranks, counts }: Batch): number[][] {
  const matrix = Array.from({ length: ranks }, () => new Array<number>(ranks).fill(0));
  for (const [expert, intervals] of plan.assignments.entries()) {
    let start = 0;
    for (const [source, row] of counts.entries()) {
      const end = start + (row[expert] as number);
      for (const interval of intervals) {
        const overlap = Math.min(end, interval.end) - Math.max(start, interval.start);
        const sent = matrix[source] as number[];
        if (overlap > 0) sent[interval.rank] = (sent[interval.rank] as number) + overlap;
      }
      start = end;
    }
  }
  return matrix;
}

function check(batch: Batch, options: PlanOptions): ExpertPlan {
  const plan = planExperts(batch.counts, options);
  const totals = expertCounts(batch);
  // Conservation: an expert's intervals cover its positions, in order and once.
  for (const [expert, intervals] of plan.assignments.entries()) {
    let position = 0;
    for (const { start, end } of intervals) {
      expect(start).toBe(position);
      expect(end).toBeGreaterThan(start);
      position = end;
    }
    expect(position).toBe(totals[expert]);
  }
  const shares = sharesOf(plan, batch.ranks);
  for (let rank = 0; rank < batch.ranks; rank++) {
    expect(plan.loadsAfter[rank]).toBe(sum(shares.map((share) => share[rank] as number)));
  }
  expect(sum(plan.loadsBefore)).toBe(sum(totals));
  expect(plan.sendMatrix).toEqual(sendMatrixOf(plan, batch));
  // Transfers are exactly the foreign shares.
  for (const { expert, source, target, copies } of plan.transfers) {
    expect(target).not.toBe(source);
    if (options.strictReference !== true) expect(shares[expert]?.[target]).toBe(copies);
  }
  return plan;
}

/** What holds for lla and auto on top. */
function checkLoans(batch: Batch, options: PlanOptions & { minChunkCopies: number }): ExpertPlan {
  const plan = check(batch, options);
  const pairs = plan.transfers.map(({ expert, target }) => `${expert} ${target}`);
  expect(new Set(pairs).size).toBe(pairs.length);
  for (const { copies } of plan.transfers) expect(copies).toBeGreaterThanOrEqual(options.minChunkCopies);
  const foreign = sharesOf(plan, batch.ranks).map((share) => share.filter((copies) => copies > 0).length);
  expect(sum(foreign)).toBeLessThanOrEqual(batch.experts + plan.transfers.length);
  // As few copies cross ranks as these loads allow.
  const local = sharesOf(plan, batch.ranks).map((share, expert) =>
    sum(share.map((copies, rank) => Math.min(copies, batch.counts[rank]?.[expert] as number))),
  );
  expect(sum(plan.sendMatrix.map((row, rank) => row[rank] as number))).toBe(sum(local));
  return plan;
}

const chunks = fc.constantFrom(1, 8, 64, 1024);

describe("planExperts", () => {
  it("conserves copies under every planner", () => {
    fc.assert(
      fc.property(batches, fc.constantFrom(...PLANNERS), chunks, (batch, planner, minChunkCopies) => {
        check(batch, { planner, minChunkCopies, minImbalance: 0 });
      }),
      RUNS,
    );
  });

  it("conserves copies in strict mode", () => {
    const alphas = fc.constantFrom(0.3, 0.57, 1, 1.1, 2);
    fc.assert(
      fc.property(batches, chunks, alphas, (batch, minChunkCopies, capacityFactor) => {
        fc.pre(batch.experts % batch.ranks === 0);
        check(batch, { planner: "lla", strictReference: true, minChunkCopies, capacityFactor });
      }),
      RUNS,
    );
  });

  it("lends under lla at least a chunk, to a rank once, and within capacity or not at all", () => {
    fc.assert(
      fc.property(batches, chunks, fc.constantFrom(1, 1.25, 2), (batch, minChunkCopies, capacityFactor) => {
        const plan = checkLoans(batch, { planner: "lla", minChunkCopies, capacityFactor, minImbalance: 0 });
        expect(max(plan.loadsAfter)).toBeLessThanOrEqual(max(plan.loadsBefore));
        const capacity = Math.ceil((capacityFactor * sum(plan.loadsBefore)) / batch.ranks);
        if (minChunkCopies === 1) expect(max(plan.loadsAfter)).toBeLessThanOrEqual(capacity);
        // A borrower exceeds its capacity only by less than a chunk, and its experts' own load.
        for (const { target } of plan.transfers) {
          const load = plan.loadsAfter[target] as number;
          expect(load).toBeLessThan(Math.max(capacity, plan.loadsBefore[target] as number) + minChunkCopies);
        }
      }),
      RUNS,
    );
  });

  it("predicts of auto no more than of plain expert parallelism", () => {
    const costs = fc.record({
      copySeconds: fc.constant(1),
      expertSeconds: fc.constantFrom(0, 10),
      transferSeconds: fc.constantFrom(0, 3, 200, 5_000),
      farTransferSeconds: fc.constantFrom(0, 1_000),
      crossCopySeconds: fc.constantFrom(0, 0.1, 2),
      farCrossCopySeconds: fc.constantFrom(0, 1),
      lendSeconds: fc.constantFrom(0, 50, 5_000),
    });
    fc.assert(
      fc.property(batches, chunks, costs, (batch, minChunkCopies, costModel: CostModel) => {
        const nodes = batch.counts.map((_, rank) => rank >> 1);
        const plan = checkLoans(batch, { minChunkCopies, costModel, nodes });
        expect(plan.predicted.stepSeconds).toBeLessThanOrEqual(plan.predictedBefore.stepSeconds);
      }),
      RUNS,
    );
  });

  it("weighs auto's loans by max(load + w·max(imports, exports)), computed here from the plan", () => {
    fc.assert(
      fc.property(batches, chunks, fc.constantFrom(0, 5, 300), (batch, minChunkCopies, transferCopies) => {
        const plan = checkLoans(batch, { minChunkCopies, costModel: costModelInCopies(transferCopies) });
        const cost = Array.from({ length: batch.ranks }, (_, rank) => {
          const ends = (end: "source" | "target"): number =>
            plan.transfers.filter((transfer) => transfer[end] === rank).length;
          return (
            (plan.loadsAfter[rank] as number) + transferCopies * Math.max(ends("source"), ends("target"))
          );
        });
        expect(plan.predicted.stepSeconds).toBeCloseTo(max(cost), 3);
        expect(max(cost)).toBeLessThanOrEqual(max(plan.loadsBefore));
      }),
      RUNS,
    );
  });

  it("keeps import budgets", () => {
    fc.assert(
      fc.property(
        batches,
        fc.constantFrom<Planner>("lla", "auto"),
        fc.array(fc.integer({ min: 0, max: 3_500 }), { minLength: 9, maxLength: 9 }),
        (batch, planner, budgets) => {
          const importBudgetBytes = budgets.slice(0, batch.ranks);
          const plan = check(batch, {
            planner,
            importBudgetBytes,
            expertBytes: 1_000,
            minChunkCopies: 1,
            minImbalance: 0,
            costModel: costModelInCopies(0),
          });
          for (const [rank, budget] of importBudgetBytes.entries()) {
            const imports = plan.transfers.filter(({ target }) => target === rank).length;
            expect(imports * 1_000).toBeLessThanOrEqual(budget);
          }
        },
      ),
      RUNS,
    );
  });

  it("gives equal plans for equal requests, ties or not, whatever holds the numbers", () => {
    fc.assert(
      fc.property(batches, fc.constantFrom(...PLANNERS), (batch, planner) => {
        const coarse = batch.counts.map((row) => row.map((copies) => Math.ceil(copies / 100) * 100));
        const plan = planExperts(coarse, { planner, minImbalance: 0 });
        expect(
          planExperts(
            coarse.map((row) => Int32Array.from(row)),
            { planner, minImbalance: 0 },
          ),
        ).toEqual(plan);
      }),
      RUNS,
    );
  });

  it("follows ranks' speeds, explicit owners, and leaves a rank without experts to help", () => {
    fc.assert(
      fc.property(batches, fc.constantFrom<Planner>("lla", "auto"), (batch, planner) => {
        const nativeRanks = Array.from({ length: batch.experts }, () => batch.ranks - 1);
        const rankSpeeds = batch.counts.map((_, rank) => 1 + (rank % 3));
        const plan = check(batch, {
          planner,
          nativeRanks,
          rankSpeeds,
          minChunkCopies: 1,
          minImbalance: 0,
          costModel: costModelInCopies(0),
        });
        // Every expert starts on one rank, so any imbalance left is less than a copy per rank.
        const speeds = sum(rankSpeeds);
        for (const [rank, load] of plan.loadsAfter.entries()) {
          const fair = (sum(plan.loadsBefore) * (rankSpeeds[rank] as number)) / speeds;
          expect(load).toBeLessThanOrEqual(
            planner === "lla" ? Math.ceil(fair) : fair * 1.1 + batch.ranks * 3,
          );
        }
      }),
      RUNS,
    );
  });
});
