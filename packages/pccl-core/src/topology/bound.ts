/** What no ring can beat, to tell how far from it one may be. */
import type { Paths } from "./paths.js";

/**
 * Every ring has a path this slow, or a slower one, in seconds per byte. For in a ring everybody is left and entered
 * once, and gets to everybody: so the paths that are at least as fast as its slowest one hold a set of cycles through
 * all nodes (a perfect matching of nodes to next nodes), and connect all nodes both ways.
 */
export function slownessBound({ size, slowness }: Paths): number {
  if (size < 2) return 0;
  const values = [...new Set(slowness.filter((_, index) => index % (size + 1) !== 0))].sort((a, b) => a - b);
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    const next = fasterThan(size, slowness, values[middle] as number);
    if (isConnected(next) && isConnected(reversed(next)) && hasMatching(next)) high = middle;
    else low = middle + 1;
  }
  return values[low] as number;
}

/**
 * Every ring over paths up to this level has a round this long, or a longer one, in seconds: no shorter than the
 * shortest paths out of, or into, each node together.
 */
export function roundBound({ size, level, hop }: Paths, upTo: number): number {
  if (size < 2) return 0;
  let out = 0;
  let into = 0;
  for (let node = 0; node < size; node++) {
    let shortestOut = Number.POSITIVE_INFINITY;
    let shortestInto = Number.POSITIVE_INFINITY;
    for (let other = 0; other < size; other++) {
      if (other === node) continue;
      const [there, back] = [node * size + other, other * size + node];
      if ((level[there] as number) <= upTo) shortestOut = Math.min(shortestOut, hop[there] as number);
      if ((level[back] as number) <= upTo) shortestInto = Math.min(shortestInto, hop[back] as number);
    }
    out += shortestOut;
    into += shortestInto;
  }
  return Math.max(out, into);
}

/** Of each node those that a path at least this fast leads to. */
function fasterThan(size: number, slowness: Float64Array, limit: number): number[][] {
  return Array.from({ length: size }, (_, from) => {
    const next: number[] = [];
    for (let to = 0; to < size; to++) {
      if (to !== from && (slowness[from * size + to] as number) <= limit) next.push(to);
    }
    return next;
  });
}

function reversed(next: readonly (readonly number[])[]): number[][] {
  const previous: number[][] = next.map(() => []);
  next.forEach((targets, from) => targets.forEach((to) => previous[to]?.push(from)));
  return previous;
}

/** Whether node 0 gets to all. */
function isConnected(next: readonly (readonly number[])[]): boolean {
  const seen = new Set([0]);
  for (const node of seen) for (const to of next[node] as readonly number[]) seen.add(to);
  return seen.size === next.length;
}

/** Whether each node can have a next one of its own: by augmenting paths, breadth first. */
function hasMatching(next: readonly (readonly number[])[]): boolean {
  const ownerOf = new Int32Array(next.length).fill(-1);
  for (let start = 0; start < next.length; start++) {
    /** By target: the node that it was found from. */
    const foundFrom = new Map<number, number>();
    const queue = [start];
    let free = -1;
    for (let i = 0; i < queue.length && free < 0; i++) {
      const node = queue[i] as number;
      for (const to of next[node] as readonly number[]) {
        if (foundFrom.has(to)) continue;
        foundFrom.set(to, node);
        const owner = ownerOf[to] as number;
        if (owner < 0) {
          free = to;
          break;
        }
        queue.push(owner);
      }
    }
    if (free < 0) return false;
    for (let to = free; to >= 0; ) {
      const node = foundFrom.get(to) as number;
      const given = ownerOf.indexOf(node);
      ownerOf[to] = node;
      to = node === start ? -1 : given;
    }
  }
  return true;
}
