/** When things happen in runs of any length, and that the chart is well-formed. */
import { describe, expect, it } from "vitest";
import { renderChart, ticks } from "../src/chart.js";
import { parseOptions, UsageError } from "../src/options.js";
import { makePlan } from "../src/plan.js";

describe("makePlan", () => {
  it("kills and joins before the hold, and within the run, however short it is", () => {
    for (let outerSteps = 1; outerSteps <= 30; outerSteps++) {
      for (let seed = 0; seed < 10; seed++) {
        const plan = makePlan(seed, 4, outerSteps);
        expect(plan.killAfter).toBeLessThan(plan.holdAt);
        expect(plan.joinAfter).toBeLessThan(plan.holdAt);
        expect(plan.killAfter).toBeLessThanOrEqual(plan.joinAfter);
        expect(plan.holdAt).toBeLessThanOrEqual(outerSteps);
        expect(plan.victim).toBeLessThan(4);
      }
    }
    expect(makePlan(1, 4, 12)).toMatchObject({ killAfter: 4, joinAfter: 8, holdAt: 11 });
  });

  it("chooses every peer with some seed, and none when there is only one", () => {
    const victims = Array.from({ length: 50 }, (_, seed) => makePlan(seed, 3, 12).victim);
    expect(new Set(victims)).toEqual(new Set([0, 1, 2]));
    expect(makePlan(1, 1, 12).victim).toBeUndefined();
  });
});

describe("parseOptions", () => {
  it("reads the knobs", () => {
    expect(parseOptions(["--peers", "2", "--outer-steps=3", "--seed", "9", "--json"])).toMatchObject({
      peers: 2,
      outerSteps: 3,
      innerSteps: 50,
      seed: 9,
      json: true,
    });
    expect(parseOptions(["--help"])).toBeUndefined();
  });

  it.each([
    ["--peers", "0"],
    ["--outer-steps", "1.5"],
    ["--seed", "x"],
    ["--text", "/no/such/file"],
    ["--what"],
    ["4"],
  ])("refuses %s %s", (...args) => {
    expect(() => parseOptions(args)).toThrow(UsageError);
  });
});

describe("renderChart", () => {
  it("draws every series and mark inside the picture, with its labels escaped", () => {
    const svg = renderChart({
      title: "a < b & c",
      xLabel: "steps",
      yLabel: "loss",
      series: [
        {
          label: "curve",
          color: "#123456",
          points: [
            [0, 4.85],
            [300, 2.1],
            [600, 1.8],
          ],
        },
      ],
      marks: [{ x: 225, label: "peer 3 killed" }],
    });
    expect(svg).toContain("a &lt; b &amp; c");
    expect(svg).toContain("peer 3 killed");
    const points = /<polyline points="([^"]+)"/.exec(svg)?.[1]?.split(" ") ?? [];
    expect(points).toHaveLength(3);
    for (const coordinate of points.join(",").split(",").map(Number)) {
      expect(coordinate).toBeGreaterThan(0);
      expect(coordinate).toBeLessThan(860);
    }
  });

  it("has round ticks that enclose the values", () => {
    expect(ticks(0, 600)).toEqual([0, 100, 200, 300, 400, 500, 600]);
    expect(ticks(1.83, 4.87)).toEqual([1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]);
    expect(ticks(2, 2)).toHaveLength(2);
  });
});
