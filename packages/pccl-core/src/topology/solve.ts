/** The best ring over paths that can be found in a bounded time, and how far from the best one it may be. */
import { roundBound, slownessBound } from "./bound.js";
import { EXACT_NODES_MAX, exactRing } from "./exact.js";
import { type Paths, predictSeconds, ringCost, slowestOf } from "./paths.js";
import { searchRing, type SearchOptions } from "./search.js";

/** A ring of all nodes, from node 0 on; the best one there is for up to EXACT_NODES_MAX nodes. */
export function solveRing(paths: Paths, options: SearchOptions): number[] {
  const ring = paths.size <= EXACT_NODES_MAX ? exactRing(paths) : searchRing(paths, options);
  const zero = ring.indexOf(0);
  return [...ring.slice(zero), ...ring.slice(0, zero)];
}

export interface Prediction {
  readonly seconds: number;
  /**
   * The best ring's, for up to EXACT_NODES_MAX nodes; for more a bound, which no ring with as fast a slowest path as
   * this one's can be below.
   */
  readonly boundSeconds: number;
}

/** Of an all-reduce of so many bytes on the ring. */
export function predictRing(paths: Paths, ring: readonly number[], bytes: number): Prediction {
  const { size } = paths;
  const secondsOn = (other: readonly number[]): number =>
    predictSeconds(size, slowestOf(paths, other), ringCost(paths, other).round, bytes);
  const seconds = secondsOn(ring);
  if (size <= EXACT_NODES_MAX)
    return { seconds, boundSeconds: Math.min(seconds, secondsOn(exactRing(paths))) };
  const round = roundBound(paths, ringCost(paths, ring).level);
  return { seconds, boundSeconds: predictSeconds(size, slownessBound(paths), round, bytes) };
}
