/**
 * What the coordinator's disk does: records are appended in order, one write of the disk takes all that came before
 * it, and what follows from a record is let go when that record is on disk.
 */
import type { CoordinatorEvent } from "../membership/state.js";
import type { Thread } from "./process.js";
import type { Random } from "./random.js";

export interface Entry {
  readonly event: CoordinatorEvent;
  readonly nowMs: number;
}

export class Journal<Effect> {
  readonly #release: (effect: Effect) => void;
  #entries: Entry[] = [];
  #durable = 0;
  #syncing = false;
  /** Effects of the entry with a number, and how many entries have to be on disk before they may leave. */
  readonly #held: { readonly entry: number; readonly after: number; readonly effects: readonly Effect[] }[] =
    [];
  #sync: () => void = () => {};

  constructor(release: (effect: Effect) => void) {
    this.#release = release;
  }

  open(thread: Thread, random: Random, syncMsMax: number): void {
    this.#syncing = false;
    this.#sync = () => {
      if (this.#syncing) return;
      this.#syncing = true;
      const upTo = this.#entries.length;
      thread.after(random.between(0, syncMsMax), () => {
        this.#syncing = false;
        this.#durable = upTo;
        this.letGo(this.#durable);
        if (this.#held.length > 0) this.#sync();
      });
    };
  }

  append(entry: Entry, effects: readonly Effect[]): void {
    const number = this.#entries.push(entry) - 1;
    if (this.asksForSync(entry, effects.length)) {
      this.#held.push({ entry: number, after: this.#entries.length, effects });
      this.#sync();
    } else if (effects.length > 0) {
      // Behind what is held already: it may acknowledge what that waits for.
      this.#held.push({ entry: number, after: this.#held.at(-1)?.after ?? 0, effects });
      this.letGo(this.#durable);
    }
  }

  /**
   * Nobody waits for what a heartbeat or an event without effects changes: its record goes with the next one. Other
   * messages are acknowledged by whatever is sent next, so they have to be on disk even if nothing follows from them.
   */
  asksForSync({ event }: Entry, effects: number): boolean {
    return event.kind === "message" ? event.message.kind !== "heartbeat" : effects > 0;
  }

  /**
   * What a process that starts after a crash finds. The effects of the first `released` entries have left; `isWhole`:
   * chance has lost none.
   */
  crash(random: Random): {
    readonly entries: readonly Entry[];
    readonly released: number;
    readonly isWhole: boolean;
  } {
    const released = this.#held[0]?.entry ?? this.#entries.length;
    const all = this.#entries.length;
    this.#entries = this.#entries.slice(
      0,
      this.#durable + random.below(this.#entries.length - this.#durable + 1),
    );
    this.#durable = this.#entries.length;
    this.#held.length = 0;
    return { entries: this.#entries, released, isWhole: this.#entries.length === all };
  }

  /** Lets go what waits for the first `durable` entries. */
  letGo(durable: number): void {
    for (let first = this.#held[0]; first !== undefined && first.after <= durable; first = this.#held[0]) {
      this.#held.shift();
      for (const effect of first.effects) this.#release(effect);
    }
  }
}
