/** Weights that stay with their borrowers from step to step, until the owner has new ones, and what a step says about it. */
import {
  ExpertGroup,
  type ExpertFormat,
  ExpertLayer,
  ExpertWeights,
  generateRouting,
  type Routing,
} from "@pccl/moe-ep";
import { expect, it } from "vitest";
import { layerCase } from "./layer-case.js";
import { onRanks } from "./ranks.js";

const format: ExpertFormat = { kind: "swiglu", dtype: "f32", hiddenSize: 32, ffnSize: 16 };
const RANKS = 4;
const layer = layerCase(format, 8, 64);
const options = { format, experts: 8, tensors: layer.tensors };
const plan = { planner: "lla", minChunkCopies: 1, minImbalance: 0 } as const;
const expertBytes = ExpertWeights.packedBytes(format).inference;

function routing(rank: number): Routing {
  return generateRouting({ scenario: "100%:1", experts: 8, topK: 1, tokens: 64, ranks: RANKS, rank });
}

it("sends borrowed weights once, along a chain, and again when they have changed", async () => {
  const steps = await onRanks(RANKS, async (group) => {
    const mine = await ExpertLayer.create(group, { ...options, plan, lending: "send" });
    const all: { y: Float32Array; moved: number; peak: number; loads: readonly number[] }[] = [];
    for (const step of [0, 1, 2]) {
      if (step === 2 && group.rank === 0) await mine.setExpert(0, layer.tensors(5));
      const y = (await mine.forward(layer.x, routing(group.rank))) as Float32Array;
      const {
        weightBytesMoved: moved = 0,
        peakBytes: peak = 0,
        loadsAfter: loads = [],
      } = mine.statistics ?? {};
      all.push({ y, moved, peak, loads });
    }
    return all;
  });
  // Rank 0 sends to 1, which sends to 2, which sends to 3.
  const hops = [1, 2, 2, 1].map((ends) => ends * expertBytes);
  expect(steps.map(([first]) => first?.moved)).toEqual(hops);
  expect(steps.map(([, second]) => second?.moved)).toEqual([0, 0, 0, 0]);
  expect(steps.map(([, , third]) => third?.moved)).toEqual(hops);
  expect(steps[0]?.[0]?.loads).toEqual([64, 64, 64, 64]);
  // What it holds counts as memory, also when nothing had to be sent.
  expect(steps[1]?.[1]?.peak).toBe(steps[1]?.[0]?.peak);
  expect((steps[1]?.[0]?.peak ?? 0) - (steps[0]?.[0]?.peak ?? 0)).toBe(expertBytes);

  const alone = await ExpertLayer.create(ExpertGroup.alone(), options);
  const before = await alone.forward(layer.x, routing(3));
  await alone.setExpert(0, layer.tensors(5));
  const after = await alone.forward(layer.x, routing(3));
  expect(steps[3]?.map(({ y }) => y)).toEqual([before, before, after]);
});

it("reads mapped weights where they lie, new ones too, with no memory of its own", async () => {
  const outputs = await onRanks(2, async (group) => {
    const mine = await ExpertLayer.create(group, { ...options, plan });
    const first = await mine.forward(layer.x, routing(group.rank));
    const peak = mine.statistics?.peakBytes;
    if (group.rank === 0) await mine.setExpert(0, layer.tensors(5));
    const second = await mine.forward(layer.x, routing(group.rank));
    const { weightBytesBorrowed, weightBytesMoved } = mine.statistics ?? {};
    return { first, second, peak, weightBytesBorrowed, weightBytesMoved };
  });
  expect(outputs.map(({ weightBytesBorrowed }) => weightBytesBorrowed)).toEqual([0, expertBytes]);
  expect(outputs.map(({ weightBytesMoved }) => weightBytesMoved)).toEqual([0, 0]);
  expect(outputs[1]?.peak).toBe(outputs[0]?.peak);
  const alone = await ExpertLayer.create(ExpertGroup.alone(), options);
  expect(outputs[1]?.first).toEqual(await alone.forward(layer.x, routing(1)));
  await alone.setExpert(0, layer.tensors(5));
  expect(outputs[1]?.second).toEqual(await alone.forward(layer.x, routing(1)));
});

it("keeps to the budget for borrowed weights", async () => {
  const loads = await onRanks(2, async (group) => {
    const budgeted = { ...plan, importBudgetBytes: expertBytes - 1 };
    const mine = await ExpertLayer.create(group, { ...options, plan: budgeted });
    await mine.forward(layer.x, routing(group.rank));
    return mine.statistics?.loadsAfter;
  });
  expect(loads[0]).toEqual([128, 0]);
});
