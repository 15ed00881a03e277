/**
 * The best ring of up to EXACT_NODES_MAX nodes. First the lowest level at which there is a Hamiltonian cycle: by
 * bisection, each time by dynamic programming over the subsets of nodes that a walk from node 0 has been to, with the
 * set of nodes where it can end as bits. Then the shortest cycle over paths up to that level: Held and Karp (1962).
 */
import type { Paths } from "./paths.js";

export const EXACT_NODES_MAX = 12;

/** From node 0 on. */
export function exactRing(paths: Paths): number[] {
  if (paths.size <= 2) return Array.from({ length: paths.size }, (_, node) => node);
  return shortestCycle(paths, lowestLevel(paths));
}

function lowestLevel(paths: Paths): number {
  const { size, level } = paths;
  const levels = [...new Set(level.filter((_, index) => index % (size + 1) !== 0))].sort((a, b) => a - b);
  let low = 0;
  let high = levels.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (hasCycle(paths, levels[middle] as number)) high = middle;
    else low = middle + 1;
  }
  return levels[low] as number;
}

/** Of each node the bits of those that a path up to this level leads to. */
function successors({ size, level }: Paths, upTo: number): Int32Array {
  const sets = new Int32Array(size);
  for (let from = 0; from < size; from++) {
    for (let to = 0; to < size; to++) {
      if (from !== to && (level[from * size + to] as number) <= upTo)
        sets[from] = (sets[from] as number) | (1 << to);
    }
  }
  return sets;
}

function hasCycle(paths: Paths, upTo: number): boolean {
  const { size } = paths;
  const next = successors(paths, upTo);
  const all = (1 << size) - 1;
  /** By the set that the walk has been to: where it can be. */
  const ends = new Int32Array(1 << size);
  ends[1] = 1;
  for (let visited = 1; visited <= all; visited += 2) {
    const at = ends[visited] as number;
    if (at === 0) continue;
    for (let node = 0; node < size; node++) {
      if ((at & (1 << node)) === 0) continue;
      if (visited === all && ((next[node] as number) & 1) !== 0) return true;
      for (let left = (next[node] as number) & ~visited; left !== 0; left &= left - 1) {
        const bit = left & -left;
        ends[visited | bit] = (ends[visited | bit] as number) | bit;
      }
    }
  }
  return false;
}

function shortestCycle(paths: Paths, upTo: number): number[] {
  const { size, hop } = paths;
  const next = successors(paths, upTo);
  const all = (1 << size) - 1;
  const length = new Float64Array((all + 1) * size).fill(Number.POSITIVE_INFINITY);
  const before = new Int8Array((all + 1) * size);
  length[size] = 0; // visited: node 0 alone
  for (let visited = 1; visited <= all; visited += 2) {
    for (let node = 0; node < size; node++) {
      const sofar = length[visited * size + node] as number;
      if (sofar === Number.POSITIVE_INFINITY) continue;
      for (let left = (next[node] as number) & ~visited; left !== 0; left &= left - 1) {
        const to = 31 - Math.clz32(left & -left);
        const index = (visited | (1 << to)) * size + to;
        const candidate = sofar + (hop[node * size + to] as number);
        if (candidate < (length[index] as number)) {
          length[index] = candidate;
          before[index] = node;
        }
      }
    }
  }
  let last = 0;
  let best = Number.POSITIVE_INFINITY;
  for (let node = 1; node < size; node++) {
    if (((next[node] as number) & 1) === 0) continue;
    const candidate = (length[all * size + node] as number) + (hop[node * size] as number);
    if (candidate < best) [best, last] = [candidate, node];
  }
  const ring: number[] = [];
  for (let visited = all, node = last; visited !== 0; ) {
    ring.unshift(node);
    const previous = before[visited * size + node] as number;
    visited &= ~(1 << node);
    node = previous;
  }
  return ring;
}
