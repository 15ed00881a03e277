/** What a Diloco object tells its listeners. */
import { EventEmitter } from "node:events";
import { checkOneOf, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import type { Suspect } from "./guard.js";

/** A round that has been settled: one average of one fragment, or of the whole model if it isn't cut. */
export interface OuterStep {
  /** Outer steps that the group's parameters have behind them: rounds of the whole model. */
  readonly index: number;
  /** Rounds that they have behind them, this one included. */
  readonly round: number;
  /** The fragment that was averaged, from 0, and its size. */
  readonly fragment: number;
  readonly elements: number;
  /** Peers that took part, and those of them whose work is in the average. */
  readonly worldSize: number;
  readonly contributors: number;
  /** The view at its end: peers that were admitted then belong to it. */
  readonly epoch: number;
  /** Mean over the contributors of their mean training loss since the round before; undefined if none gave one. */
  readonly loss: number | undefined;
  /** Bytes this peer sent and received, those for newcomers included. */
  readonly txBytes: number;
  readonly rxBytes: number;
  /** Attempts that a change of membership ended. */
  readonly retriedOps: number;
  /** Tensors in which this peer had come to differ from the group and that were replaced; normally none. */
  readonly repairedKeys: readonly string[];
  /** Contributions that were left out. */
  readonly suspects: readonly Suspect[];
  /** XXH3-128 of the outer state, 32 hex digits: the same on every peer. */
  readonly digest: string;
  /**
   * Since the last round was settled: `waiting` for other peers, `updating` in the outer step's own arithmetic and
   * hash, `computing` all else. `communicating`: from the launch of this round until its average was there, which
   * runs beside computing unless the schedule is sync.
   */
  readonly seconds: {
    readonly computing: number;
    readonly waiting: number;
    readonly updating: number;
    readonly communicating: number;
  };
}

export interface DilocoEvents {
  /** After every round. */
  outerStep: [OuterStep];
  /** For each contribution that was left out of a round, on every peer; after its outerStep. */
  suspect: [Suspect];
}

const NAMES = ["outerStep", "suspect"] as const;

/** Calls listeners in order. What one throws reaches the process as an uncaught exception, and not the training. */
export class Listeners {
  readonly #emitter = new EventEmitter<DilocoEvents>();

  add(call: string, name: keyof DilocoEvents, listener: unknown): void {
    this.#emitter.on(...checked(call, name, listener));
  }

  remove(call: string, name: keyof DilocoEvents, listener: unknown): void {
    this.#emitter.off(...checked(call, name, listener));
  }

  tell<K extends keyof DilocoEvents>(name: K, event: DilocoEvents[K][0]): void {
    try {
      (this.#emitter as EventEmitter).emit(name, event);
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  }
}

function checked(call: string, name: unknown, listener: unknown): [keyof DilocoEvents, () => void] {
  checkOneOf(call, "the event", name, NAMES);
  if (typeof listener !== "function") {
    const message = `${call}: the listener must be a function, got ${describe(listener)}.`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
  }
  return [name as keyof DilocoEvents, listener as () => void];
}
