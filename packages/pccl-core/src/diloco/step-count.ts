/** What a peer counts between two rounds: steps, tokens, losses and seconds. */
import { checkNumber, checkOptions } from "../base/check.js";
import { pcclError } from "../base/errors.js";

/** What an inner step has to say. */
export interface StepOptions {
  /** The step's training loss; one that isn't finite doesn't count. */
  readonly loss?: number;
  /** What the step has learnt from: tokens, samples. For the weighting by tokens, which asks for it. */
  readonly tokens?: number;
}

/** Since a fragment was launched last. */
export interface Work {
  steps: number;
  tokens: number;
}

/** A peer's own count of its inner steps. */
export class StepCount {
  readonly #work: Work[];
  readonly #weighting: "uniform" | "tokens";
  #lossSum = 0;
  #losses = 0;

  constructor(fragments: number, weighting: "uniform" | "tokens") {
    this.#work = Array.from({ length: fragments }, () => ({ steps: 0, tokens: 0 }));
    this.#weighting = weighting;
  }

  /** Throws before anything is counted. */
  add(call: string, options: StepOptions): void {
    checkOptions(call, options, ["loss", "tokens"]);
    const { loss, tokens = 0 } = options;
    if (loss !== undefined && typeof loss !== "number") {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: loss must be a number, got ${typeof loss}.`);
    }
    if (this.#weighting === "tokens" && options.tokens === undefined) {
      const message = `${call}: tokens must be given, since contributions are weighted by them.`;
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
    }
    checkNumber(call, "tokens", tokens, 0, Number.MAX_SAFE_INTEGER);
    for (const work of this.#work) {
      work.steps++;
      work.tokens += tokens;
    }
    if (loss !== undefined && Number.isFinite(loss)) {
      this.#lossSum += loss;
      this.#losses++;
    }
  }

  /** Work that was thrown away doesn't count. */
  forget(): void {
    for (const work of this.#work) Object.assign(work, { steps: 0, tokens: 0 });
  }

  /** What a fragment's contribution weighs, and the mean loss; both are counted anew from here. */
  take(fragment: number, innerSteps: number): { weight: number; loss: number } {
    const work = this.#work[fragment] as Work;
    const weight = this.#weighting === "tokens" ? work.tokens : Math.min(1, work.steps / innerSteps);
    const loss = this.#losses === 0 ? Number.NaN : this.#lossSum / this.#losses;
    Object.assign(work, { steps: 0, tokens: 0 });
    this.#lossSum = 0;
    this.#losses = 0;
    return { weight, loss };
  }
}

/** Where a peer's time goes. */
export class Stopwatch {
  #start: number = performance.now();
  readonly #ms = { waiting: 0, updating: 0 };

  async time<T>(what: "waiting" | "updating", call: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await call();
    } finally {
      this.#ms[what] += performance.now() - start;
    }
  }

  /** Since the last lap: the named parts, and `computing`, which is the rest. */
  lap(): { readonly computing: number; readonly waiting: number; readonly updating: number } {
    const now = performance.now();
    const { waiting, updating } = this.#ms;
    const total = now - this.#start;
    this.#start = now;
    this.#ms.waiting = 0;
    this.#ms.updating = 0;
    return {
      computing: (total - waiting - updating) / 1000,
      waiting: waiting / 1000,
      updating: updating / 1000,
    };
  }
}
