/** Cost models: the arithmetic of data sheets, and fits that find the line that made the samples. */
import { estimateCostModel, expertBytes, fitCostModel, planExperts } from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";

const shape = { hiddenSize: 2880, ffnSize: 2880, elementBytes: 2 };
const invalid = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });

describe("estimateCostModel", () => {
  it("has the break-even of the theory: s·F / 2W copies, whatever the sizes", () => {
    const hardware = { flopsPerSecond: 600e12, bytesPerSecond: 350e9, farBytesPerSecond: 50e9 };
    for (const sizes of [shape, { hiddenSize: 7168, ffnSize: 2048, elementBytes: 2 }]) {
      const model = estimateCostModel(sizes, hardware);
      expect(model.transferSeconds / model.copySeconds).toBeCloseTo((2 * 600e12) / (2 * 350e9), 6);
      expect(model.farTransferSeconds / model.copySeconds).toBeCloseTo((2 * 600e12) / (2 * 50e9), 6);
    }
    expect(expertBytes(shape)).toBe(49_766_400);
  });

  it("adds latencies to transfers, and takes the node's link where no other is given", () => {
    const model = estimateCostModel(shape, {
      flopsPerSecond: 1e12,
      bytesPerSecond: 1e9,
      latencySeconds: 0.5,
    });
    expect(model.transferSeconds).toBeCloseTo(0.5 + 49_766_400 / 1e9, 9);
    expect(model.farTransferSeconds).toBe(model.transferSeconds);
    expect(model.crossCopySeconds).toBeCloseTo((2 * 2880 * 2) / 1e9, 12);
  });

  it("refuses what is no size or rate", () => {
    const hardware = { flopsPerSecond: 1e12, bytesPerSecond: 1e9 };
    expect(() => estimateCostModel({ ...shape, hiddenSize: 0 }, hardware)).toThrow(invalid);
    expect(() => estimateCostModel(shape, { ...hardware, bytesPerSecond: Number.NaN })).toThrow(invalid);
    expect(() => estimateCostModel(shape, { ...hardware, speed: 1 } as typeof hardware)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_UNKNOWN_OPTION" }),
    );
  });
});

describe("fitCostModel", () => {
  const line = (fixed: number, perUnit: number, sizes: readonly number[]) =>
    sizes.map((size) => ({ size, seconds: fixed + perUnit * size }));

  it("finds the fixed and the proportional part of each kind of work", () => {
    const model = fitCostModel(shape, {
      expert: line(3e-6, 2e-6, [1, 16, 64, 1024]),
      link: line(1e-4, 1e-9, [4096, 1 << 20, 1 << 26]),
      farLink: line(1e-2, 1e-8, [4096, 1 << 26]),
    });
    expect(model.copySeconds).toBeCloseTo(2e-6, 12);
    expect(model.expertSeconds).toBeCloseTo(3e-6, 12);
    expect(model.transferSeconds).toBeCloseTo(1e-4 + 1e-9 * 49_766_400, 9);
    expect(model.farTransferSeconds).toBeCloseTo(1e-2 + 1e-8 * 49_766_400, 8);
    expect(model.crossCopySeconds).toBeCloseTo(1e-9 * 2 * 2880 * 2, 12);
  });

  it("never makes a time negative, and its model can be planned with", () => {
    const noisy = [
      { size: 10, seconds: 1e-5 },
      { size: 100, seconds: 3e-4 },
    ];
    const model = fitCostModel(shape, { expert: noisy, link: line(1e-3, 0, [1, 1000]) });
    expect(model.expertSeconds).toBe(0);
    expect(model.copySeconds).toBeGreaterThan(0);
    expect(model.crossCopySeconds).toBeGreaterThanOrEqual(0);
    const plan = planExperts(
      [
        [900, 0],
        [900, 0],
      ],
      { costModel: model },
    );
    expect(plan.predicted.stepSeconds).toBeLessThanOrEqual(plan.predictedBefore.stepSeconds);
  });

  it("refuses one size only, and experts that take no longer with more rows", () => {
    const link = line(1e-4, 1e-9, [1, 2]);
    expect(() => fitCostModel(shape, { expert: line(1, 1, [4, 4]), link })).toThrow(invalid);
    expect(() => fitCostModel(shape, { expert: line(1, 0, [4, 8]), link })).toThrow(invalid);
    expect(() => fitCostModel(shape, { expert: [null, { size: 3, seconds: 1 }] as never, link })).toThrow(
      invalid,
    );
    expect(() => fitCostModel(undefined as never, { expert: link, link })).toThrow(invalid);
  });
});
