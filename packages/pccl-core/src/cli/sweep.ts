/** Runs a range of seeds on all processors. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { addTally, emptyTally, type SweepTally } from "../sim/tally.js";
import type { BatchResult, SeedBatch } from "./simulate-worker.js";

/** Seeds that a thread runs before it asks for more: a fraction of a second. */
const BATCH_SEEDS = 50;

export interface SweepOptions {
  readonly from: number;
  readonly to: number;
  readonly threads: number;
  /** No new batch begins once this is aborted. */
  readonly signal: AbortSignal;
  readonly onProgress: (tally: SweepTally) => void;
}

export interface SweepResult {
  readonly tally: SweepTally;
  /** The lowest seed that broke a rule. */
  readonly broken: number | undefined;
}

/** Seeds from `from` to `to`, both included, or up to a broken rule. */
export async function sweep({ from, to, threads, signal, onProgress }: SweepOptions): Promise<SweepResult> {
  const tally = emptyTally();
  let broken: number | undefined;
  let next = from;
  const work = async (): Promise<void> => {
    const worker = new Worker(new URL("./simulate-worker.js", import.meta.url));
    try {
      while (next <= to && broken === undefined && !signal.aborted) {
        const batch: SeedBatch = { from: next, to: Math.min(next + BATCH_SEEDS, to + 1) };
        next = batch.to;
        worker.postMessage(batch);
        const [result] = (await once(worker, "message")) as [BatchResult];
        addTally(tally, result.tally);
        if (result.broken !== undefined) broken = Math.min(broken ?? result.broken, result.broken);
        onProgress(tally);
      }
    } finally {
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: threads }, work));
  return { tally, broken };
}
