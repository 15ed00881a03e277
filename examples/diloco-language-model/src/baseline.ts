/** The comparison: one peer alone, with as many inner steps as each of the group's peers makes. */
import { readConfig, orphaned, tell } from "./child.js";
import type { BaselineMessage, TrainingConfig } from "./messages.js";
import { Trainer } from "./trainer.js";

const config = readConfig() as TrainingConfig;
const signal = orphaned();
const trainer = await Trainer.create(config.textFile, config.seed, config.ordinal);
let seconds = 0;
let lastSign = performance.now();
for (let outer = 0; outer <= config.outerSteps && !signal.aborted; outer++) {
  const start = performance.now();
  // The first measurement is made before the first step.
  const steps = outer === 0 ? 0 : config.innerSteps;
  for (let inner = 0; inner < steps && !signal.aborted; inner++) {
    await trainer.innerStep();
    // jax-js never lets the event loop turn by itself, and the signal needs that.
    await new Promise((resolve) => setImmediate(resolve));
    if (performance.now() - lastSign > 1000) {
      lastSign = performance.now();
      report({ kind: "inner" });
    }
  }
  seconds += (performance.now() - start) / 1000;
  const losses = await trainer.heldOutLosses();
  const heldOut = losses.reduce((sum, [, loss]) => sum + loss, 0) / losses.length;
  report({ kind: "measured", steps: outer * config.innerSteps, heldOut, seconds });
}

function report(message: BaselineMessage): void {
  tell(message);
}
