/** Runs the comparison in a process of its own. */
import type { BaselineMessage, TrainingConfig } from "./messages.js";
import type { Options } from "./options.js";
import type { Watchdog } from "./watchdog.js";
import { WorkerProcess } from "./worker-process.js";

export interface LoneResult {
  /** [inner steps, held-out loss] */
  readonly curve: readonly (readonly [number, number])[];
  /** Time of its inner steps. */
  readonly seconds: number;
}

export async function runAlone(
  { seed, outerSteps, innerSteps }: Options,
  textFile: string,
  onStep: (outer: number) => void,
  watchdog: Watchdog,
  signal: AbortSignal,
): Promise<LoneResult> {
  signal.throwIfAborted();
  const curve: [number, number][] = [];
  const config: TrainingConfig = { textFile, seed, ordinal: 0, outerSteps, innerSteps };
  let worker: WorkerProcess<BaselineMessage> | undefined;
  try {
    const seconds = await new Promise<number>((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      worker = new WorkerProcess<BaselineMessage>(new URL("./baseline.js", import.meta.url), config, {
        onMessage: (message) => {
          watchdog.feed();
          if (message.kind === "inner") return;
          curve.push([message.steps, message.heldOut]);
          onStep(curve.length - 1);
          if (curve.length > outerSteps) resolve(message.seconds);
        },
        onCrash: (how) => reject(new Error(`The lone peer ended by itself (${how}).`)),
      });
    });
    return { curve, seconds };
  } finally {
    await worker?.end();
  }
}
