/** One peer, in a process of its own: this is what a user's training script looks like. */
import { connect } from "@pccl/core";
import { Diloco } from "@pccl/core/diloco";
import { readConfig, orphaned, tell } from "./child.js";
import { Gate } from "./gate.js";
import type { PeerCommand, PeerConfig, PeerMessage } from "./messages.js";
import { Trainer } from "./trainer.js";

const config = readConfig() as PeerConfig;
const signal = orphaned();
const gate = new Gate(signal);
const trainer = await Trainer.create(config.textFile, config.seed, config.ordinal);

process.on("message", (command: PeerCommand) => {
  if (command.kind === "proceed") gate.openUntil(command.until);
  else void trainer.sample(command.length).then((text) => report({ kind: "sample", text }));
});

try {
  await train();
  report({ kind: "finished" });
} catch (error) {
  if (!signal.aborted) throw error;
}

async function train(): Promise<void> {
  await using communicator = await connect(config.coordinator, {
    signal,
    onPending: (peerId) => report({ kind: "pending", peerId }),
  });
  const diloco = new Diloco({
    communicator,
    parameters: trainer.arena,
    innerSteps: config.innerSteps,
    signal,
  });
  await diloco.join();
  // All peers hold the same parameters now, so each measures its share of the held-out text.
  const heldOut = (): Promise<[number, number][]> =>
    trainer.heldOutLosses(communicator.rank, communicator.groupWorldSize);
  const { peerId, worldSize, epoch } = communicator;
  const { index } = diloco;
  report({
    kind: "joined",
    peerId,
    index,
    worldSize,
    epoch,
    digest: diloco.digest,
    heldOut: await heldOut(),
  });

  let lastSign = performance.now();
  while (diloco.index < config.outerSteps) {
    await gate.passed(diloco.index + 1);
    for (let done = 1; ; done++) {
      await diloco.beginStep();
      const loss = await trainer.innerStep();
      const step = await diloco.endStep({ loss });
      if (step !== undefined) {
        report({ kind: "outer", step, digest: diloco.digest, heldOut: await heldOut() });
        break;
      }
      if (performance.now() - lastSign > 1000) {
        lastSign = performance.now();
        report({ kind: "inner", index: diloco.index, done, loss });
      }
    }
  }
}

function report(message: PeerMessage): void {
  tell(message);
}
