/**
 * The paths between the nodes of a ring, as the solvers see them, and what a ring over them is worth. Nodes are hosts:
 * peers that share memory pass tensors on by that, so that only what goes between hosts counts.
 *
 * Of two rings the one with the faster slowest path is better, for all that is reduced has to go over every path; of
 * two that are alike in that the one whose round is shorter, which is the time that a first chunk takes to go round.
 * Paths within a few per cent of each other count as equally fast: measurements aren't better than that.
 */

/** A path that nobody could measure, or over which nothing gets, is worse than any other one by far. */
export const UNKNOWN_SLOWNESS = 1;
const UNKNOWN_HOP_SECONDS = 100;
/** What a path passes on as one piece; native/src/base/limits.h has the same number. */
const CHUNK_BYTES: number = 512 * 1024;
/** Two speeds are on one level when they are within this factor, about. */
const LEVEL_FACTOR = 1.04;

/** Directed, by `from * size + to`; what is on the diagonal means nothing. */
export interface Paths {
  readonly size: number;
  /** Seconds per byte. */
  readonly slowness: Float64Array;
  /** What a chunk takes to get to the other end of an idle path, in seconds. */
  readonly hop: Float64Array;
  /** `slowness` in steps: a higher number is slower. */
  readonly level: Int32Array;
}

/** What is known of one path; undefined when nothing is. */
export interface PathSpeed {
  /** 0: nothing gets over it. */
  readonly bytesPerSecond: number;
  /** One way. */
  readonly latencySeconds: number;
}

export function pathsBetween(
  size: number,
  speedOf: (from: number, to: number) => PathSpeed | undefined,
): Paths {
  const slowness = new Float64Array(size * size).fill(UNKNOWN_SLOWNESS);
  const hop = new Float64Array(size * size).fill(UNKNOWN_HOP_SECONDS);
  for (let from = 0; from < size; from++) {
    for (let to = 0; to < size; to++) {
      const speed = from === to ? undefined : speedOf(from, to);
      if (speed === undefined || speed.bytesPerSecond <= 1 / UNKNOWN_SLOWNESS) continue;
      slowness[from * size + to] = 1 / speed.bytesPerSecond;
      hop[from * size + to] = speed.latencySeconds + CHUNK_BYTES / speed.bytesPerSecond;
    }
  }
  return { size, slowness, hop, level: Int32Array.from(slowness, levelOf) };
}

export function levelOf(slowness: number): number {
  return Math.round(Math.log(slowness) / Math.log(LEVEL_FACTOR));
}

/** How good a ring is: of two the one with the lower level is better, then the one with the shorter round. */
export interface RingCost {
  /** Of the slowest path. */
  readonly level: number;
  /** Of all paths together, in seconds. */
  readonly round: number;
}

export function ringCost({ size, level, hop }: Paths, ring: readonly number[]): RingCost {
  let slowest = Number.NEGATIVE_INFINITY;
  let round = 0;
  eachPath(ring, (from, to) => {
    slowest = Math.max(slowest, level[from * size + to] as number);
    round += hop[from * size + to] as number;
  });
  return { level: slowest, round };
}

export function isBetter(a: RingCost, b: RingCost): boolean {
  return a.level !== b.level ? a.level < b.level : a.round < b.round;
}

/** Of the ring's slowest path, in seconds per byte; 0 for a ring of one. */
export function slowestOf({ size, slowness }: Paths, ring: readonly number[]): number {
  let slowest = 0;
  eachPath(ring, (from, to) => (slowest = Math.max(slowest, slowness[from * size + to] as number)));
  return slowest;
}

/**
 * How long an all-reduce of so many bytes takes: each path carries 2(N-1)/N of them, at the slowest one's pace, after
 * a first chunk has gone round twice but for two paths (Patarasuk and Yuan 2009).
 */
export function predictSeconds(nodes: number, slowest: number, round: number, bytes: number): number {
  return nodes < 2 ? 0 : ((2 * (nodes - 1)) / nodes) * (bytes * slowest + round);
}

function eachPath(ring: readonly number[], visit: (from: number, to: number) => void): void {
  if (ring.length < 2) return;
  ring.forEach((from, i) => visit(from, ring[(i + 1) % ring.length] as number));
}
