/** Puts together what the peers report, each for itself, about one outer step. */
import type { OuterStep } from "@pccl/core/diloco";
import type { HeldOutShare } from "./messages.js";

export interface StepRecord {
  /** Outer steps done; 0 is the beginning. */
  readonly index: number;
  /** Peers whose work is in it; at index 0 those that began. */
  worldSize: number;
  epoch: number;
  /** Mean training loss of the inner steps, nats per byte; undefined at index 0. */
  loss: number | undefined;
  /** Bytes that all peers together sent. */
  txBytes: number;
  /** Means over the peers. */
  computing: number;
  waiting: number;
  retriedOps: number;
  /** What happened in the course of the step that led here. */
  readonly events: string[];
  /** Reports that are in it. */
  reports: number;
  readonly heldOut: Map<number, number>;
}

export class StepLog {
  readonly #records: StepRecord[] = [];
  /** Events since the last record was made. */
  #events: string[] = [];

  get records(): readonly StepRecord[] {
    return this.#records;
  }

  /** The record of an outer step, made when first asked for. */
  at(index: number): StepRecord {
    while (this.#records.length <= index) {
      this.#records.push({
        index: this.#records.length,
        worldSize: 0,
        epoch: 0,
        loss: undefined,
        txBytes: 0,
        computing: 0,
        waiting: 0,
        retriedOps: 0,
        events: this.#events,
        reports: 0,
        heldOut: new Map(),
      });
      this.#events = [];
    }
    return this.#records[index] as StepRecord;
  }

  addEvent(text: string): void {
    this.#events.push(text);
  }

  addStep(step: OuterStep): void {
    const record = this.at(step.index);
    const { reports } = record;
    record.worldSize = step.worldSize;
    record.epoch = Math.max(record.epoch, step.epoch);
    record.loss = step.loss;
    record.txBytes += step.txBytes;
    record.computing = (record.computing * reports + step.seconds.computing) / (reports + 1);
    record.waiting = (record.waiting * reports + step.seconds.waiting) / (reports + 1);
    // An aborted reduction is the same one on every peer.
    record.retriedOps = Math.max(record.retriedOps, step.retriedOps);
    record.reports++;
  }

  addHeldOut(index: number, share: HeldOutShare): void {
    const { heldOut } = this.at(index);
    for (const [batch, loss] of share) heldOut.set(batch, loss);
  }
}

/** Mean of the shares that have come; NaN when none has. */
export function heldOutLoss({ heldOut }: StepRecord): number {
  let sum = 0;
  for (const loss of heldOut.values()) sum += loss;
  return sum / heldOut.size;
}
