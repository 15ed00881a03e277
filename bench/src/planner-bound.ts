/**
 * What no plan can be better than. Of a plan whose cost, max over ranks of (load + w · max(imports, exports)), is C:
 *
 *   A rank whose native load L is above C gives away at least L - C + w·e copies in e transfers. A transfer carries at
 *   most its expert's copies, and at most C - w, which its borrower has room for at the very best.
 *   Any other rank takes, net, at most C - w·i - L copies in i transfers, and at most i times the largest expert.
 *
 * Both sides bound the transfers from below, so each C comes with the fewest transfers that it could take.
 */

/** A cost, and the fewest transfers with which it might be reached. */
export interface BoundPoint {
  readonly cost: number;
  readonly transfers: number;
}

const STEPS = 400;

/** `owned[rank]` holds the copies of each of its experts. Falling costs take rising numbers of transfers. */
export function boundsOf(owned: readonly (readonly number[])[], w: number): BoundPoint[] {
  const sorted = owned.map((copies) => [...copies].sort((a, b) => b - a));
  const loads = sorted.map((copies) => copies.reduce((a, b) => a + b, 0));
  const largest = Math.max(...loads);
  const mean = loads.reduce((a, b) => a + b, 0) / loads.length;
  const points: BoundPoint[] = [{ cost: largest, transfers: 0 }];
  const step = (largest - mean) / STEPS;
  for (let i = 1; i < STEPS; i++) {
    const cost = mean + step * i;
    const transfers = fewestTransfers(sorted, loads, w, cost);
    // Costs a little below this one may take as few.
    if (transfers !== undefined) points.push({ cost: cost - step, transfers });
  }
  return points;
}

function fewestTransfers(
  sorted: readonly (readonly number[])[],
  loads: readonly number[],
  w: number,
  cost: number,
): number | undefined {
  const room = cost - w;
  if (room <= 0) return undefined;
  let [exported, given] = [0, 0];
  for (const [rank, load] of loads.entries()) {
    if (load <= cost) continue;
    const count = fewestExports(sorted[rank] ?? [], load - cost, w, room);
    if (count === undefined) return undefined;
    exported += count;
    given += load - cost + w * count;
  }
  const largest = Math.max(...sorted.map(([copies]) => copies ?? 0));
  const gains = loads
    .filter((load) => load < room)
    .flatMap((load) => {
      const own: number[] = [];
      for (let imports = 1, taken = 0; ; imports++) {
        const most = Math.min(imports * largest, cost - w * imports - load);
        if (most <= taken) return own;
        own.push(most - taken);
        taken = most;
      }
    })
    .sort((a, b) => b - a);
  let imported = 0;
  for (const gain of gains) {
    if (given <= 1e-6) break;
    given -= gain;
    imported++;
  }
  return given > 1e-6 ? undefined : Math.max(exported, imported);
}

function fewestExports(
  copies: readonly number[],
  excess: number,
  w: number,
  room: number,
): number | undefined {
  const chunks = copies
    .flatMap((count) => [...new Array<number>(Math.floor(count / room)).fill(room), count % room])
    .sort((a, b) => b - a);
  let given = 0;
  for (const [index, chunk] of chunks.entries()) {
    given += chunk;
    if (given >= excess + w * (index + 1)) return index + 1;
    if (chunk <= w) return undefined;
  }
  return undefined;
}

/**
 * The least sum of `value` over the cases with at most `transfers` transfers in all, by weak duality: whatever price a
 * transfer has, the cheapest points with it, less the price of all that may be made, are a bound.
 */
export function leastSum<T>(
  cases: readonly T[],
  pointsOf: (one: T) => readonly BoundPoint[],
  value: (one: T, cost: number) => number,
  transfers: number,
): number {
  const dual = (price: number): number =>
    cases.reduce(
      (sum, one) =>
        sum + Math.min(...pointsOf(one).map((point) => value(one, point.cost) + price * point.transfers)),
      -price * transfers,
    );
  // The dual is concave in the price; the scale of prices isn't known.
  let best = dual(0);
  for (let exponent = -40; exponent <= 60; exponent++) best = Math.max(best, dual(2 ** (exponent / 2)));
  return best;
}
