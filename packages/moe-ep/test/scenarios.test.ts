/**
 * Generated routings: the texts that name them, what each kind promises, and that counts are those of the routings.
 * Random scenarios are held against the distribution that they are drawn from, with seeds that don't change.
 */
import { formatScenario, generateCounts, generateRouting, parseScenario, type Scenario } from "@pccl/moe-ep";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hasGolden, readGoldenJson, WHY_SKIPPED } from "./shared.js";

const invalid = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });
const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);
const totals = (counts: readonly ArrayLike<number>[]): number[] =>
  Array.from(counts[0] as ArrayLike<number>, (_, expert) => sum(counts.map((row) => row[expert] as number)));

describe("parseScenario", () => {
  it.each<[string, Scenario]>([
    ["balanced", { kind: "balanced" }],
    ["80%:4", { kind: "hot", part: 0.8, experts: 4 }],
    ["12.5%:1", { kind: "hot", part: 0.125, experts: 1 }],
    ["zipf:1.1", { kind: "zipf", exponent: 1.1 }],
    ["dirichlet:0.3", { kind: "dirichlet", concentration: 0.3 }],
    ["drift:80%:4:10", { kind: "drift", part: 0.8, experts: 4, periodSteps: 10 }],
  ])("reads %s, and formatScenario writes it", (text, scenario) => {
    expect(parseScenario(text)).toEqual(scenario);
    expect(formatScenario(scenario)).toBe(text);
  });

  it.each(["", "80:4", "80%", "101%:4", "80%:0", "80%:4.5", "zipf:", "zipf:-1", "zipf:11", "dirichlet:0"])(
    "refuses %j",
    (text) => {
      expect(() => parseScenario(text)).toThrow(invalid);
    },
  );

  it.each(["drift:80%:4", "drift:80%:4:0", " balanced", "balanced\n", "1e3%:4", "zipf:1.1.1", "Zipf:1"])(
    "refuses %j",
    (text) => {
      expect(() => parseScenario(text)).toThrow(invalid);
    },
  );

  it("throws nothing but its own error, whatever the text", () => {
    fc.assert(
      fc.property(fc.string(), fc.constantFrom("", "zipf:", "drift:", "80%:"), (text, prefix) => {
        try {
          parseScenario(prefix + text);
        } catch (error) {
          expect(error).toEqual(invalid);
        }
      }),
    );
  });
});

const scenarios = fc.oneof(
  fc.constant("balanced"),
  fc
    .tuple(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 1, max: 6 }))
    .map(([percent, experts]) => `${percent}%:${experts}`),
  fc.constantFrom("zipf:0", "zipf:1.1", "zipf:10", "dirichlet:0.01", "dirichlet:1", "drift:70%:3:2"),
);
const options = fc.record({
  scenario: scenarios,
  experts: fc.integer({ min: 7, max: 40 }),
  topK: fc.integer({ min: 1, max: 7 }),
  tokens: fc.integer({ min: 0, max: 50 }),
  ranks: fc.integer({ min: 1, max: 5 }),
  seed: fc.nat(),
  step: fc.nat({ max: 20 }),
});

describe("generateRouting", () => {
  it("gives topK experts that exist and falling gates that add up to 1, the same each time", () => {
    fc.assert(
      fc.property(options, fc.nat(), (request, pick) => {
        const rank = pick % request.ranks;
        const routing = generateRouting({ ...request, rank });
        expect(generateRouting({ ...request, rank })).toEqual(routing);
        const { firstSlot, experts, gates } = routing;
        expect([...firstSlot]).toEqual(
          Array.from({ length: request.tokens + 1 }, (_, token) => token * request.topK),
        );
        expect([experts.length, gates.length]).toEqual([firstSlot.at(-1), firstSlot.at(-1)]);
        for (const expert of experts) expect(expert >= 0 && expert < request.experts).toBe(true);
        const { kind } = parseScenario(request.scenario);
        for (let token = 0; token < request.tokens; token++) {
          const slots = [firstSlot[token] as number, firstSlot[token + 1] as number] as const;
          const own = gates.subarray(...slots);
          expect(sum(own)).toBeCloseTo(1, 5);
          expect([...own]).toEqual([...own].sort((a, b) => b - a));
          if (kind === "zipf" || kind === "dirichlet" || kind === "balanced") {
            expect(new Set(experts.subarray(...slots)).size).toBe(request.topK);
          }
        }
      }),
    );
  });

  it("has the counts that generateCounts says", () => {
    fc.assert(
      fc.property(options, (request) => {
        const counts = generateCounts(request);
        expect(counts.length).toBe(request.ranks);
        for (const [rank, row] of counts.entries()) {
          const own = new Float64Array(request.experts);
          for (const expert of generateRouting({ ...request, rank }).experts)
            own[expert] = (own[expert] as number) + 1;
          expect(row).toEqual(own);
        }
      }),
    );
  });

  it.each([
    [{ experts: 0 }, "experts"],
    [{ topK: 9 }, "topK"],
    [{ tokens: -1 }, "tokens"],
    [{ rank: 2 }, "rank"],
    [{ seed: 0.5 }, "seed"],
    [{ scenario: "80%:9" }, "80%:9"],
    [{ scenario: "80%:8" }, "leaves none"],
    [{ scenario: { kind: "hot", part: 2, experts: 1 } as const }, "100%"],
  ])("refuses %j", (wrong, name) => {
    const right = { scenario: "80%:4", experts: 8, topK: 2, tokens: 4, ranks: 2, rank: 0 };
    expect(() => generateRouting({ ...right, ...wrong })).toThrow(invalid);
    expect(() => generateRouting({ ...right, ...wrong })).toThrow(name);
  });
});

