/**
 * Schedules and wire formats side by side, on the same task, seeds and numbers of samples: what each ends at and what it
 * sends. All peers of a run are in this process; the collectives are real ones.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Communicator, connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { Diloco, type DilocoOptions } from "@pccl/core/diloco";
import { renderChart } from "@pccl/example-diloco-language-model/chart";
import type { Split } from "./digits.js";
import { type CompareOptions, HELP_COMPARE, parseCompare, UsageError } from "./options.js";
import { Trainer } from "./trainer.js";

type Variant = Partial<Pick<DilocoOptions, "schedule" | "wire" | "outer">>;

const VARIANTS: Readonly<Record<string, Variant>> = {
  sync: {},
  async: { schedule: "async" },
  eager: { schedule: "eager" },
  streaming: { schedule: { kind: "streaming", fragments: 5, delaySteps: 2 } },
  bf16: { wire: "bf16" },
  "8-bit": { wire: "8-bit" },
  "4-bit": { wire: "4-bit" },
  "4-bit, no feedback": { wire: { format: "4-bit", errorFeedback: 0 } },
  "top-k": { wire: "top-k" },
};
const DATA_PARALLEL = "data parallel";

interface Result {
  readonly name: string;
  readonly seed: number;
  readonly loss: number;
  readonly accuracy: number;
  /** That each peer sent, on average, and the most in any one round. */
  readonly txBytes: number;
  readonly peakBytes: number;
  readonly seconds: number;
  /** Held-out loss after numbers of inner steps. */
  readonly curve: readonly (readonly [number, number])[];
}

async function world(size: number): Promise<{ peers: Communicator[]; close: () => Promise<void> }> {
  const coordinator = await Coordinator.start({
    listen: "127.0.0.1:0",
    minPeers: size,
    // All peers share one machine, and one thread that computes.
    leaseMs: 60_000,
  });
  const peers = await Promise.all(
    Array.from({ length: size }, async () => await connect(coordinator.address)),
  );
  const close = async (): Promise<void> => {
    await Promise.all(peers.map(async (peer) => await peer.close()));
    await coordinator.close();
  };
  return { peers, close };
}

async function runOne(name: string, options: CompareOptions, split: Split, seed: number): Promise<Result> {
  const { peers, close } = await world(options.peers);
  const trainers = peers.map((_, stream) => new Trainer(split, { ...options.size, seed, stream }));
  const start = performance.now();
  try {
    const run = name === DATA_PARALLEL ? dataParallel : diloco;
    const { parameters, ...rest } = await run(peers, trainers, options, VARIANTS[name] ?? {});
    const { loss, accuracy } = (trainers[0] as Trainer).evaluate(parameters);
    return { name, seed, loss, accuracy, seconds: (performance.now() - start) / 1000, ...rest };
  } finally {
    await close();
  }
}

type Run = Pick<Result, "txBytes" | "peakBytes" | "curve"> & { readonly parameters: Float32Array };

async function diloco(
  peers: readonly Communicator[],
  trainers: readonly Trainer[],
  { innerSteps, outerSteps, outer }: CompareOptions,
  variant: Variant,
): Promise<Run> {
  const curve: [number, number][] = [];
  let [txBytes, peakBytes] = [0, 0];
  const all = peers.map((communicator, i) => {
    const { network } = trainers[i] as Trainer;
    return new Diloco({ communicator, parameters: network.arena, innerSteps, ...outer, ...variant });
  });
  const [first] = all as [Diloco];
  first.on("outerStep", (step) => {
    peakBytes = Math.max(peakBytes, step.txBytes);
    if (step.round % Math.round(step.round / Math.max(1, step.index)) === 0 && step.index !== curve.length) {
      curve.push([step.index * innerSteps, (trainers[0] as Trainer).evaluate(first.parameters).loss]);
    }
  });
  for (const one of all) {
    one.on("outerStep", (step) => {
      txBytes += step.txBytes / peers.length;
    });
  }
  await Promise.all(
    all.map(
      async (one, i) => await one.run({ outerSteps, innerStep: () => (trainers[i] as Trainer).innerStep() }),
    ),
  );
  if (new Set(all.map(({ digest }) => digest)).size !== 1) throw new Error("The peers' outer states differ.");
  return { parameters: first.parameters, txBytes, peakBytes, curve };
}

