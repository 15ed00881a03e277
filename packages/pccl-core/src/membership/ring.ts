/** Ring orders and the links that they ask for. */

/** The same for both directions. */
export function pairKey(a: number, b: number): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`;
}

/** Whether ranks `a` and `b` of a ring of `size` are linked: their distance is a power of two, either way round. */
export function linked(a: number, b: number, size: number): boolean {
  if (a === b) return false;
  const distance = (b - a + size) % size;
  return isPowerOfTwo(distance) || isPowerOfTwo(size - distance);
}

function isPowerOfTwo(value: number): boolean {
  return (value & (value - 1)) === 0;
}

/** Those of `pairs` (keys of pairKey) that the ring links. */
export function linkedPairs(ring: readonly number[], pairs: Iterable<string>): string[] {
  const rankOf = new Map(ring.map((id, rank) => [id, rank]));
  return [...pairs].filter((pair) => {
    const [a, b] = pair.split("-").map((id) => rankOf.get(Number(id)));
    return a !== undefined && b !== undefined && linked(a, b, ring.length);
  });
}

/**
 * The ring with as few of `avoid` linked as swapping members greedily finds; the ring itself if none of them is.
 * In small rings everybody is linked with everybody, and no order helps.
 */
export function orderAvoiding(ring: readonly number[], avoid: Iterable<string>): readonly number[] {
  const pairs = [...avoid];
  let best = ring;
  let bad = linkedPairs(best, pairs);
  while (bad.length > 0) {
    const ends = new Set(bad.flatMap((pair) => pair.split("-").map(Number)));
    let improved: readonly number[] | undefined;
    let improvedBad = bad;
    for (const id of ends) {
      for (let rank = 0; rank < best.length; rank++) {
        const candidate = swapped(best, best.indexOf(id), rank);
        const candidateBad = linkedPairs(candidate, pairs);
        if (candidateBad.length < improvedBad.length) [improved, improvedBad] = [candidate, candidateBad];
      }
    }
    if (improved === undefined) break;
    [best, bad] = [improved, improvedBad];
  }
  return best;
}

function swapped(ring: readonly number[], a: number, b: number): readonly number[] {
  const result = [...ring];
  [result[a], result[b]] = [ring[b] as number, ring[a] as number];
  return result;
}
