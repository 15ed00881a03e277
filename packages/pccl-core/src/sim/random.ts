/** Seeded random numbers: the same seed gives the same run on every machine. */
export class Random {
  #state: number;

  /**
   * `stream` names one of the independent sequences of a seed. Whatever draws has its own, so that taking a fault
   * or a peer out of a run leaves the others' luck as it was.
   */
  constructor(seed: number, stream = "") {
    // FNV-1a over the name (G. Fowler, L. Noll, K.-P. Vo).
    let hash = 0x811c9dc5;
    for (let i = 0; i < stream.length; i++) hash = Math.imul(hash ^ stream.charCodeAt(i), 0x01000193);
    // Neighbouring seeds must not begin alike, and xorshift must not begin at zero.
    this.#state = Math.imul(seed ^ hash ^ 0x9e3779b9, 0x85ebca6b) || 1;
    for (let i = 0; i < 8; i++) this.#next();
  }

  /** xorshift32 (G. Marsaglia, "Xorshift RNGs", 2003). */
  #next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** In [min, max). */
  between(min: number, max: number): number {
    return min + (this.#next() / 2 ** 32) * (max - min);
  }

  /** An integer in [0, count). */
  below(count: number): number {
    return Math.floor(this.between(0, count));
  }

  chance(probability: number): boolean {
    return this.between(0, 1) < probability;
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }
}