/** The gradients of every step averaged: as many samples, and everything sent at every step. */
async function dataParallel(
  peers: readonly Communicator[],
  trainers: readonly Trainer[],
  { innerSteps, outerSteps }: CompareOptions,
): Promise<Run> {
  const curve: [number, number][] = [];
  let [txBytes, peakBytes] = [0, 0];
  for (let step = 1; step <= innerSteps * outerSteps; step++) {
    const results = await Promise.all(
      peers.map(async (peer, i) => {
        const trainer = trainers[i] as Trainer;
        trainer.gradient();
        const result = await peer.allReduce(trainer.network.gradient, undefined, { op: "avg" });
        trainer.network.step();
        return result;
      }),
    );
    for (const result of results) txBytes += result.txBytes / peers.length;
    peakBytes = Math.max(peakBytes, results[0]?.txBytes ?? 0);
    if (step % innerSteps === 0) {
      const [trainer] = trainers as [Trainer];
      curve.push([step, trainer.evaluate(trainer.network.arena.data).loss]);
    }
  }
  return { parameters: (trainers[0] as Trainer).network.arena.data, txBytes, peakBytes, curve };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

const COLORS = [
  "#1f6feb",
  "#d9730d",
  "#2da44e",
  "#8250df",
  "#cf222e",
  "#7b8794",
  "#bf8700",
  "#0a7ea4",
  "#e85aad",
];

function report(results: readonly Result[], options: CompareOptions): string {
  const names = [...new Set(results.map(({ name }) => name))];
  const rows = names.map((name) => {
    const own = results.filter((result) => result.name === name);
    const { length } = own;
    return {
      name,
      seeds: length,
      loss: mean(own.map(({ loss }) => loss)),
      accuracy: mean(own.map(({ accuracy }) => accuracy)),
      txBytes: mean(own.map(({ txBytes }) => txBytes)),
      peakBytes: mean(own.map(({ peakBytes }) => peakBytes)),
      seconds: mean(own.map(({ seconds }) => seconds)),
    };
  });
  const reference = rows.find(({ name }) => name === "sync") ?? rows[0];
  const svg = renderChart({
    title: `${options.task}, ${options.peers} peers, ${options.innerSteps} inner steps, mean of ${options.seeds} seeds`,
    xLabel: "inner steps per peer",
    yLabel: "loss on held-out data, nats",
    series: names.map((name, index) => {
      const curves = results.filter((result) => result.name === name).map(({ curve }) => curve);
      const points = (curves[0] ?? []).map(([x], i): [number, number] => [
        x,
        mean(curves.map((curve) => curve[i]?.[1] ?? Number.NaN)),
      ]);
      return { label: name, color: COLORS[index % COLORS.length] as string, points };
    }),
    marks: [],
  });
  mkdirSync(options.out, { recursive: true });
  writeFileSync(join(options.out, `${options.task}.svg`), svg);
  writeFileSync(
    join(options.out, `${options.task}.jsonl`),
    `${results.map((result) => JSON.stringify(result)).join("\n")}\n`,
  );
  const lines = rows.map(({ name, loss, accuracy, txBytes, peakBytes, seconds }) =>
    [
      name.padEnd(20),
      loss.toFixed(4).padStart(8),
      `${((100 * loss) / (reference?.loss ?? loss) - 100).toFixed(2)} %`.padStart(9),
      `${(100 * accuracy).toFixed(2)} %`.padStart(9),
      `${(txBytes / 1e3).toFixed(0)} kB`.padStart(10),
      `${((100 * txBytes) / (reference?.txBytes ?? txBytes)).toFixed(1)} %`.padStart(9),
      `${(peakBytes / 1e3).toFixed(1)} kB`.padStart(10),
      `${seconds.toFixed(1)} s`.padStart(8),
    ].join(" "),
  );
  const header = `${"".padEnd(20)}     loss   by sync  accuracy       sent   of sync       peak     time`;
  return [header, ...lines, `${options.out}/${options.task}.svg, .jsonl`, ""].join("\n");
}

try {
  const options = parseCompare(process.argv.slice(2), [DATA_PARALLEL, ...Object.keys(VARIANTS)]);
  if (options === undefined) process.stdout.write(HELP_COMPARE);
  else {
    const split = options.read();
    const results: Result[] = [];
    // Seed by seed, so that what disturbs the machine for a while hits all variants.
    for (let seed = 1; seed <= options.seeds; seed++) {
      for (const name of options.variants) {
        const result = await runOne(name, options, split, seed);
        results.push(result);
        const { loss, accuracy, seconds } = result;
        process.stderr.write(
          `seed ${seed}  ${name.padEnd(20)} loss ${loss.toFixed(4)}  accuracy ${(100 * accuracy).toFixed(2)} %  ${seconds.toFixed(1)} s\n`,
        );
      }
    }
    process.stdout.write(report(results, options));
  }
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`${error.message} See --help.\n`);
  process.exitCode = 2;
}
