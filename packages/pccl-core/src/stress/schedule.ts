/** What a stress run does to its peers, and when: drawn from a seed, whatever the peers make of it. */
import { Random } from "../sim/random.js";

export type Fault = "leave" | "kill" | "stop" | "coordinator-kill" | "black-hole" | "pair-cut" | "reset";

/** One turn every half to two seconds, as in the stress test of the original. */
const TURN_MIN_MS = 500;
const TURN_MAX_MS = 2_000;
const JOIN_PROBABILITY = 0.6;
const WEIGHTS: Readonly<Record<Fault, number>> = {
  leave: 1,
  kill: 3,
  stop: 2,
  "coordinator-kill": 2,
  "black-hole": 2,
  "pair-cut": 2,
  reset: 2,
};

export interface Turn {
  readonly afterMs: number;
  /** Lets a peer join, if there is room; else the fault happens. */
  readonly join: boolean;
  readonly fault: Fault;
  /** In [0, 1): which of the peers, and which other one. */
  readonly pick: number;
  readonly pickOther: number;
  /** It outlasts the lease, so that a peer that is stopped or cut off has to be removed; else it must not be. */
  readonly long: boolean;
}

export class Schedule {
  readonly #random: Random;
  readonly #faults: readonly Fault[];

  /** Peers always leave; `faults` is what else may happen. */
  constructor(seed: number, faults: readonly Fault[]) {
    this.#random = new Random(seed);
    const kinds: readonly Fault[] = ["leave", ...faults];
    this.#faults = kinds.flatMap((fault) => new Array<Fault>(WEIGHTS[fault]).fill(fault));
  }

  /** Draws the same number of random numbers each time: a turn depends on the seed and its place only. */
  next(): Turn {
    const random = this.#random;
    return {
      afterMs: random.between(TURN_MIN_MS, TURN_MAX_MS),
      join: random.chance(JOIN_PROBABILITY),
      fault: random.pick(this.#faults) as Fault,
      pick: random.between(0, 1),
      pickOther: random.between(0, 1),
      long: random.chance(0.5),
    };
  }
}
