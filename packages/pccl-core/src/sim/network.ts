/**
 * Streams as TCP gives them: messages of one direction keep their order, come after a random delay, or, when the
 * stream is cut, not at all. A cut may show at an end or stay unnoticed there, as when a cable is pulled.
 */
import type { Clock } from "./clock.js";
import type { Process } from "./process.js";
import type { Random } from "./random.js";

export interface StreamEnd {
  readonly process: Process;
  onMessage(message: unknown): void;
  onEnd(reason: string): void;
}

export class Network {
  readonly clock: Clock;
  readonly random: Random;

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.random = random;
  }

  /** Mostly short, sometimes long: reordering between streams comes from here. */
  delayMs(): number {
    return this.random.chance(0.05) ? this.random.between(20, 1_500) : this.random.between(0.1, 20);
  }

  connect(a: StreamEnd, b: StreamEnd): Stream {
    return new Stream(this, a, b);
  }
}

export class Stream {
  readonly #network: Network;
  readonly #ends: readonly [StreamEnd, StreamEnd];
  /** When the last message of a direction arrives: the next one can't be earlier. */
  readonly #lastAtMs = [0, 0];
  readonly #ended = [false, false];
  #cut = false;

  constructor(network: Network, a: StreamEnd, b: StreamEnd) {
    this.#network = network;
    this.#ends = [a, b];
  }

  /** Sends from end `from` (0 or 1) to the other one. */
  send(from: 0 | 1, message: unknown): void {
    this.#deliver(from, (to) => to.onMessage(message));
  }

  /** End `from` says that it sends no more; the other end hears it after everything that was sent. */
  end(from: 0 | 1): void {
    this.#deliver(from, () => this.#notice(1 - from, "the other end ended it"));
  }

  /** Loses what is under way. Each end hears of it, or, with `silent`, neither does. */
  cut(silent: boolean): void {
    if (this.#cut) return;
    this.#cut = true;
    if (silent) return;
    for (const end of [0, 1]) {
      this.#network.clock.after(this.#network.delayMs(), () =>
        this.#ends[end]?.process.deliver(() => this.#notice(end, "the connection was cut")),
      );
    }
  }

  #deliver(from: 0 | 1, action: (to: StreamEnd) => void): void {
    const { clock } = this.#network;
    const atMs = Math.max(clock.nowMs + this.#network.delayMs(), this.#lastAtMs[from] ?? 0);
    this.#lastAtMs[from] = atMs;
    const to = this.#ends[1 - from] as StreamEnd;
    clock.at(atMs, () => {
      if (!this.#cut) to.process.deliver(() => this.#ended[1 - from] || action(to));
    });
  }

  #notice(end: number, reason: string): void {
    if (this.#ended[end]) return;
    this.#ended[end] = true;
    this.#ends[end]?.onEnd(reason);
  }
}
