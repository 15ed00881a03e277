/** One peer, in a process of its own: what a training script looks like that owns no loop. */
import { connect } from "@pccl/core";
import { Diloco, type ScheduleOptions, type WireOptions } from "@pccl/core/diloco";
import { orphaned, readConfig, tell } from "@pccl/example-diloco-language-model/child";
import { Gate } from "@pccl/example-diloco-language-model/gate";
import { reader } from "./options.js";
import { Trainer } from "./trainer.js";

export interface PeerConfig {
  readonly coordinator: string;
  readonly text: string | undefined;
  readonly mnist: string;
  readonly ordinal: number;
  readonly seed: number;
  readonly innerSteps: number;
  readonly outerSteps: number;
  readonly schedule: ScheduleOptions;
  readonly wire: WireOptions;
  readonly outer: { readonly kind: "nesterov"; readonly learningRate: number; readonly momentum: number };
  readonly size: { readonly hidden: number; readonly batch: number };
}

const { coordinator, text, mnist, ordinal, seed, outerSteps, size, ...settings } = readConfig() as PeerConfig;
const signal = orphaned();
const gate = new Gate(signal);
process.on("message", ({ until }: { readonly until: number }) => gate.openUntil(until));
try {
  const trainer = new Trainer(reader(text, mnist)(), { ...size, seed, stream: ordinal });
  await using communicator = await connect(coordinator, {
    signal,
    onPending: () => tell({ kind: "pending" }),
  });
  const diloco = new Diloco({ communicator, parameters: trainer.network.arena, signal, ...settings });
  diloco.on("outerStep", (step) => {
    // All hold the same parameters, so that one of them measures.
    const heldOut = communicator.rank === 0 ? trainer.evaluate(diloco.parameters) : undefined;
    tell({ kind: "step", step, heldOut });
  });
  diloco.on("suspect", (suspect) => tell({ kind: "suspect", suspect }));
  await diloco.join();
  tell({ kind: "joined", round: diloco.round, digest: diloco.digest });
  await diloco.run({
    outerSteps,
    innerStep: async () => {
      await gate.passed(diloco.launched + 1);
      return trainer.innerStep();
    },
  });
  tell({ kind: "finished", digest: diloco.digest, heldOut: trainer.evaluate(diloco.parameters) });
} catch (error) {
  if (!signal.aborted) throw error;
}
process.disconnect();
