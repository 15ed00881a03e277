/** Many runs in one: what they did, and what went wrong in them, so that it can be seen that they reach what they should. */
import { type Counts, noCounts } from "./invariants.js";
import type { RunResult } from "./simulation.js";

export interface SweepTally {
  seeds: number;
  virtualMs: number;
  readonly counts: Counts;
  /** Faults that had an effect, by kind. */
  readonly faults: Record<string, number>;
  /** How programs ended. */
  readonly results: Record<string, number>;
}

export function emptyTally(): SweepTally {
  return { seeds: 0, virtualMs: 0, counts: noCounts(), faults: {}, results: {} };
}

export function addRun(tally: SweepTally, { virtualMs, counts, faults, results }: RunResult): void {
  const ends: Record<string, number> = {};
  for (const result of results) ends[result] = (ends[result] ?? 0) + 1;
  addTally(tally, { seeds: 1, virtualMs, counts, faults, results: ends });
}

export function addTally(
  tally: SweepTally,
  {
    seeds,
    virtualMs,
    counts,
    faults,
    results,
  }: Omit<SweepTally, "counts" | "faults"> & {
    readonly counts: Readonly<Counts>;
    readonly faults: Readonly<Record<string, number>>;
  },
): void {
  tally.seeds += seeds;
  tally.virtualMs += virtualMs;
  add(tally.counts, counts);
  add(tally.faults, faults);
  add(tally.results, results);
}

function add(to: Record<string, number>, from: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(from)) to[name] = (to[name] ?? 0) + count;
}
