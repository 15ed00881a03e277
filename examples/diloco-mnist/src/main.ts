/**
 * Peers in processes of their own train one small network; one more joins them a third of the way in. Progress on
 * stderr, every round as a line of JSON in OUT/steps.jsonl, the loss curve in OUT/loss.svg.
 */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Coordinator } from "@pccl/core/coordinator";
import type { OuterStep } from "@pccl/core/diloco";
import { renderChart } from "@pccl/example-diloco-language-model/chart";
import { bar, formatBytes } from "@pccl/example-diloco-language-model/progress";
import { WorkerProcess } from "@pccl/example-diloco-language-model/worker-process";
import { HELP, type MainOptions, parseMain, UsageError } from "./options.js";
import type { PeerConfig } from "./peer.js";

interface Evaluation {
  readonly loss: number;
  readonly accuracy: number;
}

type Message =
  | { kind: "pending" }
  | { kind: "joined"; round: number; digest: string }
  | { kind: "step"; step: OuterStep; heldOut?: Evaluation }
  | { kind: "suspect"; suspect: object }
  | { kind: "finished"; digest: string; heldOut: Evaluation };

async function train(options: MainOptions): Promise<boolean> {
  const { peers: count, outerSteps, innerSteps, out } = options;
  options.read();
  mkdirSync(out, { recursive: true });
  const log = join(out, "steps.jsonl");
  writeFileSync(log, "");
  const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: count });
  const workers: WorkerProcess<Message>[] = [];
  const finished = new Map<number, { digest: string; heldOut: Evaluation }>();
  const losses: [number, number][] = [];
  const heldOut: [number, number][] = [];
  let joinedAt: number | undefined;
  // The others wait here until the late one is pending, or they might be through before it has started.
  const lateAt = Math.floor(options.rounds / 3);
  try {
    await new Promise<void>((resolve, reject) => {
      const onMessage = (ordinal: number, message: Message): void => {
        if (message.kind === "pending" && ordinal === count) {
          for (const worker of workers) worker.send({ until: options.rounds });
        }
        if (message.kind !== "pending")
          appendFileSync(log, `${JSON.stringify({ peer: ordinal, ...message })}\n`);
        if (message.kind === "joined" && ordinal === count) {
          joinedAt = message.round;
          process.stderr.write(`peer ${ordinal} joined, received the group's parameters\n`);
        }
        if (message.kind === "step" && message.heldOut !== undefined) showStep(message.step, message.heldOut);
        if (message.kind === "step" && message.step.round >= lateAt - 1 && workers.length === count) spawn();
        if (message.kind === "finished") finished.set(ordinal, message);
        if (finished.size === workers.length) resolve();
      };
      const showStep = (step: OuterStep, evaluation: Evaluation): void => {
        const { index, worldSize, loss, txBytes, seconds } = step;
        const x = (step.round * innerSteps * outerSteps) / options.rounds;
        if (loss !== undefined) losses.push([x, loss]);
        heldOut.push([x, evaluation.loss]);
        process.stderr.write(
          `${bar(step.round / options.rounds)} ${index}/${outerSteps}  peers ${worldSize}  loss ${loss?.toFixed(3) ?? "-"}  ` +
            `held-out ${evaluation.loss.toFixed(3)}  accuracy ${(100 * evaluation.accuracy).toFixed(1)} %  ` +
            `${formatBytes(txBytes)}  computing ${seconds.computing.toFixed(2)} s  waiting ${seconds.waiting.toFixed(2)} s\n`,
        );
      };
      const spawn = (): void => {
        const ordinal = workers.length;
        const config: PeerConfig = { ...options.peer, coordinator: coordinator.address, ordinal };
        const hooks = {
          onMessage: (message: Message): void => onMessage(ordinal, message),
          onCrash: (how: string): void => {
            if (!finished.has(ordinal)) reject(new Error(`peer ${ordinal} ended by itself (${how}).`));
          },
        };
        const worker = new WorkerProcess<Message>(new URL("./peer.js", import.meta.url), config, hooks);
        workers.push(worker);
        worker.send({ until: ordinal === count ? options.rounds : lateAt });
      };
      for (let i = 0; i < count; i++) spawn();
    });
  } finally {
    await Promise.all(workers.map(async (worker) => await worker.end()));
    await coordinator.close();
  }
  const chart = join(out, "loss.svg");
  writeFileSync(
    chart,
    renderChart({
      title: `${options.peer.text === undefined ? "MNIST" : "next byte"}, ${count} peers and a late one`,
      xLabel: "inner steps per peer",
      yLabel: "loss, nats",
      series: [
        { label: "training", color: "#1f6feb", points: losses },
        { label: "held out", color: "#d9730d", points: heldOut },
      ],
      marks:
        joinedAt === undefined
          ? []
          : [{ x: (joinedAt * innerSteps * outerSteps) / options.rounds, label: "a peer joined" }],
    }),
  );
  const digests = new Set([...finished.values()].map(({ digest }) => digest));
  const isOk = digests.size === 1 && joinedAt !== undefined;
  const { loss, accuracy } = (finished.get(0) as { readonly heldOut: Evaluation }).heldOut;
  process.stdout.write(
    `held-out loss ${loss.toFixed(4)}, accuracy ${(100 * accuracy).toFixed(2)} %, ` +
      `${finished.size} peers with ${digests.size === 1 ? "equal" : "DIFFERENT"} outer states; ${chart}, ${log}\n`,
  );
  return isOk;
}

try {
  const options = parseMain(process.argv.slice(2));
  if (options === undefined) process.stdout.write(HELP);
  else process.exitCode = (await train(options)) ? 0 : 1;
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`${error.message} See --help.\n`);
  process.exitCode = 2;
}
