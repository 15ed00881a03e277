/**
 * A classifier with one hidden layer, in plain TypeScript: sparse inputs, rectified units, softmax and cross-entropy,
 * and AdamW (Loshchilov and Hutter 2017) over the flat parameters. It knows nothing of other peers.
 */
import { ParameterArena } from "@pccl/core/diloco";
import { Random } from "@pccl/example-diloco-language-model/random";

/** Examples as lists of the inputs that aren't 0. */
export interface Examples {
  readonly inputs: number;
  readonly classes: number;
  readonly count: number;
  /** Calls `each` with index and value of the example's inputs that aren't 0. */
  forEachInput(example: number, each: (input: number, value: number) => void): void;
  label(example: number): number;
}

const LEARNING_RATE = 0.002;
const BETA1 = 0.9;
const BETA2 = 0.99;
const EPSILON = 1e-8;

export class Network {
  readonly arena: ParameterArena;
  readonly gradient: Float32Array;
  readonly #hidden: number;
  readonly #classes: number;
  readonly #mean: Float32Array;
  readonly #variance: Float32Array;
  #steps = 0;

  constructor(inputs: number, hidden: number, classes: number, seed: number) {
    this.#hidden = hidden;
    this.#classes = classes;
    this.arena = new ParameterArena({
      w1: [inputs, hidden],
      b1: [hidden],
      w2: [hidden, classes],
      b2: [classes],
    });
    const { length } = this.arena.data;
    this.gradient = new Float32Array(length);
    this.#mean = new Float32Array(length);
    this.#variance = new Float32Array(length);
    const random = new Random(seed);
    for (const [name, fan] of [
      ["w1", Math.min(inputs, 128)],
      ["w2", hidden],
    ] as const) {
      const view = this.arena.view(name);
      for (let i = 0; i < view.length; i++) view[i] = random.normal() * Math.sqrt(1 / fan);
    }
  }

  /** Fills `gradient` with the batch's mean gradient; the batch's mean loss in nats. */
  lossAndGradient(examples: Examples, batch: readonly number[]): number {
    this.gradient.fill(0);
    let loss = 0;
    for (const example of batch) loss += this.#example(examples, example, 1 / batch.length);
    return loss / batch.length;
  }

  /** One step of AdamW with `gradient`. */
  step(): void {
    const { data } = this.arena;
    this.#steps++;
    const rate = (LEARNING_RATE * Math.sqrt(1 - BETA2 ** this.#steps)) / (1 - BETA1 ** this.#steps);
    for (let i = 0; i < data.length; i++) {
      const g = this.gradient[i] as number;
      const m = BETA1 * (this.#mean[i] as number) + (1 - BETA1) * g;
      const v = BETA2 * (this.#variance[i] as number) + (1 - BETA2) * g * g;
      this.#mean[i] = m;
      this.#variance[i] = v;
      data[i] = (data[i] as number) - (rate * m) / (Math.sqrt(v) + EPSILON);
    }
  }

  /** Mean loss in nats and part of the examples that are classified rightly, of the given parameters. */
  evaluate(
    examples: Examples,
    which: readonly number[],
    parameters: Float32Array,
  ): { loss: number; accuracy: number } {
    const own = this.arena.data.slice();
    this.arena.data.set(parameters);
    let [loss, right] = [0, 0];
    for (const example of which) {
      const { probabilities } = this.#forward(examples, example);
      const label = examples.label(example);
      loss -= Math.log(Math.max(probabilities[label] as number, 1e-30));
      if (probabilities.indexOf(Math.max(...probabilities)) === label) right++;
    }
    this.arena.data.set(own);
    return { loss: loss / which.length, accuracy: right / which.length };
  }

  #forward(examples: Examples, example: number): { hidden: Float32Array; probabilities: Float32Array } {
    const [w1, w2] = [this.arena.view("w1"), this.arena.view("w2")];
    const size = this.#hidden;
    const hidden = this.arena.view("b1").slice();
    examples.forEachInput(example, (input, value) => {
      const row = input * size;
      for (let j = 0; j < size; j++) hidden[j] = (hidden[j] as number) + value * (w1[row + j] as number);
    });
    const logits = this.arena.view("b2").slice();
    for (let j = 0; j < size; j++) {
      const unit = Math.max(0, hidden[j] as number);
      hidden[j] = unit;
      if (unit === 0) continue;
      const row = j * this.#classes;
      for (let k = 0; k < logits.length; k++)
        logits[k] = (logits[k] as number) + unit * (w2[row + k] as number);
    }
    const highest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    let sum = 0;
    for (let k = 0; k < logits.length; k++) {
      const power = Math.exp((logits[k] as number) - highest);
      logits[k] = power;
      sum += power;
    }
    for (let k = 0; k < logits.length; k++) logits[k] = (logits[k] as number) / sum;
    return { hidden, probabilities: logits };
  }

  /** Adds one example's gradient; its loss. */
  #example(examples: Examples, example: number, weight: number): number {
    const { hidden, probabilities } = this.#forward(examples, example);
    const label = examples.label(example);
    const loss = -Math.log(Math.max(probabilities[label] as number, 1e-30));
    probabilities[label] = (probabilities[label] as number) - 1;
    const w2 = this.arena.view("w2");
    const size = this.#hidden;
    const classes = this.#classes;
    const [b1At, w2At] = [this.arena.view("w1").length, this.arena.view("w1").length + size];
    const b2At = w2At + w2.length;
    const { gradient } = this;
    const back = new Float32Array(size);
    for (let k = 0; k < classes; k++) add(gradient, b2At + k, weight * (probabilities[k] as number));
    for (let j = 0; j < size; j++) {
      const unit = hidden[j] as number;
      if (unit === 0) continue;
      let sum = 0;
      for (let k = 0; k < classes; k++) {
        const error = weight * (probabilities[k] as number);
        add(gradient, w2At + j * classes + k, unit * error);
        sum += error * (w2[j * classes + k] as number);
      }
      back[j] = sum;
      add(gradient, b1At + j, sum);
    }
    examples.forEachInput(example, (input, value) => {
      const row = input * size;
      for (let j = 0; j < size; j++) add(gradient, row + j, value * (back[j] as number));
    });
    return loss;
  }
}

function add(into: Float32Array, index: number, value: number): void {
  into[index] = (into[index] as number) + value;
}
