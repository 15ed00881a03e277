/**
 * The simulator: against the paper's measured speed-ups (fixtures/paper-bars.json), by hand on a small case, and rules
 * that hold for any batch.
 */
import { readFileSync } from "node:fs";
import {
  type Cluster,
  generateCounts,
  LEAN_RUNTIME,
  MODEL_NAMES,
  modelLayer,
  PAPER_RUNTIMES,
  parseCluster,
  type SimulateOptions,
  simulate,
} from "@pccl/moe-ep";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { batches } from "./random-batch.js";

const invalid = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });

interface Bar {
  readonly model: string;
  readonly scenario: string;
  readonly speedup: number;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] as number) + (sorted[sorted.length >> 1] as number)) / 2;
}

describe("simulate", () => {
  const { bars } = JSON.parse(readFileSync(new URL("fixtures/paper-bars.json", import.meta.url), "utf8")) as {
    bars: Bar[];
  };

  it.each(["gpt-oss", "deepseek"] as const)("comes to the paper's speed-ups of the family %s", (family) => {
    const errors = bars
      .map((bar) => ({ ...bar, layer: modelLayer(bar.model) }))
      .filter(({ layer }) => layer.family === family)
      .map(({ layer, scenario, speedup }) => {
        const { experts, topK, hiddenSize, ffnSize, tokensPerRank: tokens } = layer;
        const { forecasts } = simulate({
          shape: { hiddenSize, ffnSize, elementBytes: 2 },
          cluster: parseCluster("8xH200"),
          runtime: PAPER_RUNTIMES[family],
          batches: [generateCounts({ scenario, experts, topK, tokens, ranks: 8 })],
        });
        const published = forecasts.find(({ strictReference }) => strictReference);
        return Math.abs((published?.speedupOverEp ?? 0) / speedup - 1);
      });
    expect(errors.length).toBeGreaterThanOrEqual(13);
    expect(median(errors)).toBeLessThanOrEqual(0.04);
    // All but one, which the paper's other bars contradict too.
    expect(errors.filter((error) => error > 0.15).length).toBeLessThanOrEqual(1);
  });

  const cluster: Cluster = {
    ranks: 2,
    // A copy takes 1 s and an expert's weights 1 s; a copy crosses in 0.0625 s, there and back.
    hardware: { flopsPerSecond: 6 * 8 * 8, bytesPerSecond: 3 * 8 * 8 * 4 },
    nodes: [0, 0],
    dtype: "f32",
    minChunkCopies: 1,
    isGpu: false,
  };
  const options: SimulateOptions = {
    shape: { hiddenSize: 8, ffnSize: 8, elementBytes: 4 },
    cluster,
    runtime: { expertSeconds: 0.5, lendSeconds: 2, hiddenPerCopy: 2, ffnPerCopy: 1 },
    batches: [
      [
        [60, 0],
        [40, 0],
      ],
    ],
  };

  it("adds up experts, weights and tokens on the way, and what lending takes", () => {
    const { lowerBoundSeconds, forecasts } = simulate(options);
    const crossSeconds = (2 * 8 * 4) / (3 * 8 * 8 * 4);
    expect(lowerBoundSeconds).toBeCloseTo(100.5 / 2, 9);
    const [ep, published, lla] = forecasts;
    expect(ep).toMatchObject({ planner: "ep", speedupOverEp: 1, maxLoad: 100, meanLoad: 50, transfers: 0 });
    expect(ep?.stepSeconds).toBeCloseTo(100.5 + 40 * crossSeconds, 9);
    expect(ep?.crossRankCopies).toBe(40);
    // 256 bytes per weight matrix: 3 · 8 · 8 · 4; a copy keeps (2 · 8 + 8) · 4.
    expect(ep?.peakBytesPerRank).toEqual([768 + 100 * 96, 768]);
    // Positions 50 to 99 are lent: 10 of rank 0's and all 40 of rank 1's.
    expect(published).toMatchObject({ planner: "lla", strictReference: true, crossRankCopies: 10 });
    expect(published?.stepSeconds).toBeCloseTo(50.5 + 1 + 10 * crossSeconds + 2, 9);
    expect(published?.computeSeconds).toBeCloseTo(50.5, 9);
    expect(published?.transferSeconds).toBeCloseTo(1, 9);
    expect(published?.crossCopySeconds).toBeCloseTo(10 * crossSeconds, 9);
    expect(published?.peakBytesPerRank).toEqual([768 + 50 * 96, 2 * 768 + 50 * 96]);
    expect(lla).toMatchObject({ planner: "lla", strictReference: false, maxLoad: 50, transfers: 1 });
  });

  it("gives the means over batches, and the largest memory", () => {
    const even = [
      [25, 25],
      [25, 25],
    ];
    const one = simulate(options).forecasts[0];
    const both = simulate({ ...options, batches: [...options.batches, even] }).forecasts[0];
    const [hotSeconds, evenSeconds] = [100.5 + 40 / 12, 50.5 + 25 / 12];
    expect(both?.stepSeconds).toBeCloseTo((hotSeconds + evenSeconds) / 2, 9);
    expect(both?.maxLoad).toBe(75);
    expect(both?.peakBytesPerRank).toEqual([one?.peakBytesPerRank[0], 768 + 50 * 96]);
  });

  it("never predicts auto above ep, nor anything below the bound, and gives equal answers twice", () => {
    const random = fc.record({
      expertSeconds: fc.constantFrom(0, 1e-5),
      lendSeconds: fc.constantFrom(0, 1e-3),
      nodeSize: fc.integer({ min: 1, max: 9 }),
      hiddenSize: fc.constantFrom(64, 2880),
    });
    fc.assert(
      fc.property(batches, random, (batch, { expertSeconds, lendSeconds, nodeSize, hiddenSize }) => {
        const request = {
          shape: { hiddenSize, ffnSize: 1024, elementBytes: 4 },
          cluster: {
            ...parseCluster(`${batch.ranks}xcpu-10gbit`),
            nodes: batch.counts.map((_, rank) => Math.floor(rank / nodeSize)),
          },
          runtime: { ...LEAN_RUNTIME, expertSeconds, lendSeconds },
          batches: [batch.counts],
        };
        const simulation = simulate(request);
        const { lowerBoundSeconds, forecasts } = simulation;
        const auto = forecasts.find(({ planner }) => planner === "auto");
        expect(auto?.stepSeconds).toBeLessThanOrEqual(forecasts[0]?.stepSeconds as number);
        for (const forecast of forecasts) {
          expect(forecast.stepSeconds).toBeGreaterThanOrEqual(lowerBoundSeconds * (1 - 1e-12));
          expect(forecast.crossCopySeconds).toBeGreaterThanOrEqual(-1e-12);
        }
        const hasPublished = nodeSize >= batch.ranks && batch.experts % batch.ranks === 0;
        expect(forecasts.some(({ strictReference }) => strictReference)).toBe(hasPublished);
        expect(simulate(request)).toEqual(simulation);
      }),
    );
  });

  it.each<[Partial<SimulateOptions>, string]>([
    [{ batches: [] }, "batches"],
    [{ batches: [[[1, 2]]] }, "batch 0 is of 1 ranks"],
    [{ shape: { ...options.shape, ffnSize: 0 } }, "ffnSize"],
    [{ runtime: { ...LEAN_RUNTIME, lendSeconds: Number.NaN } }, "lendSeconds"],
    [{ minChunkCopies: 0 }, "minChunkCopies"],
  ])("refuses %j", (wrong, name) => {
    expect(() => simulate({ ...options, ...wrong })).toThrow(invalid);
    expect(() => simulate({ ...options, ...wrong })).toThrow(name);
  });
});

describe("parseCluster and modelLayer", () => {
  it("know nodes of eight GPUs, hosts of one rank, and models in any case", () => {
    expect(parseCluster("16xH200").nodes.filter((node) => node === 1).length).toBe(8);
    expect(parseCluster("3xcpu-1gbit").nodes).toEqual([0, 1, 2]);
    expect(modelLayer("DeepSeek-V3")).toMatchObject({
      experts: 256,
      topK: 8,
      hiddenSize: 7168,
      ffnSize: 2048,
    });
    for (const name of MODEL_NAMES) {
      const { experts, topK } = modelLayer(name);
      expect(topK).toBeLessThan(experts);
    }
  });

  it.each(["", "H200", "0xH200", "8xTPU", "8x", "8xconstructor", "99999xH200"])(
    "refuse the cluster %j",
    (text) => {
      expect(() => parseCluster(text)).toThrow(invalid);
    },
  );

  it("refuse a model that isn't known", () => {
    expect(() => modelLayer("gpt-2")).toThrow(invalid);
    expect(() => modelLayer("constructor")).toThrow(invalid);
  });
});
