/** When a peer is killed and when one joins: one and two thirds in, and never too late to be seen. */
import { Random } from "./random.js";

export interface Plan {
  /** Ordinal of the peer to kill; undefined when there is only one. */
  readonly victim: number | undefined;
  /** The victim dies within the outer step that follows this one... */
  readonly killAfter: number;
  /** ...after this part of an outer step's time, so that every phase of it is hit in one run or another. */
  readonly killDelay: number;
  /** The newcomer is started when this outer step is done. */
  readonly joinAfter: number;
  /**
   * This outer step doesn't begin before the newcomer waits to be admitted. Only runs of a few short steps ever
   * have to wait for it: otherwise they would be over before a process can start.
   */
  readonly holdAt: number;
}

export function makePlan(seed: number, peers: number, outerSteps: number): Plan {
  const random = new Random(seed + 77);
  // The newcomer is admitted at the end of that step and works on the last.
  const holdAt = Math.max(1, outerSteps - 1);
  return {
    victim: peers > 1 ? random.below(peers) : undefined,
    killAfter: Math.min(Math.floor(outerSteps / 3), holdAt - 1),
    killDelay: random.next(),
    joinAfter: Math.min(Math.floor((2 * outerSteps) / 3), holdAt - 1),
    holdAt,
  };
}
