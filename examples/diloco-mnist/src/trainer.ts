/** What one peer trains with: its own order of the examples, and steps of one batch. */
import { Random } from "@pccl/example-diloco-language-model/random";
import type { Split } from "./digits.js";
import { Network } from "./network.js";

export interface TrainerOptions {
  readonly hidden: number;
  readonly batch: number;
  /** Gives the initial parameters, the same on every peer. */
  readonly seed: number;
  /** Gives the order of the examples, another one on every peer. */
  readonly stream: number;
}

export class Trainer {
  readonly network: Network;
  readonly #split: Split;
  readonly #batch: number;
  readonly #random: Random;

  constructor(split: Split, { hidden, batch, seed, stream }: TrainerOptions) {
    const { inputs, classes } = split.examples;
    this.network = new Network(inputs, hidden, classes, seed);
    this.#split = split;
    this.#batch = batch;
    this.#random = new Random(seed * 1_000_003 + stream * 7919 + 1);
  }

  /** The gradient of the next batch, and its loss. */
  gradient(): number {
    const { examples, train } = this.#split;
    const batch = Array.from(
      { length: this.#batch },
      () => train[this.#random.below(train.length)] as number,
    );
    return this.network.lossAndGradient(examples, batch);
  }

  /** One batch, one step; what DiLoCo wants to know of it. */
  innerStep(): { loss: number; tokens: number } {
    const loss = this.gradient();
    this.network.step();
    return { loss, tokens: this.#batch };
  }

  /** On the held-out examples. */
  evaluate(parameters: Float32Array): { loss: number; accuracy: number } {
    return this.network.evaluate(this.#split.examples, this.#split.test, parameters);
  }
}
