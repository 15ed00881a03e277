/**
 * Goal: the ring that is found is the best one, or as close to a bound as it says. Method: up to eight nodes against all
 * rings; more nodes against the exact solver, against bounds, and against rings that were hidden in the paths.
 */
import { describe, expect, it } from "vitest";
import { roundBound, slownessBound } from "../../dist/topology/bound.js";
import { EXACT_NODES_MAX, exactRing } from "../../dist/topology/exact.js";
import {
  isBetter,
  type Paths,
  pathsBetween,
  predictSeconds,
  type RingCost,
  ringCost,
  slowestOf,
} from "../../dist/topology/paths.js";
import { searchRing } from "../../dist/topology/search.js";
import { predictRing, solveRing } from "../../dist/topology/solve.js";
import { Random } from "../../dist/sim/random.js";

/** Speeds from a few to hundreds of Mbit/s, each direction its own; now and then a path that can't be measured. */
function randomPaths(size: number, seed: number, unknownShare = 0): Paths {
  const random = new Random(seed, "paths");
  return pathsBetween(size, () => ({
    bytesPerSecond: random.chance(unknownShare) ? 0 : 1e6 * 2 ** random.between(0, 7),
    latencySeconds: random.between(0.001, 0.1),
  }));
}

function identity(size: number): number[] {
  return Array.from({ length: size }, (_, node) => node);
}

/** All rings of `size` nodes, from node 0 on. */
function* rings(size: number, ring: readonly number[] = [0]): Generator<readonly number[]> {
  if (ring.length === size) yield ring;
  for (let node = 1; node < size; node++) if (!ring.includes(node)) yield* rings(size, [...ring, node]);
}

function best(paths: Paths): RingCost {
  let found: RingCost | undefined;
  for (const ring of rings(paths.size)) {
    const cost = ringCost(paths, ring);
    if (found === undefined || isBetter(cost, found)) found = cost;
  }
  return found as RingCost;
}

function expectRing(ring: readonly number[], size: number): void {
  expect([...ring].sort((a, b) => a - b)).toEqual(identity(size));
}

describe("the exact solver", () => {
  it("finds the best of all rings", () => {
    for (let size = 1; size <= 7; size++) {
      for (let seed = 0; seed < (size < 7 ? 60 : 20); seed++) {
        const paths = randomPaths(size, seed, seed % 3 === 0 ? 0.4 : 0);
        const ring = exactRing(paths);
        expectRing(ring, size);
        const [cost, wanted] = [ringCost(paths, ring), best(paths)];
        expect(cost.level, `size ${size}, seed ${seed}`).toBe(wanted.level);
        expect(cost.round).toBeCloseTo(wanted.round, 9);
      }
    }
    const paths = randomPaths(8, 1);
    expect(ringCost(paths, exactRing(paths)).round).toBeCloseTo(best(paths).round, 9);
  });

  it("prefers the faster slowest path to a shorter round, and calls nearly equal ones equal", () => {
    // 0 > 1 > 2 > 0 has short latencies and one slow path; the other way round is fast throughout.
    const speeds = (slow: number): Paths =>
      pathsBetween(3, (from, to) => {
        const forward = (from + 1) % 3 === to;
        return {
          bytesPerSecond: forward && from === 0 ? slow : 100e6,
          latencySeconds: forward ? 0.001 : 0.1,
        };
      });
    expect(exactRing(speeds(50e6))).toEqual([0, 2, 1]);
    expect(exactRing(speeds(99.9e6))).toEqual([0, 1, 2]);
  });
});

describe("the bound", () => {
  it("is never above what the best ring has, and often close", () => {
    let tight = 0;
    for (let seed = 0; seed < 100; seed++) {
      const paths = randomPaths(4 + (seed % 9), seed);
      const ring = exactRing(paths);
      const { level, round } = ringCost(paths, ring);
      const bound = slownessBound(paths);
      expect(bound).toBeLessThan(slowestOf(paths, ring) * (1 + 1e-9));
      expect(roundBound(paths, level)).toBeLessThan(round + 1e-12);
      if (bound > slowestOf(paths, ring) * 0.9) tight++;
    }
    expect(tight).toBeGreaterThan(70);
  });
});

describe("the search", () => {
  const options = (size: number) => ({ start: identity(size), seed: 1, evaluations: 150_000 });

  it("finds what the exact solver finds", () => {
    for (let seed = 0; seed < 40; seed++) {
      const size = 5 + (seed % (EXACT_NODES_MAX - 4));
      const paths = randomPaths(size, seed);
      const [found, exact] = [searchRing(paths, options(size)), exactRing(paths)];
      expectRing(found, size);
      expect(ringCost(paths, found).level, `seed ${seed}`).toBe(ringCost(paths, exact).level);
      expect(ringCost(paths, found).round).toBeLessThan(ringCost(paths, exact).round * 1.02);
    }
  });

  it("finds a fast ring that is hidden among slow paths", () => {
    for (const size of [20, 48]) {
      const random = new Random(size, "hidden");
      const hidden = identity(size).sort(() => random.between(-1, 1));
      const nextOf = new Map(hidden.map((node, i) => [node, hidden[(i + 1) % size]]));
      // Half of the other paths are as fast: enough to lead astray, and not to make it easy.
      const paths = pathsBetween(size, (from, to) => ({
        bytesPerSecond: nextOf.get(from) === to || random.chance(0.1) ? 50e6 : 5e6,
        latencySeconds: 0.01,
      }));
      const found = searchRing(paths, { ...options(size), evaluations: 3_000_000 });
      expectRing(found, size);
      expect(slowestOf(paths, found), `${size} nodes`).toBeCloseTo(1 / 50e6, 12);
    }
  });

  it("stays near the bound for many nodes, and does the same again", () => {
    const paths = randomPaths(64, 5);
    const ring = solveRing(paths, options(64));
    expectRing(ring, 64);
    expect(ring[0]).toBe(0);
    const { seconds, boundSeconds } = predictRing(paths, ring, 64 * 2 ** 20);
    expect(seconds).toBeGreaterThanOrEqual(boundSeconds);
    expect(seconds / boundSeconds - 1).toBeLessThan(0.5);
    expect(solveRing(paths, options(64))).toEqual(ring);
  });

  it("is no worse than what it begins with", () => {
    for (let seed = 0; seed < 10; seed++) {
      const paths = randomPaths(30, seed);
      const start = searchRing(paths, { ...options(30), seed });
      const again = searchRing(paths, { start, seed: seed + 100, evaluations: 1_000 });
      expect(isBetter(ringCost(paths, start), ringCost(paths, again))).toBe(false);
    }
  });
});

describe("the prediction", () => {
  it("is what the slowest path and the round take", () => {
    // Two rounds but for two paths, of 1/4 of the bytes each.
    expect(predictSeconds(4, 1e-8, 0.2, 100e6)).toBeCloseTo(1.5 * (1 + 0.2), 9);
    expect(predictSeconds(1, 1e-8, 0, 100e6)).toBe(0);
    const paths = randomPaths(1, 1);
    expect(predictRing(paths, [0], 1000)).toEqual({ seconds: 0, boundSeconds: 0 });
  });
});
