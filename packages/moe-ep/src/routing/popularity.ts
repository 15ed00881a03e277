/** Draws experts by popularity, without drawing one twice for a token. */
import type { Random } from "./random.js";

/** Popularities are at least this part of all, so that there is always an expert left to draw. */
const PART_MIN = 1e-12;

/** A tree of sums over the weights: drawing, taking out and putting back take the logarithm of their number. */
export class PopularityTree {
  readonly #size: number;
  /** [1] is the root, [2i] and [2i + 1] are the children of [i], the weights begin at [size]. */
  readonly #sums: Float64Array;

  /** At least one weight, of which one is above 0. */
  constructor(weights: readonly number[]) {
    this.#size = 2 ** Math.ceil(Math.log2(weights.length));
    this.#sums = new Float64Array(2 * this.#size);
    const sum = weights.reduce((total, weight) => total + weight, 0);
    for (const [i, weight] of weights.entries()) {
      this.#sums[this.#size + i] = Math.max(weight / sum, PART_MIN);
    }
    for (let i = this.#size - 1; i >= 1; i--) this.#add(i);
  }

  /** Fills `into` with different experts, in the order in which they were drawn; no more than there are weights. */
  draw(random: Random, into: Int32Array): void {
    const taken: number[] = [];
    for (let slot = 0; slot < into.length; slot++) {
      const leaf = this.#drawLeaf(random);
      into[slot] = leaf - this.#size;
      taken.push(this.#sums[leaf] as number);
      this.#set(leaf, 0);
    }
    // The sums are computed anew from the same numbers, so they come back to the last bit.
    for (const [slot, weight] of taken.entries()) this.#set(this.#size + (into[slot] as number), weight);
  }

  #drawLeaf(random: Random): number {
    let rest = random.uniform() * (this.#sums[1] as number);
    let node = 1;
    while (node < this.#size) {
      const left = this.#sums[2 * node] as number;
      const right = this.#sums[2 * node + 1] as number;
      if (rest < left || right === 0) node = 2 * node;
      else {
        rest -= left;
        node = 2 * node + 1;
      }
    }
    return node;
  }

  #set(leaf: number, weight: number): void {
    this.#sums[leaf] = weight;
    for (let node = leaf >> 1; node >= 1; node >>= 1) this.#add(node);
  }

  #add(node: number): void {
    this.#sums[node] = (this.#sums[2 * node] as number) + (this.#sums[2 * node + 1] as number);
  }
}
