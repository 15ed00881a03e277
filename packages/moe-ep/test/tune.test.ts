/**
 * The tuner: calibration files and what follows from them, a real calibration of tiny experts, and the sweep. No time
 * is judged.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Calibration,
  calibrate,
  calibratedCluster,
  calibratedCostModel,
  costModelInCopies,
  readCalibration,
  sweep,
  writeCalibration,
} from "@pccl/moe-ep";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const invalid = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "moe-ep-tune-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** An expert takes 1 ms and 10 µs a row, a message 100 µs and 1 ns a byte. */
const calibration: Calibration = {
  machine: "paper and pencil",
  dtype: "f32",
  hiddenSize: 100,
  ffnSize: 50,
  expert: [1, 100, 1000].map((size) => ({ size, seconds: 1e-3 + size * 1e-5 })),
  link: [1000, 1_000_000].map((size) => ({ size, seconds: 1e-4 + size * 1e-9 })),
  memoryBytesPerSecond: 1e10,
};

describe("a calibration", () => {
  it("comes back from its file, and gives the cost model of the measured layer and of others", () => {
    const file = join(folder, "calibration.json");
    writeCalibration(file, calibration);
    expect(readCalibration(file)).toEqual(calibration);
    const model = calibratedCostModel(calibration, { hiddenSize: 100, ffnSize: 50 });
    expect(model.copySeconds).toBeCloseTo(1e-5, 12);
    expect(model.expertSeconds).toBeCloseTo(1e-3, 9);
    expect(model.transferSeconds).toBeCloseTo((3 * 100 * 50 * 4) / 1e10, 12);
    expect(model.crossCopySeconds).toBeCloseTo(2 * 100 * 4 * 1e-9, 15);
    const larger = calibratedCostModel(calibration, { hiddenSize: 200, ffnSize: 150 });
    expect(larger.copySeconds).toBeCloseTo(6e-5, 12);
    expect(larger.expertSeconds).toBeCloseTo(6e-3, 9);
    const { cluster, runtime } = calibratedCluster(calibration, 3, calibration);
    expect(cluster).toMatchObject({ ranks: 3, nodes: [0, 0, 0], dtype: "f32" });
    expect(runtime.expertSeconds).toBeCloseTo(1e-3, 9);
  });

  it.each<[string, unknown, string]>([
    ["no JSON", "{", "JSON"],
    ["a list", [], "moe-ep-calibration"],
    ["null", null, "moe-ep-calibration"],
    ["another format", { ...calibration, format: "x" }, "moe-ep-calibration"],
    ["another version", { version: 2 }, "version 2"],
    ["another type", { dtype: "f64" }, "dtype"],
    ["no samples", { expert: [] }, "expert"],
    ["one sample", { link: [{ size: 1, seconds: 1 }] }, "link"],
    ["samples of one size", { link: [1, 1].map((size) => ({ size, seconds: 1 })) }, "link"],
    ["a sample that is null", { expert: [null, null] }, "expert[0].size"],
    [
      "a time of 0",
      {
        expert: [
          { size: 1, seconds: 0 },
          { size: 2, seconds: 1 },
        ],
      },
      "expert[0].seconds",
    ],
    [
      "experts that take no longer with more rows",
      { expert: [1, 9].map((size) => ({ size, seconds: 1 })) },
      "rows",
    ],
    ["a size that is a text", { hiddenSize: "100" }, "hiddenSize"],
    ["no memory", { memoryBytesPerSecond: 0 }, "memoryBytesPerSecond"],
    ["no machine", { machine: 3 }, "machine"],
  ])("is refused with %s", (_, content, name) => {
    const file = join(folder, "bad.json");
    const isPart = typeof content === "object" && content !== null && !Array.isArray(content);
    const whole = { format: "moe-ep-calibration", version: 1, ...calibration };
    const json = isPart ? { ...whole, ...content } : content;
    writeFileSync(file, typeof json === "string" ? json : JSON.stringify(json));
    expect(() => readCalibration(file)).toThrow(invalid);
    expect(() => readCalibration(file)).toThrow(name);
  });

  it("is refused or read when its file is damaged, and nothing else happens", () => {
    const file = join(folder, "damaged.json");
    writeCalibration(file, calibration);
    const text = readFileSync(file, "utf8");
    fc.assert(
      fc.property(
        fc.nat({ max: text.length - 1 }),
        fc.constantFrom("", "9", "-", "e9", "null", "}"),
        (at, piece) => {
          writeFileSync(file, text.slice(0, at) + piece + text.slice(at + 1));
          try {
            expect(calibratedCostModel(readCalibration(file), calibration).copySeconds).toBeGreaterThan(0);
          } catch (error) {
            expect(error).toEqual(invalid);
          }
        },
      ),
    );
  });

  it("can't be read from or written to places that aren't there", () => {
    const place = join(folder, "no", "such");
    expect(() => readCalibration(place)).toThrow(invalid);
    expect(() => writeCalibration(place, calibration)).toThrow(invalid);
  });
});

