/** Ring orders, the links that they ask for, and the relays for links that can't be built directly. */
import { FULLY_LINKED_MAX } from "../base/limits.js";
import type { Relay } from "./messages.js";

/** The same for both directions. */
export function pairKey(a: number, b: number): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`;
}

export function relayKey({ a, b, via }: Relay): string {
  return `${pairKey(a, b)}@${via}`;
}

/**
 * Whether ranks `a` and `b` of a ring of `size` are linked: in small rings all are, in larger ones those whose distance
 * is a power of two, either way round. native/src/transport/ring_links.h says the same.
 */
export function linked(a: number, b: number, size: number): boolean {
  if (a === b || size <= FULLY_LINKED_MAX) return a !== b;
  const distance = (b - a + size) % size;
  return isPowerOfTwo(distance) || isPowerOfTwo(size - distance);
}

function isPowerOfTwo(value: number): boolean {
  return (value & (value - 1)) === 0;
}

/** Those that the ring links with `peerId`. */
export function linkedPeers(ring: readonly number[], peerId: number): number[] {
  const size = ring.length;
  if (size <= FULLY_LINKED_MAX) return ring.filter((id) => id !== peerId);
  const rank = ring.indexOf(peerId);
  const ranks = new Set<number>();
  for (let distance = 1; distance < size; distance *= 2) {
    ranks.add((rank + distance) % size).add((rank - distance + size) % size);
  }
  ranks.delete(rank);
  return [...ranks].sort((a, b) => a - b).map((other) => ring[other] as number);
}

/** Those of `pairs` (keys of pairKey) that the ring links. */
export function linkedPairs(ring: readonly number[], pairs: Iterable<string>): string[] {
  return pairsInRing(ring, pairs).flatMap(({ pair, a, b }) => (linked(a, b, ring.length) ? [pair] : []));
}

/** The pairs with both ends in the ring, and their ranks. */
function pairsInRing(
  ring: readonly number[],
  pairs: Iterable<string>,
): { readonly pair: string; readonly a: number; readonly b: number }[] {
  const rankOf = new Map(ring.map((id, rank) => [id, rank]));
  return [...pairs].flatMap((pair) => {
    const [a, b] = endsOf(pair).map((id) => rankOf.get(id));
    return a === undefined || b === undefined ? [] : [{ pair, a, b }];
  });
}

export function endsOf(pair: string): [number, number] {
  const [a, b] = pair.split("-").map(Number);
  return [a as number, b as number];
}

/**
 * The ring in an order that links few of the pairs `avoid`, as swapping members greedily finds it; the ring itself
 * if it links none of them. Neighbours are worth avoiding more than other links, for it is between them that a large
 * tensor goes round; in small rings, where everybody is linked with everybody, that is all that an order can do.
 */
export function orderAvoiding(ring: readonly number[], avoid: Iterable<string>): readonly number[] {
  const pairs = pairsInRing(ring, avoid).map(({ pair }) => pair);
  let best = ring;
  let cost = costOf(best, pairs);
  while (cost > 0) {
    const ends = new Set(linkedPairs(best, pairs).flatMap(endsOf));
    let improved: readonly number[] | undefined;
    for (const id of ends) {
      for (let rank = 0; rank < best.length; rank++) {
        const candidate = swapped(best, best.indexOf(id), rank);
        const candidateCost = costOf(candidate, pairs);
        if (candidateCost < cost) [improved, cost] = [candidate, candidateCost];
      }
    }
    if (improved === undefined) break;
    best = improved;
  }
  return best;
}

const NEIGHBOUR_COST = 16;

function costOf(ring: readonly number[], pairs: Iterable<string>): number {
  const size = ring.length;
  let cost = 0;
  for (const { a, b } of pairsInRing(ring, pairs)) {
    const distance = (b - a + size) % size;
    if (distance === 1 || distance === size - 1) cost += NEIGHBOUR_COST;
    else if (linked(a, b, size)) cost += 1;
  }
  return cost;
}

function swapped(ring: readonly number[], a: number, b: number): readonly number[] {
  const result = [...ring];
  [result[a], result[b]] = [ring[b] as number, ring[a] as number];
  return result;
}

/**
 * A relay for each linked pair of the ring that is in `unlinkable`: a third member that both ends can be linked
 * with, the least loaded one. `stuck`: the pairs for which there is none.
 */
export function relaysFor(
  ring: readonly number[],
  unlinkable: ReadonlySet<string>,
): { readonly relays: readonly Relay[]; readonly stuck: readonly string[] } {
  const load = new Map<number, number>();
  const relays: Relay[] = [];
  const stuck: string[] = [];
  for (const pair of linkedPairs(ring, unlinkable)) {
    const [a, b] = endsOf(pair);
    const via = ring
      .filter(
        (id) =>
          id !== a &&
          id !== b &&
          !unlinkable.has(pairKey(a, id)) &&
          !unlinkable.has(pairKey(b, id)) &&
          !unlinkable.has(relayKey({ a, b, via: id })),
      )
      .reduce<number | undefined>(
        (best, id) => (best === undefined || (load.get(id) ?? 0) < (load.get(best) ?? 0) ? id : best),
        undefined,
      );
    if (via === undefined) stuck.push(pair);
    else {
      load.set(via, (load.get(via) ?? 0) + 1);
      relays.push({ a, b, via });
    }
  }
  return { relays, stuck };
}
