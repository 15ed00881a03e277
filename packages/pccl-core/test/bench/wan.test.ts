/**
 * Goal: scenarios say what is measured, and are refused where they don't; the bound is what the links allow. Method: the
 * repository's own scenarios, and small ones whose bound is known; no network is made.
 */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ringBound, roundTripMax } from "../../src/bench/wan/bound.js";
import { plotScenario } from "../../src/bench/wan/plots.js";
import { formatGoals } from "../../src/bench/wan/report.js";
import type { WanMeasurement } from "../../src/bench/wan/run.js";
import { parseScenario } from "../../src/bench/wan/scenario.js";

const FOLDER = new URL("../../../../bench/scenarios/", import.meta.url);
const MINIMAL = { title: "t", hosts: 2, network: { rate: "100mbit", rtt: "10ms" }, sizes: ["1MiB"] };

function parse(further: object): ReturnType<typeof parseScenario> {
  return parseScenario(JSON.stringify({ ...MINIMAL, ...further }));
}

function measured(further: Partial<WanMeasurement>): WanMeasurement {
  return {
    ...{ collective: "all-reduce", world: 2, bytes: 2 ** 20, dtype: "f32", op: "sum", transport: "tcp" },
    ...{ medianSeconds: 1, minSeconds: 1, maxSeconds: 1, algbwGBps: 1, busbwGBps: 0.0125, verified: true },
    ...{ network: "", connections: "auto", congestionControl: "default", linkBitsPerSecond: 1e8 },
    ...{ roundTripSeconds: 0.1, boundSeconds: 0.95, efficiency: 0.95 },
    ...further,
  } as WanMeasurement;
}

describe("a scenario", () => {
  it.each(readdirSync(FOLDER))("%s can be read", (name) => {
    const scenario = parseScenario(readFileSync(new URL(name, FOLDER), "utf8"));
    for (const { links } of scenario.networks) {
      for (const { bytes } of scenario.cases) expect(ringBound(links, bytes)).toBeGreaterThan(0);
    }
  });

  it("is run for each value that it varies, and each combination of cases", () => {
    const { networks, cases } = parse({
      network: { rate: "1gbit", rtt: ["10ms", "100ms"] },
      connections: ["auto", 4],
      congestionControl: ["bbr", "cubic"],
    });
    expect(networks.map(({ name }) => name)).toEqual(["rtt 10ms", "rtt 100ms"]);
    expect(networks.map(({ links }) => roundTripMax(links))).toEqual([0.01, 0.1]);
    expect(cases).toHaveLength(4);
    expect(cases[0]).toMatchObject({
      connections: "auto",
      congestionControl: "bbr",
      dtype: "f32",
      bytes: 2 ** 20,
    });
  });

  it.each([
    [{ hosts: 1 }, "ERR_PCCL_INVALID_ARGUMENT", "hosts"],
    [{ network: { rate: "100mbit" } }, "ERR_PCCL_INVALID_ARGUMENT", "rtt"],
    [{ network: { rate: "fast", rtt: "1ms" } }, "ERR_PCCL_INVALID_ARGUMENT", "rate"],
    [{ connections: [0] }, "ERR_PCCL_INVALID_ARGUMENT", "connections"],
    [{ sizes: undefined }, "ERR_PCCL_INVALID_ARGUMENT", "sizes"],
    [{ goals: [{ of: {}, ratioMin: 3 }] }, "ERR_PCCL_INVALID_ARGUMENT", "over"],
    [{ conections: 4 }, "ERR_PCCL_UNKNOWN_OPTION", "conections"],
  ])("%j is refused", (further, code, word) => {
    expect(() => parse(further)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(word) }),
    );
  });
});

describe("the bound", () => {
  it("is the bytes over the rate that headers leave, and the delays of all steps", () => {
    const [network] = parse({ hosts: 4, network: { rate: "250mbit", rtt: "100ms" } }).networks;
    const bytes = 64 * 2 ** 20;
    const expected = (1.5 * bytes * 8) / (0.957 * 250e6) + 6 * 0.05;
    expect(ringBound(network?.links ?? [], bytes)).toBeCloseTo(expected, 9);
  });

  it("is that of the best ring", () => {
    const slow = [
      { from: 0, to: 1, both: true, rate: "1mbit" },
      { from: 2, to: 3, both: true, rate: "1mbit" },
    ];
    const [even, uneven] = [parse({ hosts: 4 }), parse({ hosts: 4, links: slow })];
    const bound = (scenario: typeof even): number => ringBound(scenario.networks[0]?.links ?? [], 2 ** 20);
    expect(bound(uneven)).toBeCloseTo(bound(even), 9);
  });
});

describe("results", () => {
  it("are held against the goals", () => {
    const scenario = parse({
      goals: [
        { of: { connections: "auto" }, efficiencyMin: 0.9 },
        { of: { connections: "auto" }, roundTripsMax: 9 },
        { of: { connections: "auto" }, over: { connections: 1 }, ratioMin: 3 },
      ],
    });
    const lines = formatGoals(scenario, [measured({}), measured({ connections: 1, medianSeconds: 4 })]);
    expect(lines.split("\n").map((line) => line.slice(0, 12))).toEqual([
      "goal reached",
      "goal MISSED ",
      "goal reached",
      "",
    ]);
  });

  it("are drawn over what has several values", async () => {
    const results = [1, 4].flatMap((connections) =>
      [0.05, 0.1].map((roundTripSeconds) => measured({ connections, roundTripSeconds })),
    );
    const plots = await plotScenario("Two hosts", results);
    expect(plots.map(({ name }) => name)).toEqual(["two-hosts-connections.svg", "two-hosts-round-trip.svg"]);
    for (const { svg } of plots) expect(svg).toMatch(/^<svg[\s\S]*Two hosts[\s\S]*<\/svg>$/);
    expect(await plotScenario("Two hosts", [measured({})])).toEqual([]);
  });
});
