/** What all peers of a group hold alike between two rounds: parameters, the outer optimizer's arrays, and progress. */
import { pcclError } from "../base/errors.js";
import { SharedState } from "../peer/shared-state.js";
import type { Tensor } from "../peer/tensor.js";
import { type Fragment, placed } from "./fragments.js";
import { HISTORY_ROUNDS } from "./guard.js";
import { digestOf } from "./kernels.js";
import type { OuterArrays, OuterOptimizer } from "./outer-optimizer.js";
import { layoutLength, type ParameterSpan } from "./parameters.js";
import type { StoredTensor } from "./safetensors.js";

export class OuterState implements OuterArrays {
  readonly parameters: Float32Array;
  readonly slots: readonly Float32Array[];
  readonly shared: SharedState;
  readonly #optimizer: OuterOptimizer;
  readonly #fragments: readonly Fragment[];
  /** Rounds settled; averages applied of each fragment; the last norms of each fragment. */
  readonly #progress: Float64Array;
  /** Of each fragment's parameters and optimizer's arrays. */
  readonly #digests: Uint8Array[] = [];
  #digest: Uint8Array = new Uint8Array(16);
  /** Whether the content has changed since the group's last sync. */
  #isNew = false;

  /** `settings` must be the same on every peer: it is part of a tensor's name. */
  constructor(
    layout: readonly ParameterSpan[],
    fragments: readonly Fragment[],
    optimizer: OuterOptimizer,
    settings: string,
  ) {
    const length = layoutLength(layout);
    this.parameters = new Float32Array(length);
    this.slots = optimizer.slots.map(() => new Float32Array(length));
    this.#optimizer = optimizer;
    this.#fragments = fragments;
    this.#progress = new Float64Array(1 + fragments.length * (1 + HISTORY_ROUNDS));
    this.shared = new SharedState(this.#tensors(layout, settings), { revision: 0 });
  }

  /** Rounds that the group has settled. */
  get round(): number {
    return this.#progress[0] as number;
  }

  /** XXH3-128 of everything here, as 32 hex digits. */
  get digest(): string {
    return Buffer.from(this.#digest).toString("hex");
  }

  /** The fragment's norms in past rounds; 0 where there is none yet. */
  history(fragment: number): Float64Array {
    const start = 1 + this.#fragments.length + fragment * HISTORY_ROUNDS;
    return this.#progress.subarray(start, start + HISTORY_ROUNDS);
  }

  /** A copy of everything, by names that don't depend on the settings. */
  snapshot(): Map<string, Float32Array | Float64Array> {
    return new Map([...this.#named()].map(([name, tensor]) => [name, tensor.slice()]));
  }

  /** Takes a snapshot's tensors; throws ERR_PCCL_LAYOUT_MISMATCH before anything changes if they aren't these. */
  async restore(tensors: ReadonlyMap<string, StoredTensor>): Promise<void> {
    const named = this.#named();
    for (const [name, own] of named) {
      const stored = tensors.get(name);
      if (stored?.constructor === own.constructor && stored.length === own.length) continue;
      const what = stored === undefined ? "not there" : `a ${stored.constructor.name} of ${stored.length}`;
      const message = `diloco.restore: "${name}" is a ${own.constructor.name} of ${own.length}, in the checkpoint ${what}.`;
      throw pcclError("ERR_PCCL_LAYOUT_MISMATCH", message);
    }
    for (const [name, own] of named) own.set(tensors.get(name) as Float32Array);
    // More than peers without a checkpoint have, and never too much for a group that trains already.
    this.shared.revision = 1;
    await this.replaced();
  }

  #named(): Map<string, Float32Array | Float64Array> {
    return new Map(
      [...this.shared.tensors].map(([name, tensor]) => [
        tensor === this.#progress ? "progress" : name,
        tensor as Float32Array | Float64Array,
      ]),
    );
  }

  /** One step of the outer optimizer with `scale` times the packed `gradient` of a fragment. */
  async apply(fragment: number, gradient: Float32Array, scale: number): Promise<void> {
    const count = 1 + (this.#progress[1 + fragment] as number);
    this.#progress[1 + fragment] = count;
    await this.#step(fragment, gradient, scale, count, this, this);
  }

  /** Where the optimizer's first step, without what it remembers, would bring the parameters. Nothing here changes. */
  async push(fragment: number, gradient: Float32Array, scale: number, into: Float32Array): Promise<void> {
    const slots = this.slots.map((slot) => new Float32Array(slot.length));
    const from = { parameters: this.parameters, slots };
    await this.#step(fragment, gradient, scale, 1, from, { parameters: into, slots });
  }

  /** Ends a round of the fragment: counts it, and hashes what has changed. */
  async endRound(fragment: number): Promise<void> {
    this.#progress[0] = this.round + 1;
    this.#isNew = true;
    await this.#hash([fragment]);
  }

  /** To be called before a sync: a revision is a content that the group was in sync with. */
  advanceRevision(): void {
    if (this.#isNew) this.shared.revision++;
    this.#isNew = false;
  }

  /** After the content has come from elsewhere. */
  async replaced(): Promise<void> {
    await this.#hash(this.#fragments.keys());
  }

  async #hash(fragments: Iterable<number>): Promise<void> {
    for (const index of fragments) {
      const arrays = [this.parameters, ...this.slots];
      const { ranges } = this.#fragments[index] as Fragment;
      this.#digests[index] = await digestOf(
        ranges.flatMap(({ start, end }) => arrays.map((array) => array.subarray(start, end))),
      );
    }
    const all = await digestOf([this.#progress, ...this.#digests]);
    this.#digest = await digestOf([all]);
  }

  async #step(
    fragment: number,
    gradient: Float32Array,
    scale: number,
    count: number,
    from: OuterArrays,
    into: OuterArrays,
  ): Promise<void> {
    const cut = (
      arrays: OuterArrays,
      start: number,
      end: number,
    ): { parameters: Float32Array; slots: Float32Array[] } => ({
      parameters: arrays.parameters.subarray(start, end),
      slots: arrays.slots.map((slot) => slot.subarray(start, end)),
    });
    const steps = placed(this.#fragments[fragment] as Fragment).map(async ({ start, end, at }) => {
      const part = gradient.subarray(at, at + end - start);
      await this.#optimizer.step(part, scale, count, cut(from, start, end), cut(into, start, end));
    });
    await Promise.all(steps);
  }

  #tensors(layout: readonly ParameterSpan[], settings: string): Record<string, Tensor> {
    const tensors: Record<string, Tensor> = { [`progress of ${settings}`]: this.#progress };
    const named = { parameters: this.parameters } as Record<string, Float32Array>;
    for (const [index, slot] of this.#optimizer.slots.entries()) {
      named[slot] = this.slots[index] as Float32Array;
    }
    for (const [kind, flat] of Object.entries(named)) {
      let offset = 0;
      for (const { name, length } of layout) {
        tensors[`${kind}/${name}`] = flat.subarray(offset, offset + length);
        offset += length;
      }
    }
    return tensors;
  }
}
