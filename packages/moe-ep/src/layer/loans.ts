/** Whose weights a plan lends to whom, and along which ranks they travel. Pure, and the same on every rank. */
import type { ExpertPlan } from "../planner/plan.js";

/** `target` computes copies of an expert whose weights `source` holds. */
export interface Loan {
  readonly expert: number;
  readonly source: number;
  readonly target: number;
}

/** One loan per expert and rank, by expert, then by the first position that the rank computes. */
export function loansOf(plan: ExpertPlan, owners: readonly number[]): Loan[] {
  return plan.assignments.flatMap((intervals, expert) => {
    const source = owners[expert] as number;
    const targets = new Set(intervals.map(({ rank }) => rank).filter((rank) => rank !== source));
    return [...targets].map((target) => ({ expert, source, target }));
  });
}

/** An expert's weights go from one rank to the next. */
export interface Hop {
  /** Names it among what passes between two ranks. */
  readonly number: number;
  readonly expert: number;
  readonly from: number;
  readonly to: number;
}

/** Those that are to get the same weights pass them on in a chain, so that the owner sends them once. */
export function hopsOf(loans: readonly Loan[], firstNumber: number): Hop[] {
  const last = new Map<number, number>();
  return loans.map(({ expert, source, target }, index) => {
    const from = last.get(expert) ?? source;
    last.set(expert, target);
    return { number: firstNumber + index, expert, from, to: target };
  });
}
