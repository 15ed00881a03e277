/**
 * A good ring of more nodes than exact.ts can manage, within a number of evaluated moves, so that it takes a bounded
 * time and the same seed gives the same ring. A search for a ring whose paths are all up to a level, then for lower
 * levels by bisection, then for a shorter round at the level that was reached. Each search is an iterated local one
 * (Lourenço, Martin and Stützle 2003): moves that exchange two neighbouring segments, the only exchange of three paths
 * that turns none around, which directed paths don't allow (Or 1976; Kanellakis and Papadimitriou 1980); out of a
 * local optimum the double bridge leads, which exchanges four.
 */
import { slownessBound } from "./bound.js";
import { isBetter, levelOf, type Paths, ringCost } from "./paths.js";

export interface SearchOptions {
  /** A ring to begin with. */
  readonly start: readonly number[];
  readonly seed: number;
  /** Moves to look at, about. */
  readonly evaluations: number;
}

/** Next nodes that a move may give to a node: those with the best paths from there. */
const CANDIDATES_MAX = 12;
/** Double bridges at once, when fewer have led nowhere for a while. */
const FARTHEST = 4;

export function searchRing(paths: Paths, { start, seed, evaluations }: SearchOptions): number[] {
  const budget = { left: evaluations };
  const random = mulberry32(seed);
  let best = [...start];
  const consider = (ring: readonly number[]): void => {
    if (isBetter(ringCost(paths, ring), ringCost(paths, best))) best = [...ring];
  };
  consider(nearestNeighbours(paths));
  const levels = [...new Set(paths.level.filter((_, index) => index % (paths.size + 1) !== 0))].sort(
    (a, b) => a - b,
  );
  const reached = (): number => levels.indexOf(ringCost(paths, best).level);
  let low = levels.indexOf(levelOf(slownessBound(paths)));
  while (low < reached()) {
    const middle = (low + reached()) >> 1;
    const level = levels[middle] as number;
    const share = { left: budget.left / 3 };
    budget.left -= share.left;
    const search = new LocalSearch(paths, level, best, random, share);
    while (share.left > 0 && !search.isWithinLevel()) search.iterate();
    budget.left += Math.max(0, share.left);
    consider(search.best);
    if (reached() > middle) low = middle + 1;
  }
  const search = new LocalSearch(paths, ringCost(paths, best).level, best, random, budget);
  while (budget.left > 0) search.iterate();
  consider(search.best);
  return best;
}

/** From node 0 on, each time the best path to a node that is still to be visited. */
function nearestNeighbours({ size, level, hop }: Paths): number[] {
  const ring = [0];
  const left = new Set(Array.from({ length: size - 1 }, (_, index) => index + 1));
  for (let from = 0; left.size > 0; ) {
    let best = -1;
    for (const to of left) {
      const [a, b] = [from * size + to, from * size + best];
      const difference = best < 0 ? -1 : (level[a] as number) - (level[b] as number);
      if (difference < 0 || (difference === 0 && (hop[a] as number) < (hop[b] as number))) best = to;
    }
    left.delete(best);
    ring.push(best);
    from = best;
  }
  return ring;
}

/** Looks for the shortest round over paths up to a level; paths above it cost more than any round, the more the slower. */
class LocalSearch {
  best: number[];
  readonly #size: number;
  readonly #weight: Float64Array;
  readonly #penalty: number;
  /** Of each node the nodes with the lightest paths from there. */
  readonly #candidates: readonly (readonly number[])[];
  readonly #random: () => number;
  readonly #budget: { left: number };
  #ring: number[];
  /** Ways out that have led to nothing better, since one has. */
  #vain = 0;
  #bestTotal: number;
  readonly #position: Int32Array;