describe("generateCounts", () => {
  it("spreads hot and other copies evenly to within one, over all ranks together", () => {
    fc.assert(
      fc.property(
        options,
        fc.integer({ min: 0, max: 100 }),
        fc.integer({ min: 1, max: 6 }),
        (request, percent, hot) => {
          const copies = totals(generateCounts({ ...request, scenario: `${percent}%:${hot}` }));
          const spread = (values: readonly number[]): number => Math.max(...values) - Math.min(...values);
          expect(spread(copies.slice(0, hot))).toBeLessThanOrEqual(1);
          expect(spread(copies.slice(hot))).toBeLessThanOrEqual(1);
          const all = request.tokens * request.ranks;
          expect(sum(copies)).toBe(all * request.topK);
          expect(Math.abs(sum(copies.slice(0, hot)) / request.topK - (percent / 100) * all)).toBeLessThan(1);
        },
      ),
    );
  });

  it.skipIf(!hasGolden)(`makes the loads of the paper's layers (${WHY_SKIPPED})`, () => {
    const { cases } = readGoldenJson<{
      cases: { name: string; world_size: number; num_experts: number; counts_per_rank: number[][] }[];
    }>("llep/paper.json");
    let checked = 0;
    for (const { name, world_size: ranks, num_experts: experts, counts_per_rank: golden } of cases) {
      const [, percent, hot] = /_(\d+)pct_(\d+)e$/.exec(name) ?? [];
      const scenario = percent === undefined ? "balanced" : `${percent}%:${hot}`;
      const topK = name.includes("gptoss") ? 4 : 8;
      const counts = generateCounts({ scenario, experts, topK, tokens: 131_072 / topK, ranks });
      for (const [rank, row] of counts.entries()) {
        for (const [expert, copies] of row.entries()) {
          // Whole tokens are hot here, and single slots there.
          expect(Math.abs(copies - (golden[rank]?.[expert] as number))).toBeLessThanOrEqual(topK + 1);
          checked++;
        }
      }
    }
    expect(checked).toBeGreaterThan(10_000);
  });

  it("draws zipf's first choices in proportion to n^-exponent", () => {
    const counts = generateCounts({
      scenario: "zipf:1",
      experts: 16,
      topK: 1,
      tokens: 50_000,
      ranks: 2,
      seed: 3,
    });
    const falling = totals(counts).sort((a, b) => b - a);
    const harmonic = sum(falling.map((_, place) => 1 / (place + 1)));
    for (const [place, copies] of falling.entries()) {
      expect(copies / (100_000 / (place + 1) / harmonic)).toBeCloseTo(1, 1);
    }
  });

  it("draws dirichlet's popularities with the distribution's variance", () => {
    // Of one share of N: (N - 1) / (N² (N c + 1)).
    const [experts, concentration] = [20, 0.3];
    const shares = Array.from({ length: 200 }, (_, seed) =>
      totals(generateCounts({ scenario: "dirichlet:0.3", experts, topK: 1, tokens: 2_000, ranks: 1, seed })),
    ).flat();
    const variance = sum(shares.map((copies) => (copies / 2_000 - 1 / experts) ** 2)) / shares.length;
    const expected = (experts - 1) / experts ** 2 / (experts * concentration + 1);
    expect(variance / expected).toBeGreaterThan(0.85);
    expect(variance / expected).toBeLessThan(1.15);
  });

  it("keeps a drifting set for its period and then exchanges one expert", () => {
    const hotAt = (step: number): Set<number> => {
      const copies = totals(
        generateCounts({ scenario: "drift:100%:4:10", experts: 64, topK: 4, tokens: 8, ranks: 1, step }),
      );
      return new Set(copies.flatMap((count, expert) => (count > 0 ? [expert] : [])));
    };
    const first = hotAt(0);
    expect(first.size).toBe(4);
    expect(hotAt(9)).toEqual(first);
    for (let step = 10; step <= 100; step += 10) {
      const [before, after] = [hotAt(step - 1), hotAt(step)];
      expect(after.size).toBe(4);
      expect([...after].filter((expert) => !before.has(expert)).length).toBe(1);
    }
  });
});
