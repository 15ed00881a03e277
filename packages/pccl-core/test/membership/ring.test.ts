import fc from "fast-check";
import { describe, expect, it } from "vitest";
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
  it("links ranks at distances of powers of two, both ways round", () => {
    const distances = (size: number): number[] =>
      Array.from({ length: size }, (_, rank) => rank).filter((rank) => linked(0, rank, size));
    expect(distances(1)).toEqual([]);
    expect(distances(2)).toEqual([1]);
    expect(distances(6)).toEqual([1, 2, 4, 5]);
    expect(distances(9)).toEqual([1, 2, 4, 5, 7, 8]);
  });

  it("has every link that the rounds of a commit use, and no other", () => {
    for (let size = 2; size <= 40; size++) {
      const rounds = Array.from({ length: Math.ceil(Math.log2(size)) }, (_, k) => 2 ** k);
      const ring = Array.from({ length: size }, (_, i) => 100 + i);
      for (let rank = 0; rank < size; rank++) {
        const linkedIds = ring.filter((_, other) => linked(rank, other, size));
        expect(linkedPeers(ring, 100 + rank)).toEqual(linkedIds);
        const partners = new Set(rounds.flatMap((d) => [(rank + d) % size, (rank - d + size) % size]));
        for (let other = 0; other < size; other++) {
          expect(linked(rank, other, size), `${rank}-${other} of ${size}`).toBe(
            other !== rank && partners.has(other),
          );
        }
      }
    }
  });
});

describe("orderAvoiding", () => {
  const rings = fc.integer({ min: 1, max: 20 }).map((size) => Array.from({ length: size }, (_, i) => i + 1));

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
      fc.property(rings, fc.array(fc.tuple(fc.nat(19), fc.nat(19)), { maxLength: 6 }), (ring, ends) => {
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
    for (const size of [6, 8, 9, 12, 16]) {
      const ring = Array.from({ length: size }, (_, i) => i + 1);
      for (let other = 2; other <= size; other++) {
        const pair = pairKey(1, other);
        expect(linkedPairs(orderAvoiding(ring, [pair]), [pair])).toEqual([]);
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
