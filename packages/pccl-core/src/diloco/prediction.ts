/**
 * Where a peer goes on while an average is under way (eager updates, arXiv:2502.12996): at the group's parameters after
 * one more outer step, with its own new contribution, which it knows, and the others' last ones in place of their new.
 * Only this peer's own model is moved by it: the group's parameters are those of true averages, the same everywhere.
 */
import type { Outcome } from "./exchange.js";
import { elementwise } from "./kernels.js";
import type { LocalModel } from "./local-model.js";
import type { OuterState } from "./outer-state.js";

export class Prediction {
  readonly #state: OuterState;
  readonly #local: LocalModel;
  /** The others' part of the last average; zeros before there was one. */
  #others: Float32Array = new Float32Array(0);
  #estimate: Float32Array = new Float32Array(0);
  #predicted: Float32Array = new Float32Array(0);
  /** This peer's part of the average, as of the last round. */
  #share = 1;

  constructor(state: OuterState, local: LocalModel) {
    this.#state = state;
    this.#local = local;
  }

  /** Takes in a round's outcome: `sent` is what this peer had contributed to `sum`. */
  async settled(sent: Float32Array, sum: Float32Array, { scale, share }: Outcome): Promise<void> {
    this.#allocate();
    if (scale === 0) return;
    await elementwise("copy", [sum, this.#others]);
    await elementwise("addScaled", [sent, this.#others], [-1]);
    await elementwise("scale", [this.#others], [scale]);
    if (share > 0) this.#share = share;
  }

  /** Moves the local model to where `own` is likely to bring the group. */
  async goOn(own: Float32Array): Promise<void> {
    this.#allocate();
    await elementwise("copy", [this.#others, this.#estimate]);
    await elementwise("addScaled", [own, this.#estimate], [this.#share]);
    await this.#state.predict(0, this.#estimate, 1, this.#predicted);
    await this.#local.take(this.#predicted);
  }

  /** Knows nothing of the others any more. */
  reset(): void {
    this.#others.fill(0);
  }

  #allocate(): void {
    const { length } = this.#state.parameters;
    if (this.#others.length === length) return;
    this.#others = new Float32Array(length);
    this.#estimate = new Float32Array(length);
    this.#predicted = new Float32Array(length);
  }
}
