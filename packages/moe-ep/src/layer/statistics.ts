/** What a step of a layer was like, seen from one rank. */
import type { Planner } from "../planner/plan.js";

/** Forward or backward. Loads and copies are the whole group's, the rest is this rank's. */
export interface StepStatistics {
  readonly planner: Planner;
  /** Whether anything was lent. */
  readonly isApplied: boolean;
  /** Token-copies by rank, under plain EP and as computed. */
  readonly loadsBefore: readonly number[];
  readonly loadsAfter: readonly number[];
  /** Token-copies computed on another rank than their token's. */
  readonly copiesCrossRank: number;
  /** Tokens' rows that this rank sent to others: a token goes to a rank once. */
  readonly rowsSent: number;
  /** Borrowed experts' weights that this rank computed with, and how much of them, or of their gradients, travelled. */
  readonly weightBytesBorrowed: number;
  readonly weightBytesMoved: number;
  /** Memory for tokens, results, what the backward pass needs, and borrowed weights that aren't mapped. */
  readonly peakBytes: number;
  readonly seconds: StepSeconds;
}

export interface StepSeconds {
  /** Routing, counting and agreeing with the other ranks; waiting for them too. */
  readonly agree: number;
  readonly plan: number;
  /** Rows to the ranks that compute them. */
  readonly dispatch: number;
  readonly compute: number;
  /** Waiting for weights, or for their gradients. */
  readonly weights: number;
  /** Results back, and their sums; waiting for slower ranks too. */
  readonly combine: number;
  readonly total: number;
}

/** Measures phases that follow each other. */
export class Phases {
  readonly #seconds: Record<string, number> = {};
  readonly #begin: number = performance.now();
  #last: number = this.#begin;

  /** What was done since the phase before belongs to this one. */
  end(phase: Exclude<keyof StepSeconds, "total">): void {
    const now = performance.now();
    this.#seconds[phase] = (this.#seconds[phase] ?? 0) + (now - this.#last) / 1000;
    this.#last = now;
  }

  get seconds(): StepSeconds {
    const of = (phase: string): number => this.#seconds[phase] ?? 0;
    return {
      agree: of("agree"),
      plan: of("plan"),
      dispatch: of("dispatch"),
      compute: of("compute"),
      weights: of("weights"),
      combine: of("combine"),
      total: (this.#last - this.#begin) / 1000,
    };
  }
}
