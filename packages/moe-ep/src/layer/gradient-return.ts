/**
 * Gradients of experts' weights: an owner's own, and those that borrowers send back in f32, which it adds in the order
 * of the loans. So they have the same bits every time, whatever arrives first.
 */
import type { CallOptions } from "@pccl/core";
import { awaitNative } from "../base/native.js";
import { tensorSizes } from "../experts/experts.js";
import type { Exchange } from "../group/exchange.js";
import { inOrder } from "./in-order.js";
import type { LayerConfig } from "./layer-config.js";
import type { Loan } from "./loans.js";
import type { StepBuffers } from "./step-buffers.js";

/** By the names of the expert's tensors, in their shapes. */
export type Gradients = Readonly<Record<string, Float32Array>>;

/** Gradients that are on their way at once. */
const RETURNS_MAX = 3;

export class GradientReturn {
  readonly #exchange: Exchange;
  readonly #loans: readonly Loan[];
  readonly #firstNumber: number;
  readonly #buffers: StepBuffers;
  readonly #names: readonly string[];
  readonly #sizes: readonly number[];
  /** All tensors of an expert in one array, in their order: of own experts and of borrowed ones. */
  readonly #sums = new Map<number, Float32Array>();
  readonly #computed: Promise<void>;
  #ownAreComputed!: () => void;

  /** `firstNumber` names the first loan's gradient among what passes between two ranks; the next ones follow. */
  constructor(
    exchange: Exchange,
    { format, owners }: LayerConfig,
    buffers: StepBuffers,
    loans: readonly Loan[],
    firstNumber: number,
  ) {
    this.#exchange = exchange;
    this.#loans = loans;
    this.#firstNumber = firstNumber;
    this.#buffers = buffers;
    const sizes = tensorSizes(format);
    this.#names = Object.keys(sizes);
    this.#sizes = Object.values(sizes);
    for (const [expert, owner] of owners.entries()) {
      if (owner === exchange.rank) this.#sums.set(expert, new Float32Array(this.#elements));
    }
    for (const [i, { expert, target }] of loans.entries()) {
      if (target === exchange.rank) {
        this.#sums.set(expert, buffers.floats(`lent gradient ${i}`, this.#elements).fill(0));
      }
    }
    this.#computed = new Promise((resolve) => {
      this.#ownAreComputed = resolve;
    });
  }

  get #elements(): number {
    return this.#sizes.reduce((sum, size) => sum + size, 0);
  }

  /** Of gradients that this rank sends and receives. */
  get bytesMoved(): number {
    const { rank } = this.#exchange;
    const own = this.#loans.filter(({ source, target }) => source === rank || target === rank);
    return own.length * this.#elements * 4;
  }

  /** Zeros at first, by tensor: for the backward pass to add to. */
  of(expert: number): Float32Array[] {
    return this.#tensors(this.#sums.get(expert) as Float32Array);
  }

  /** Sends what was borrowed, and adds what comes back once the own ones are computed. */
  async start(call: string, limits: CallOptions): Promise<void> {
    const { rank } = this.#exchange;
    /** The one before on this rank has been added. */
    let added: Promise<void> = this.#computed;
    const tasks = this.#loans.flatMap(({ expert, source, target }, i) => {
      const number = this.#firstNumber + i;
      if (target === rank) {
        return [
          () => this.#exchange.send(call, this.#sums.get(expert) as Float32Array, source, number, limits),
        ];
      }
      if (source !== rank) return [];
      return [
        async () => {
          const before = added;
          const arriving = this.#receive(call, expert, i, target, number, before, limits);
          added = arriving;
          await arriving;
        },
      ];
    });
    await inOrder(tasks, RETURNS_MAX);
  }

  async #receive(
    call: string,
    expert: number,
    index: number,
    from: number,
    number: number,
    before: Promise<void>,
    limits: CallOptions,
  ): Promise<void> {
    const incoming = this.#buffers.floats(`returned gradient ${index}`, this.#elements);
    await this.#exchange.recv(call, incoming, from, number, limits);
    await before;
    const sum = this.#sums.get(expert) as Float32Array;
    await awaitNative((addon) => addon.addFloats(incoming, sum));
  }

  /** Call it when nothing writes to the own experts' gradients any more; also when there will be none. */
  ownAreComputed(): void {
    this.#ownAreComputed();
  }

  /** Of this rank's experts. */
  finish(): Map<number, Gradients> {
    const borrowed = new Set(
      this.#loans.filter(({ target }) => target === this.#exchange.rank).map(({ expert }) => expert),
    );
    return new Map(
      [...this.#sums]
        .filter(([expert]) => !borrowed.has(expert))
        .map(([expert, sum]) => {
          const tensors = this.#tensors(sum);
          return [
            expert,
            Object.fromEntries(this.#names.map((name, i) => [name, tensors[i] as Float32Array])),
          ];
        }),
    );
  }

  #tensors(all: Float32Array): Float32Array[] {
    let end = 0;
    return this.#sizes.map((size) => all.subarray(end, (end += size)));
  }
}
