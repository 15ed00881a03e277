import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FULLY_LINKED_MAX } from "../../src/base/limits.js";
import {
  endsOf,
  linked,
  linkedPairs,
  linkedPeers,
  orderAvoiding,
  pairKey,
  relayKey,
  relaysFor,
} from "../../src/membership/ring.js";

describe("linked", () => {
  it("links whom the data plane links", async () => {
    // Each line: the size of a group, and the ranks that rank 0 is linked with. Native tests read it too.
    const table = await readFile(
      new URL("../../../../native/test/linked_ranks.txt", import.meta.url),
      "utf8",
    );
    const lines = table.trimEnd().split("\n");
    expect(lines.length).toBeGreaterThan(2 * FULLY_LINKED_MAX);
    for (const line of lines) {
      const [size = 0, ...others] = [...line.matchAll(/\d+/g)].map(Number);
      for (let rank = 0; rank < size; rank++) {
        const expected = new Set(others.map((other) => (rank + other) % size));
        const ring = Array.from({ length: size }, (_, i) => 100 + i);
        const linkedIds = ring.filter((_, other) => expected.has(other));
        expect(linkedPeers(ring, 100 + rank)).toEqual(linkedIds);
        expect(ring.filter((_, other) => linked(rank, other, size))).toEqual(linkedIds);
      }
    }
  });

  it("has every link that the rounds of a commit use", () => {
    for (let size = 2; size <= 40; size++) {
      for (let rank = 0; rank < size; rank++) {
        for (let distance = 1; distance < size; distance *= 2) {
          expect(linked(rank, (rank + distance) % size, size)).toBe(true);
          expect(linked((rank + distance) % size, rank, size)).toBe(true);
        }
      }
    }
  });
});

describe("orderAvoiding", () => {
  const rings = fc.integer({ min: 1, max: 24 }).map((size) => Array.from({ length: size }, (_, i) => i + 1));

  /** How many of the pairs are neighbours in the ring, and how many it links at all. */
  const badness = (
    ring: readonly number[],
    pairs: readonly string[],
  ): { neighbours: number; linked: number } => {
    const links = linkedPairs(ring, new Set(pairs)).map(endsOf);
    const distance = ([a, b]: [number, number]): number => Math.abs(ring.indexOf(a) - ring.indexOf(b));
    const neighbours = links.filter((pair) => [1, ring.length - 1].includes(distance(pair))).length;
    return { neighbours, linked: links.length };
  };

  it("is a permutation that never makes it worse, neighbours first, and the ring itself where all is well", () => {
    fc.assert(
      fc.property(rings, fc.array(fc.tuple(fc.nat(23), fc.nat(23)), { maxLength: 6 }), (ring, ends) => {
        const pairs = ends.filter(([a, b]) => a !== b).map(([a, b]) => pairKey(a + 1, b + 1));
        const order = orderAvoiding(ring, pairs);
        expect([...order].sort((a, b) => a - b)).toEqual(ring);
        const before = badness(ring, pairs);
        const after = badness(order, pairs);
        expect(after.neighbours).toBeLessThanOrEqual(before.neighbours);
        if (after.neighbours === before.neighbours) expect(after.linked).toBeLessThanOrEqual(before.linked);
        if (before.linked === 0) expect(order).toEqual(ring);
      }),
    );
  });

  it("does without any one link in rings that have unlinked ranks", () => {
    for (const size of [17, 18, 24, 32]) {
      const ring = Array.from({ length: size }, (_, i) => i + 1);
      for (let other = 2; other <= size; other++) {
        const pair = pairKey(1, other);
        expect(linkedPairs(orderAvoiding(ring, [pair]), [pair])).toEqual([]);
      }
    }
  });

  it("keeps any one pair from being neighbours in smaller rings, where all are linked", () => {
    for (const size of [4, 5, 8, 16]) {
      const ring = Array.from({ length: size }, (_, i) => i + 1);
      for (let other = 2; other <= size; other++) {
        const order = orderAvoiding(ring, [pairKey(1, other)]);
        const distance = Math.abs(order.indexOf(1) - order.indexOf(other));
        expect([1, size - 1]).not.toContain(distance);
      }
    }
  });
});

describe("relaysFor", () => {
  const ring = [1, 2, 3, 4, 5];

  it("gives each pair that needs one the least loaded third member", () => {
    const { relays, stuck } = relaysFor(ring, new Set(["1-2", "2-3", "7-8"]));
    expect(stuck).toEqual([]);
    expect(relays).toEqual([
      { a: 1, b: 2, via: 4 },
      { a: 2, b: 3, via: 5 },
    ]);
  });

  it("goes round members that can't be linked with either end, and relays that have failed", () => {
    const failed = relayKey({ a: 1, b: 2, via: 5 });
    const { relays } = relaysFor(ring, new Set(["1-2", "1-3", failed]));
    expect(relays.find(({ a, b }) => a === 1 && b === 2)).toEqual({ a: 1, b: 2, via: 4 });
  });

  it("says which pairs have none", () => {
    expect(relaysFor([1, 2], new Set(["1-2"])).stuck).toEqual(["1-2"]);
    expect(relaysFor([1, 2, 3], new Set(["1-2", "1-3"])).stuck).toEqual(["1-2", "1-3"]);
  });
});
