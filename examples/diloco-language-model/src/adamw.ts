/** AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) over the views of an arena: the inner optimizer. */
import type { ParameterArena } from "@pccl/core/diloco";

const LEARNING_RATE = 0.01;
const WARM_UP_STEPS = 20;
const BETA1 = 0.9;
const BETA2 = 0.99;
const EPSILON = 1e-8;
const WEIGHT_DECAY = 0.1;

export class AdamW {
  readonly #arena: ParameterArena;
  readonly #first: Float32Array;
  readonly #second: Float32Array;
  #steps = 0;

  constructor(arena: ParameterArena) {
    this.#arena = arena;
    this.#first = new Float32Array(arena.data.length);
    this.#second = new Float32Array(arena.data.length);
  }

  /** `gradients` are in the arena's order, each as long as its parameter. */
  step(gradients: readonly Float32Array[]): void {
    const t = ++this.#steps;
    const rate = LEARNING_RATE * Math.min(1, t / WARM_UP_STEPS);
    const correction1 = 1 - BETA1 ** t;
    const correction2 = 1 - BETA2 ** t;
    let offset = 0;
    for (const [index, { name, length }] of this.#arena.layout.entries()) {
      const values = this.#arena.view(name);
      const gradient = gradients[index] as Float32Array;
      const first = this.#first.subarray(offset, offset + length);
      const second = this.#second.subarray(offset, offset + length);
      // Matrices only: a bias that decays can't do its work.
      const decay = this.#arena.shape(name).length > 1 ? 1 - rate * WEIGHT_DECAY : 1;
      for (let i = 0; i < length; i++) {
        const g = gradient[i] as number;
        const m = BETA1 * (first[i] as number) + (1 - BETA1) * g;
        const v = BETA2 * (second[i] as number) + (1 - BETA2) * g * g;
        first[i] = m;
        second[i] = v;
        values[i] =
          (values[i] as number) * decay - (rate * (m / correction1)) / (Math.sqrt(v / correction2) + EPSILON);
      }
      offset += length;
    }
  }
}
