import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { linked, linkedPairs, orderAvoiding, pairKey } from "../../src/membership/ring.js";

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
      for (let rank = 0; rank < size; rank++) {
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

  it("is a permutation that never links more of the pairs, and the ring itself where none is linked", () => {
    fc.assert(
      fc.property(rings, fc.array(fc.tuple(fc.nat(19), fc.nat(19)), { maxLength: 6 }), (ring, ends) => {
        const pairs = ends.filter(([a, b]) => a !== b).map(([a, b]) => pairKey(a + 1, b + 1));
        const order = orderAvoiding(ring, pairs);
        expect([...order].sort((a, b) => a - b)).toEqual(ring);
        const before = linkedPairs(ring, pairs).length;
        expect(linkedPairs(order, pairs).length).toBeLessThanOrEqual(before);
        if (before === 0) expect(order).toEqual(ring);
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
