/** Random numbers that are the same everywhere for the same key. */

/** Scrambles a word (the finalizer of MurmurHash3). */
function scramble(word: number): number {
  let x = word;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

const rotate = (x: number, bits: number): number => (x << bits) | (x >>> (32 - bits));

/** xoshiro128** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021). */
export class Random {
  readonly #state = new Int32Array(4);

  /** Integers; keys that differ anywhere give unrelated numbers. */
  constructor(...key: readonly number[]) {
    let hash = 0x9e3779b9;
    for (const part of key) {
      hash = scramble(hash ^ (part >>> 0));
      hash = scramble(hash + Math.floor(part / 2 ** 32));
    }
    for (let i = 0; i < 4; i++) this.#state[i] = scramble(hash + Math.imul(i + 1, 0x9e3779b9));
  }

  /** In [0, 1), in steps of 2^-32. */
  uniform(): number {
    const s = this.#state as unknown as [number, number, number, number];
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0;
    const shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 11);
    return result / 2 ** 32;
  }

  /** An integer in [0, end). */
  below(end: number): number {
    return Math.floor(this.uniform() * end);
  }

  /** With mean 1. */
  exponential(): number {
    return -Math.log(1 - this.uniform());
  }

  /** With mean 0 and variance 1 (Box and Muller, 1958). */
  normal(): number {
    return Math.sqrt(2 * this.exponential()) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Gamma-distributed with this shape and scale 1 (Marsaglia and Tsang, 2000). */
  gamma(shape: number): number {
    if (shape < 1) return this.gamma(shape + 1) * (1 - this.uniform()) ** (1 / shape);
    const d = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      const x = this.normal();
      const v = (1 + c * x) ** 3;
      if (v > 0 && Math.log(1 - this.uniform()) < x * x * 0.5 + d - d * v + d * Math.log(v)) return d * v;
    }
  }

  /** Brings the values into a random order, in place (Fisher and Yates). */
  shuffle<T>(values: T[]): T[] {
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [values[i], values[j]] = [values[j] as T, values[i] as T];
    }
    return values;
  }
}