  constructor(
    { size, level, hop }: Paths,
    upTo: number,
    start: readonly number[],
    random: () => number,
    budget: { left: number },
  ) {
    this.#size = size;
    this.#random = random;
    this.#budget = budget;
    this.#penalty = 1 + hop.reduce((longest, value) => Math.max(longest, value), 0) * size;
    this.#weight = hop.map((value, index) => {
      const above = (level[index] as number) - upTo;
      return value + (above > 0 ? this.#penalty * (1 + above / 100) : 0);
    });
    const nodes = Array.from({ length: size }, (_, node) => node);
    this.#candidates = nodes.map((from) =>
      nodes
        .filter((to) => to !== from)
        .sort((a, b) => this.#between(from, a) - this.#between(from, b))
        .slice(0, CANDIDATES_MAX),
    );
    this.#position = new Int32Array(size);
    this.#ring = [...start];
    this.best = [...start];
    this.#bestTotal = this.#total(start);
  }

  isWithinLevel(): boolean {
    return this.#bestTotal < this.#penalty;
  }

  /** One way out of the best ring's valley and down to the bottom of the next one. */
  iterate(): void {
    this.#descend();
    const total = this.#total(this.#ring);
    this.#vain++;
    if (total < this.#bestTotal) {
      this.best = [...this.#ring];
      this.#bestTotal = total;
      this.#vain = 0;
    }
    this.#ring = this.best;
    for (let far = 0; far <= (this.#vain >> 4) % FARTHEST; far++) this.#ring = this.#doubleBridge(this.#ring);
  }

  #between(from: number, to: number): number {
    return this.#weight[from * this.#size + to] as number;
  }

  #total(ring: readonly number[]): number {
    this.#budget.left -= ring.length;
    return ring.reduce((sum, from, i) => sum + this.#between(from, ring[(i + 1) % ring.length] as number), 0);
  }

  #descend(): void {
    this.#index();
    for (
      let i = 0, unchanged = 0;
      unchanged < this.#size && this.#budget.left > 0;
      i = (i + 1) % this.#size
    ) {
      if (this.#improveFrom(i)) unchanged = 0;
      else unchanged++;
    }
  }

  #index(): void {
    this.#ring.forEach((node, at) => (this.#position[node] = at));
  }

  /**
   * Let the ring be a … | b … c | d … e | f …, with a at `at`. Exchanging the two segments gives a d … e b … c f: the
   * paths a-b, c-d and e-f go, a-d, e-b and c-f come. Only a d to which the path is lighter than that to b can gain.
   */
  #improveFrom(at: number): boolean {
    const size = this.#size;
    const node = (offset: number): number => this.#ring[(at + offset) % size] as number;
    const [a, b] = [node(0), node(1)];
    const old = this.#between(a, b);
    for (const d of this.#candidates[a] as readonly number[]) {
      const gain = old - this.#between(a, d);
      if (gain <= 0) return false;
      const toD = ((this.#position[d] as number) - at + size) % size;
      const c = node(toD - 1);
      const first = gain + this.#between(c, d);
      for (let toE = toD; toE < size; toE++) {
        const [e, f] = [node(toE), node(toE + 1)];
        this.#budget.left--;
        // A little more than nothing, so that rounding can't make it go round in circles.
        if (first + this.#between(e, f) - this.#between(e, b) - this.#between(c, f) <= 1e-9) continue;
        const turned = Array.from({ length: size }, (_, offset) => node(offset));
        this.#ring = [a, ...turned.slice(toD, toE + 1), ...turned.slice(1, toD), ...turned.slice(toE + 1)];
        this.#index();
        return true;
      }
    }
    return false;
  }

  /** Four segments, A B C D, become A D C B. */
  #doubleBridge(ring: readonly number[]): number[] {
    const cuts = [0, 0, 0]
      .map(() => 1 + Math.floor(this.#random() * (ring.length - 1)))
      .sort((x, y) => x - y);
    const [x, y, z] = cuts as [number, number, number];
    return [...ring.slice(0, x), ...ring.slice(z), ...ring.slice(y, z), ...ring.slice(x, y)];
  }
}

/** Numbers in [0, 1): Tommy Ettinger's mulberry32. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
