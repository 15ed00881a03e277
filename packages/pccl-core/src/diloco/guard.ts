/**
 * Which contributions are left out of an average: those that aren't finite, and those whose norm is far from what the
 * group's have been. Every peer judges every contribution, from the same numbers, before any of them is sent.
 */

export interface Contribution {
  readonly peerId: number;
  /** ‖Δ‖₂ of the fragment. */
  readonly norm: number;
  readonly weight: number;
}

export interface Suspect {
  readonly peerId: number;
  readonly reason: "non-finite" | "outlier";
  readonly norm: number;
  /** Median of the group's norms in the last rounds of this fragment; undefined while there are too few. */
  readonly medianNorm: number | undefined;
}

/** Rounds that a fragment's median is taken over. */
export const HISTORY_ROUNDS = 8;
/** With fewer rounds behind it a fragment has no median: norms fall fast when training begins. */
const ROUNDS_MIN = 3;

/** The suspects among the contributions. `history` holds norms of earlier rounds, 0 where there was none. */
export function suspectsAmong(
  contributions: readonly Contribution[],
  history: Float64Array,
  factor: number,
): Suspect[] {
  const past = history.filter((norm) => norm > 0);
  const medianNorm = past.length < ROUNDS_MIN ? undefined : median(past);
  return contributions.flatMap(({ peerId, norm, weight }): Suspect[] => {
    if (!Number.isFinite(norm)) return [{ peerId, reason: "non-finite", norm, medianNorm }];
    const isFar = medianNorm !== undefined && weight > 0 && norm > factor * medianNorm;
    return isFar ? [{ peerId, reason: "outlier", norm, medianNorm }] : [];
  });
}

/**
 * Puts a round's median norm into the history, in place. Outliers count too: when everybody's norms have changed for
 * good, they are what is usual a few rounds later.
 */
export function remember(contributions: readonly Contribution[], history: Float64Array, round: number): void {
  const norms = contributions.filter(({ norm, weight }) => weight > 0 && Number.isFinite(norm) && norm > 0);
  if (norms.length === 0) return;
  history[round % history.length] = median(Float64Array.from(norms, ({ norm }) => norm));
}

/** The lower one of two in the middle. */
function median(values: Float64Array): number {
  return values.toSorted()[(values.length - 1) >> 1] as number;
}
