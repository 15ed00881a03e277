/** Summaries of samples, and where results are kept. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { describeMachine } from "./machine.js";

export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly median: number;
  readonly p99: number;
  readonly max: number;
}

/** Nearest rank; values to a thousandth. */
export function summarize(values: readonly number[]): Summary {
  if (values.length === 0) throw new Error("nothing was measured");
  const sorted = [...values].sort((a, b) => a - b);
  const at = (quantile: number): number => {
    const value = sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)] ?? Number.NaN;
    return Math.round(value * 1_000) / 1_000;
  };
  return { count: sorted.length, min: at(0), median: at(0.5), p99: at(0.99), max: at(1) };
}

/** Of rounds of which some may have failed, which are NaN then. NaN when all have. */
export function medianOf(rounds: readonly number[]): number {
  const sorted = rounds.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2;
}

/** The median of the rounds' ratios of `theirs` to `ours`. */
export function ratioOf(theirs: readonly number[], ours: readonly number[]): number {
  return medianOf(theirs.map((value, round) => value / (ours[round] ?? Number.NaN)));
}

export function formatMs({ median, p99, max, count }: Summary): string {
  return `median ${median.toFixed(2)} ms, p99 ${p99.toFixed(2)}, max ${max.toFixed(2)} (${count})`;
}

/** Writes results with the machine that they were measured on. */
export function writeResults(path: string | undefined, results: unknown): void {
  if (path === undefined) return;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify({ machine: describeMachine(), results }, null, 2)}\n`);
}
