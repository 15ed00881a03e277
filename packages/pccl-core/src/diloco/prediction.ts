/**
 * Where a peer goes on while an average is under way (eager updates, arXiv:2502.12996): what the others have contributed
 * counts when it arrives, a round late, and what it has contributed itself counts at once. So it is the group's
 * parameters, which have every average up to the last one in them, and this peer's part of the next outer step.
 *
 * Only the peer's own model is moved by it: the group's parameters are those of true averages, the same everywhere.
 */
import type { LocalModel } from "./local-model.js";
import type { OuterState } from "./outer-state.js";

export class Prediction {
  readonly #state: OuterState;
  readonly #local: LocalModel;
  #predicted: Float32Array = new Float32Array(0);
  /** This peer's part of the average, as of the last round that it contributed to. */
  #share: number | undefined;

  constructor(state: OuterState, local: LocalModel) {
    this.#state = state;
    this.#local = local;
  }

  /** After a round in which this peer's part was `share`. */
  settled(share: number): void {
    if (share > 0) this.#share = share;
  }

  /** Moves the local model to where `own`, its newest contribution, brings it in a group of `peers`. */
  async goOn(own: Float32Array, peers: number): Promise<void> {
    const { length } = this.#state.parameters;
    if (this.#predicted.length !== length) this.#predicted = new Float32Array(length);
    await this.#state.push(0, own, this.#share ?? 1 / peers, this.#predicted);
    await this.#local.take(this.#predicted);
  }
}
