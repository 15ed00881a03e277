/** Records routing traces; trace-format.ts says what they look like. */
import { closeSync, openSync, writeSync } from "node:fs";
import { checkInteger } from "@pccl/core/base";
import type { Routing } from "./routing.js";
import {
  checkCounts,
  checkLayout,
  checkPlace,
  checkRouting,
  FORMAT,
  invalid,
  reasonOf,
  toBase64,
  type TraceLayout,
  VERSION,
} from "./trace-format.js";

/** Writes a trace to a file as the run goes. Every call has written what it was given when it returns. */
export class TraceWriter {
  readonly #layout: TraceLayout;
  readonly #file: string;
  #descriptor: number | undefined;

  /** Creates the file, or empties it. Throws ERR_PCCL_INVALID_ARGUMENT if that can't be done. */
  constructor(file: string, layout: TraceLayout) {
    this.#layout = checkLayout("TraceWriter", layout);
    this.#file = file;
    try {
      this.#descriptor = openSync(file, "w");
    } catch (error) {
      throw invalid(`TraceWriter: ${file} can't be written: ${reasonOf(error)}`, error);
    }
    this.#line({ format: FORMAT, version: VERSION, ...this.#layout });
  }

  /** All ranks' counts of a layer in a step: enough for planning and the simulator. */
  counts(step: number, layer: number, counts: readonly ArrayLike<number>[]): void {
    const call = "TraceWriter.counts";
    const experts = checkPlace(call, this.#layout, step, layer);
    const rows = checkCounts(call, counts, this.#layout.ranks, experts);
    this.#line({ step, layer, counts: rows.map((row) => Array.from(row)) });
  }

  /** One rank's routing of a layer in a step: what the bench replays. Needs every rank's, in this file or others. */
  routing(step: number, layer: number, rank: number, routing: Routing): void {
    const call = "TraceWriter.routing";
    const experts = checkPlace(call, this.#layout, step, layer);
    checkInteger(call, "rank", rank, 0, this.#layout.ranks - 1);
    checkRouting(call, routing, experts);
    const { firstSlot } = routing;
    const slots = Uint16Array.from({ length: firstSlot.length - 1 }, (_, token) => {
      return (firstSlot[token + 1] as number) - (firstSlot[token] as number);
    });
    this.#line({
      step,
      layer,
      rank,
      slots: toBase64(slots),
      experts: toBase64(Uint16Array.from(routing.experts)),
      gates: toBase64(routing.gates),
    });
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #line(value: unknown): void {
    if (this.#descriptor === undefined) throw invalid(`TraceWriter: ${this.#file} was closed`);
    try {
      writeSync(this.#descriptor, `${JSON.stringify(value)}\n`);
    } catch (error) {
      throw invalid(`TraceWriter: ${this.#file} can't be written: ${reasonOf(error)}`, error);
    }
  }
}
