/** Batches for property tests: counts per rank and expert, from even ones to those with everything in one place. */
import fc from "fast-check";

export interface Batch {
  readonly ranks: number;
  readonly experts: number;
  readonly counts: readonly (readonly number[])[];
}

/** Weights are powers, so that few experts may have nearly everything; small ones make many ties. */
export const batches: fc.Arbitrary<Batch> = fc
  .record({
    ranks: fc.integer({ min: 1, max: 9 }),
    expertsPerRank: fc.integer({ min: 1, max: 6 }),
    extra: fc.integer({ min: 0, max: 3 }),
    scale: fc.constantFrom(1, 7, 100, 5_000),
    power: fc.constantFrom(0, 1, 4, 12),
    draws: fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
  })
  .map(({ ranks, expertsPerRank, extra, scale, power, draws }) => {
    const experts = ranks * expertsPerRank + Math.min(extra, ranks - 1);
    const draw = (): number => draws.next().value as number;
    const heat = Array.from({ length: experts }, () => draw() ** power);
    const counts = Array.from({ length: ranks }, () =>
      heat.map((weight) => Math.round(scale * weight * 2 * draw())),
    );
    return { ranks, experts, counts };
  });
