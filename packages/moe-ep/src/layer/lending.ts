/**
 * Borrowed weights on one rank: mapped ones are used where they lie; others travel in chunks while native experts are
 * computed, and stay for the next step if its plan lends them again.
 */
import type { CallOptions } from "@pccl/core";
import { callNative } from "../base/native.js";
import type { Exchange } from "../group/exchange.js";
import { inOrder } from "./in-order.js";
import { type Hop, hopsOf, type Loan } from "./loans.js";
import type { WeightStore } from "./weight-store.js";

const CHUNK_BYTES = 2 * 2 ** 20;
/** Chunks of a hop that are on their way at once, and hops. */
const CHUNKS_MAX = 2;
const HOPS_MAX = 3;

export interface Borrowed {
  /** By expert; those that travel are whole once `arrived` resolves. */
  readonly weights: ReadonlyMap<number, Uint8Array>;
  readonly arrived: Promise<void>;
  /** Of weights that travelled, to this rank or from it. */
  readonly bytesMoved: number;
  /** Memory that borrowed weights take up. */
  readonly bytesHeld: number;
  /** Every rank holds what it borrowed, and knows it of all: the next step need not send it again. */
  readonly keep: () => void;
}

export class Lending {
  readonly #exchange: Exchange;
  readonly #store: WeightStore;
  /** Whether a rank maps another one's weights: [target][source]. */
  readonly #mapped: readonly (readonly boolean[])[];
  /** What every rank holds of the step before: the version of an expert's weights, by expert and target. */
  #known = new Map<string, number>();
  /** What this one does. */
  #held = new Map<number, Uint8Array>();

  constructor(exchange: Exchange, store: WeightStore, mapped: readonly (readonly boolean[])[]) {
    this.#exchange = exchange;
    this.#store = store;
    this.#mapped = mapped;
  }

  /**
   * Lets weights travel for these loans. `versions` are those of the ranks' weights; `firstNumber` names the first hop
   * among what passes between two ranks.
   */
  borrow(
    call: string,
    loans: readonly Loan[],
    versions: readonly number[],
    firstNumber: number,
    limits: CallOptions,
  ): Borrowed {
    const { rank } = this.#exchange;
    const travelling = loans.filter(({ source, target }) => this.#mapped[target]?.[source] !== true);
    const known = new Map(travelling.map((loan) => [keyOf(loan), versions[loan.source] as number]));
    const hops = hopsOf(
      travelling.filter((loan) => this.#known.get(keyOf(loan)) !== known.get(keyOf(loan))),
      firstNumber,
    );

    const own = loans.filter(({ target }) => target === rank);
    const ownTravelling = travelling.filter(({ target }) => target === rank);
    this.#hold(ownTravelling.map(({ expert }) => expert));
    const weights = new Map(
      own.map(({ expert }) => [expert, (this.#held.get(expert) ?? this.#store.find(expert)) as Uint8Array]),
    );
    // Until the step is over nobody holds anything for sure.
    this.#known = new Map();
    const arrived = this.#move(call, hops, limits);
    // Whoever awaits it gets the error; a step that has failed before doesn't.
    arrived.catch(() => undefined);
    const { expertBytes } = this.#store;
    return {
      weights,
      arrived,
      bytesMoved: hops.filter(({ from, to }) => from === rank || to === rank).length * expertBytes,
      bytesHeld: ownTravelling.length * expertBytes,
      keep: () => {
        this.#known = known;
      },
    };
  }

  /** Memory for these experts, their old one where there is some. */
  #hold(experts: readonly number[]): void {
    const free = [...this.#held].filter(([expert]) => !experts.includes(expert)).map(([, memory]) => memory);
    this.#held = new Map(
      experts.map((expert) => [
        expert,
        this.#held.get(expert) ??
          free.pop() ??
          new Uint8Array(callNative((addon) => addon.allocate(this.#store.expertBytes))),
      ]),
    );
  }

  async #move(call: string, hops: readonly Hop[], limits: CallOptions): Promise<void> {
    const { rank } = this.#exchange;
    const coming = new Map(hops.filter(({ to }) => to === rank).map((hop) => [hop.expert, new Chunks()]));
    const tasks = hops.flatMap((hop) => {
      if (hop.to === rank) {
        const chunks = coming.get(hop.expert) as Chunks;
        return [() => this.#receive(call, hop, chunks, limits)];
      }
      return hop.from === rank ? [() => this.#send(call, hop, coming.get(hop.expert), limits)] : [];
    });
    await inOrder(tasks, HOPS_MAX);
  }

  async #receive(call: string, hop: Hop, chunks: Chunks, limits: CallOptions): Promise<void> {
    const memory = this.#held.get(hop.expert) as Uint8Array;
    try {
      await inOrder(
        chunksOf(memory).map((chunk, index) => async () => {
          await this.#exchange.recv(call, chunk, hop.from, hop.number, limits);
          chunks.add(index);
        }),
        CHUNKS_MAX,
      );
    } catch (error) {
      chunks.fail(error);
      throw error;
    }
  }

  /** `coming`: the chunks of weights that this rank passes on as they come. */
  async #send(call: string, hop: Hop, coming: Chunks | undefined, limits: CallOptions): Promise<void> {
    const memory = (this.#held.get(hop.expert) ?? this.#store.find(hop.expert)) as Uint8Array;
    await inOrder(
      chunksOf(memory).map((chunk, index) => async () => {
        await coming?.have(index);
        await this.#exchange.send(call, chunk, hop.to, hop.number, limits);
      }),
      CHUNKS_MAX,
    );
  }
}

function keyOf({ expert, target }: Loan): string {
  return `${expert} ${target}`;
}

function chunksOf(memory: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(memory.length / CHUNK_BYTES) }, (_, i) =>
    memory.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES),
  );
}

/** Which of an expert's chunks have come. */
class Chunks {
  readonly #come = new Set<number>();
  #failure: { readonly error: unknown } | undefined;
  #waiting: (() => void)[] = [];

  add(index: number): void {
    this.#come.add(index);
    this.#wake();
  }

  fail(error: unknown): void {
    this.#failure = { error };
    this.#wake();
  }

  async have(index: number): Promise<void> {
    while (!this.#come.has(index)) {
      if (this.#failure !== undefined) throw this.#failure.error;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
