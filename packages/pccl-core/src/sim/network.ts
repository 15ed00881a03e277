/**
 * Paths between hosts, and streams over them as TCP gives them: what is sent in one direction keeps its order and
 * comes after a random delay. Over a blocked path nothing comes until it opens again; a stream that is cut loses
 * what is under way, and an end may not notice.
 */
import type { Clock } from "./clock.js";
import type { Thread } from "./process.js";
import { Random } from "./random.js";

/** TCP's retransmissions after an outage come with growing pauses. */
const RETRANSMIT_MS_MAX = 1_000;

export interface Latency {
  /** Most messages take up to this long, less on short paths. */
  readonly usualMsMax: number;
  /** Share of messages that are slow. */
  readonly slowShare: number;
  readonly slowMsMax: number;
}

export class Network {
  readonly clock: Clock;
  readonly #seed: number;
  readonly #latency: Latency;
  /** How many faults block a path, by pathKey(). */
  readonly #blocked = new Map<string, number>();
  readonly #isolated = new Set<string>();
  readonly #held = new Set<Pipe>();
  /** Called after a path was blocked or opened. */
  onPathsChanged: () => void = () => {};

  constructor(clock: Clock, seed: number, latency: Latency) {
    this.clock = clock;
    this.#seed = seed;
    this.#latency = latency;
  }

  random(stream: string): Random {
    return new Random(this.#seed, stream);
  }

  /** Mostly short, sometimes long: reordering between streams comes from here. `length`: the path's, up to 1. */
  delayMs(random: Random, length = 1): number {
    const { usualMsMax, slowShare, slowMsMax } = this.#latency;
    if (random.chance(slowShare)) return random.between(0.1, slowMsMax);
    return 0.1 + usualMsMax * length * random.between(0.2, 1);
  }

  isOpen(from: string, to: string): boolean {
    if (this.#isolated.has(from) || this.#isolated.has(to)) return false;
    return this.#blocked.size === 0 || !this.#blocked.has(pathKey(from, to));
  }

  isOpenBothWays(a: string, b: string): boolean {
    return this.isOpen(a, b) && this.isOpen(b, a);
  }

  block(from: string, to: string): void {
    const key = pathKey(from, to);
    this.#blocked.set(key, (this.#blocked.get(key) ?? 0) + 1);
    this.onPathsChanged();
  }

  unblock(from: string, to: string): void {
    const key = pathKey(from, to);
    const left = (this.#blocked.get(key) ?? 1) - 1;
    if (left > 0) this.#blocked.set(key, left);
    else this.#blocked.delete(key);
    this.wakePipes();
    this.onPathsChanged();
  }

  /** Nothing gets to or from the host any more. */
  isolate(host: string): void {
    this.#isolated.add(host);
    this.onPathsChanged();
  }

  hold(pipe: Pipe): void {
    this.#held.add(pipe);
  }

  /** Lets pipes look again whether what they hold can go on. */
  wakePipes(): void {
    const held = [...this.#held];
    this.#held.clear();
    for (const pipe of held) pipe.wake();
  }
}

function pathKey(from: string, to: string): string {
  return `${from}>${to}`;
}

/** One direction of a stream: first in, first out, nothing lost and nothing twice. */
export class Pipe {
  readonly #network: Network;
  readonly #random: Random;
  readonly #length: number;
  readonly #isOpen: () => boolean;
  readonly #thread: Thread;
  /** When the last one sent arrives: the next one can't be earlier. */
  #lastAtMs = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(network: Network, random: Random, thread: Thread, isOpen: () => boolean) {
    this.#network = network;
    this.#random = random;
    this.#length = random.between(0, 1);
    this.#thread = thread;
    this.#isOpen = isOpen;
  }

  /** Brings `action` to the receiving thread. */
  push(action: () => void): void {
    this.#schedule(this.#network.delayMs(this.#random, this.#length), () => this.#arrive(action));
  }

  wake(): void {
    this.#schedule(this.#random.between(0, RETRANSMIT_MS_MAX), () => {
      if (!this.#isOpen()) return this.#network.hold(this);
      for (const action of this.#waiting.splice(0)) this.#thread.deliver(action);
    });
  }

  #arrive(action: () => void): void {
    if (this.#waiting.length === 0 && this.#isOpen()) return this.#thread.deliver(action);
    if (this.#waiting.length === 0) this.#network.hold(this);
    this.#waiting.push(action);
  }

  #schedule(delayMs: number, run: () => void): void {
    const { clock } = this.#network;
    this.#lastAtMs = Math.max(clock.nowMs + delayMs, this.#lastAtMs);
    clock.at(this.#lastAtMs, run);
  }
}

export interface StreamEnd<M> {
  readonly host: string;
  readonly thread: Thread;
  onMessage(message: M): void;
  onEnd(reason: string): void;
}

/** A TCP connection: end 0 sends messages of type A, end 1 of type B. */
export class Stream<A, B> {
  readonly #network: Network;
  readonly #random: Random;
  readonly #ends: readonly [StreamEnd<B>, StreamEnd<A>];
  readonly #pipes: readonly [Pipe, Pipe];
  readonly #ended = [false, false];
  #cut = false;

  constructor(network: Network, name: string, dialler: StreamEnd<B>, acceptor: StreamEnd<A>) {
    this.#network = network;
    this.#random = network.random(name);
    this.#ends = [dialler, acceptor];
    const pipe = (from: StreamEnd<never>, to: StreamEnd<never>): Pipe =>
      new Pipe(network, this.#random, to.thread, () => network.isOpen(from.host, to.host));
    this.#pipes = [pipe(dialler, acceptor), pipe(acceptor, dialler)];
  }

  sendToAcceptor(message: A): void {
    this.#send(0, () => this.#ends[1].onMessage(message));
  }

  sendToDialler(message: B): void {
    this.#send(1, () => this.#ends[0].onMessage(message));
  }

  /** End `from` (0: the dialler) sends no more; the other one hears it after everything that was sent. */
  end(from: 0 | 1): void {
    this.#send(from, () => this.#notice(1 - from, "the other end ended it"));
    this.#ended[from] = true;
  }

  /** End `from` lets go of the connection at once; the other one is told by a reset. */
  abandon(from: 0 | 1): void {
    this.#ended[from] = true;
    this.cut([from === 1, from === 0]);
  }

  /** Loses what is under way. Ends that notice hear of it soon, unless the news doesn't reach them. */
  cut(noticing: readonly [boolean, boolean]): void {
    this.#cut = true;
    for (const end of [0, 1]) if (noticing[end]) this.#reset(end);
  }

  #send(from: 0 | 1, action: () => void): void {
    const to = 1 - from;
    if (this.#ended[from]) return;
    if (!this.#cut) {
      this.#pipes[from]?.push(() => {
        if (!this.#cut && !this.#ended[to]) action();
      });
    } else if (this.#ended[to]) {
      // The other host has no such connection any more and says so.
      this.#reset(from);
    }
  }

  #reset(end: number): void {
    const [to, from] = [this.#ends[end] as StreamEnd<never>, this.#ends[1 - end] as StreamEnd<never>];
    this.#network.clock.after(this.#network.delayMs(this.#random), () => {
      if (this.#network.isOpen(from.host, to.host)) {
        to.thread.deliver(() => this.#notice(end, "the connection was reset"));
      }
    });
  }

  #notice(end: number, reason: string): void {
    if (this.#ended[end]) return;
    this.#ended[end] = true;
    this.#ends[end]?.onEnd(reason);
  }
}