describe("calibrate", () => {
  it.each(["f32", "bf16"] as const)(
    "measures experts of %s, messages and memory, and leaves no process",
    async (dtype) => {
      const told: string[] = [];
      const measured = await calibrate({
        hiddenSize: 64,
        ffnSize: 32,
        dtype,
        seconds: 0,
        onProgress: (what) => told.push(what),
      });
      expect(measured).toMatchObject({ dtype, hiddenSize: 64, ffnSize: 32 });
      for (const { size, seconds } of [...measured.expert, ...measured.link]) {
        expect(size).toBeGreaterThan(0);
        expect(seconds).toBeGreaterThan(0);
      }
      expect(measured.memoryBytesPerSecond).toBeGreaterThan(0);
      expect(told).toContain("experts with 512 rows");
      const children = execFileSync("ps", ["-o", "args=", "--ppid", String(process.pid)], {
        encoding: "utf8",
      });
      expect(children).not.toContain("neighbour.js");
    },
  );

  it("refuses bad sizes before it starts anything", async () => {
    const good = { hiddenSize: 64, ffnSize: 32, dtype: "f32" } as const;
    await expect(calibrate({ ...good, hiddenSize: 0 })).rejects.toEqual(invalid);
    await expect(calibrate({ ...good, hiddenSize: 2 ** 20, ffnSize: 2 ** 20 })).rejects.toEqual(invalid);
    await expect(calibrate({ ...good, dtype: "f16" as "f32" })).rejects.toEqual(invalid);
    await expect(calibrate({ ...good, seconds: Number.NaN })).rejects.toEqual(invalid);
  });
});

describe("sweep", () => {
  const request = { experts: 32, topK: 4, tokens: 512, ranks: 4, scenarios: ["80%:4", "zipf:1.1"] };

  it("orders settings by speed, and marks those that nothing is better than", () => {
    const settings = sweep({ ...request, costModel: costModelInCopies(100) });
    expect(settings[0]?.speedup).toBeGreaterThan(1.5);
    for (const [index, { speedup, transfers, isPareto, leastSpeedup }] of settings.entries()) {
      expect(leastSpeedup).toBeLessThanOrEqual(speedup * (1 + 1e-12));
      const better = settings.some(
        (other, otherIndex) =>
          otherIndex !== index &&
          other.speedup >= speedup &&
          other.transfers <= transfers &&
          (other.speedup > speedup || other.transfers < transfers || otherIndex < index),
      );
      expect(isPareto).toBe(!better);
    }
    const ep = settings.find(({ planner }) => planner === "ep");
    expect(ep).toMatchObject({ speedup: 1, transfers: 0 });
    for (const { planner, leastSpeedup } of settings) {
      if (planner === "auto") expect(leastSpeedup).toBeGreaterThanOrEqual(1);
    }
  });

  it("finds nothing faster than ep where lending is too dear", () => {
    const [best] = sweep({ ...request, costModel: costModelInCopies(1e9) });
    expect(best).toMatchObject({ speedup: 1, transfers: 0 });
  });

  it("refuses scenarios that don't fit", () => {
    expect(() => sweep({ ...request, scenarios: ["80%:33"] })).toThrow(invalid);
  });
});
