/** One of the threads of `pccl simulate`: runs the seeds that it is given, and stops at the first that breaks a rule. */
import { parentPort } from "node:worker_threads";
import { runSeed } from "../sim/simulation.js";
import { addRun, emptyTally, type SweepTally } from "../sim/tally.js";

export interface SeedBatch {
  readonly from: number;
  /** The first one that isn't in it. */
  readonly to: number;
}

export interface BatchResult {
  readonly tally: SweepTally;
  /** The seed that broke a rule. */
  readonly broken: number | undefined;
}

parentPort?.on("message", ({ from, to }: SeedBatch) => {
  const tally = emptyTally();
  let broken: number | undefined;
  for (let seed = from; seed < to && broken === undefined; seed++) {
    const result = runSeed(seed);
    addRun(tally, result);
    if (result.violation !== undefined) broken = seed;
  }
  parentPort?.postMessage({ tally, broken } satisfies BatchResult);
});
