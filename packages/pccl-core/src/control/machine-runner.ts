/**
 * Runs the coordinator's machine: one step per event, each at the machine's own time, and the effects of a step out
 * when what caused them can't be forgotten any more. A peer may act on all that it was told: a coordinator that told
 * it before its journal was on the disk, and was killed, would know nothing of it.
 */
import type { PcclError } from "../base/errors.js";
import { step } from "../membership/coordinator.js";
import type { CoordinatorEffect, CoordinatorEvent, CoordinatorState } from "../membership/state.js";
import type { Journal, StateDirectory } from "./journal.js";
import type { JournaledEvent } from "./journal-entry.js";

export interface MachineRunnerHooks {
  /** Called for each effect in order, never from within step(). */
  carryOut(effect: CoordinatorEffect): void;
  /** A step threw, which is a bug; the state is as the step left it. */
  onBug(event: CoordinatorEvent, error: unknown): void;
  /** The journal failed: nothing is stepped or carried out any more. */
  onFailed(error: PcclError): void;
}

export class MachineRunner {
  readonly state: CoordinatorState;
  readonly #hooks: MachineRunnerHooks;
  /** What the machine's clock is ahead of this process's. */
  readonly #clockOffsetMs: number;
  #journal: Journal | undefined;
  /** Effects that wait for the event with this number, or for their turn. */
  readonly #held: { readonly after: number; readonly effects: readonly CoordinatorEffect[] }[] = [];
  /** Events up to this number can't be forgotten. */
  #durable = 0;
  /** The last event that has to be durable before anything after it gets out. */
  #awaited = 0;
  #draining = false;
  #stopped = false;

  /** `nowMs`: the machine's time, now. */
  constructor(state: CoordinatorState, nowMs: number, hooks: MachineRunnerHooks) {
    this.state = state;
    this.#clockOffsetMs = nowMs - performance.now();
    this.#hooks = hooks;
  }

  /** Keeps the events in a journal from now on. Throws ERR_PCCL_JOURNAL_FAILED. */
  async record(directory: StateDirectory): Promise<void> {
    this.#journal = await directory.begin(this.state, this.nowMs, {
      onDurable: (number) => {
        this.#durable = number;
        this.#drain();
      },
      onFailed: (error) => {
        this.#stopped = true;
        this.#held.length = 0;
        this.#hooks.onFailed(error);
      },
    });
  }

  /** The machine's time. */
  get nowMs(): number {
    return performance.now() + this.#clockOffsetMs;
  }

  step(event: JournaledEvent): void {
    if (this.#stopped) return;
    const { nowMs } = this;
    const effects = this.#tryStep(event, nowMs);
    if (this.#journal !== undefined) {
      const lazy = isLazy(event, effects);
      this.#journal.append(event, nowMs, lazy);
      if (!lazy) this.#awaited = this.#journal.number;
    }
    if (effects.length > 0) this.#held.push({ after: this.#awaited, effects });
    this.#drain();
  }

  /** The world ends, in one last step. There must be no journal: it would begin again with the next start. */
  shutDown(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#held.push({ after: 0, effects: this.#tryStep({ kind: "shutdown" }, this.nowMs) });
    this.#drain();
  }

  /** Takes no more events, and resolves when all that have come are durable and carried out. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#journal?.close();
  }

  #tryStep(event: CoordinatorEvent, nowMs: number): CoordinatorEffect[] {
    try {
      return step(this.state, event, nowMs);
    } catch (error) {
      this.#hooks.onBug(event, error);
      return [];
    }
  }

  /** An effect may cause the next event before those of its own step are through. */
  #drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let next = this.#held[0]; next && next.after <= this.#durable; next = this.#held[0]) {
        this.#held.shift();
        for (const effect of next.effects) this.#hooks.carryOut(effect);
      }
    } finally {
      this.#draining = false;
    }
  }
}

/**
 * Whether nobody could tell that the event was forgotten: nobody learns anything from its effects, and no message
 * with a number was taken, which a later acknowledgement would cover.
 */
function isLazy(event: JournaledEvent, effects: readonly CoordinatorEffect[]): boolean {
  if (event.kind === "message" && event.message.kind !== "heartbeat") return false;
  return effects.every((effect) => effect.kind === "send" && effect.message.kind === "heartbeat");
}
