/** One rank of `moe-ep bench`: the planners' steps in turn, so that what slows the machine down slows down all alike. */
import { createHash } from "node:crypto";
import type { ExpertFormat, ExpertNumbers, ExpertTensors } from "../experts/experts.js";
import { ExpertGroup } from "../group/expert-group.js";
import { runJob } from "../launch/rank-program.js";
import { ExpertLayer } from "../layer/expert-layer.js";
import type { StepStatistics } from "../layer/statistics.js";
import type { Planner } from "../planner/plan.js";
import { generateRouting } from "../routing/generate.js";
import { Random } from "../routing/random.js";
import type { Routing } from "../routing/routing.js";
import { readTrace } from "../routing/trace-reader.js";
import type { BenchJob, BenchMessage, BenchStep } from "./messages.js";

/** Numbers that look like weights and tokens: what they are doesn't change how long a product takes. */
function numbers(random: Random, dtype: BenchJob["dtype"], count: number, scale: number): ExpertNumbers {
  const floats = Float32Array.from({ length: count }, () => (random.uniform() * 2 - 1) * scale);
  return dtype === "f32" ? floats : Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
}

function tensorsOf(random: Random, { dtype, hiddenSize, ffnSize }: ExpertFormat): ExpertTensors {
  const product = (): ExpertNumbers =>
    numbers(random, dtype, hiddenSize * ffnSize, 1 / Math.sqrt(hiddenSize));
  return { gate: product(), up: product(), down: product() };
}

/** This rank's tokens of each round. */
function routingsOf(job: BenchJob, rank: number, ranks: number): (round: number) => Routing {
  const { scenario, experts, topK, tokens, trace } = job;
  if (trace === undefined) {
    return (step) => generateRouting({ scenario, experts, topK, tokens, ranks, rank, step });
  }
  const batches = readTrace(trace).batches.filter(({ layer }) => layer === 0);
  return (round) => batches[round % batches.length]?.routings?.[rank] as Routing;
}

await runJob<BenchJob, BenchMessage>(async (job, tell) => {
  const { experts, hiddenSize, ffnSize, dtype, planners, repeats, costModel } = job;
  await using group = await ExpertGroup.fromEnvironment();
  const { rank, size } = group;
  const format: ExpertFormat = { kind: "swiglu", dtype, hiddenSize, ffnSize };
  const layers = new Map<Planner, ExpertLayer>();
  // All experts hold the same numbers; each has its own memory, as a real one.
  const tensors = tensorsOf(new Random(1), format);
  for (const planner of planners) {
    layers.set(
      planner,
      await ExpertLayer.create(group, {
        format,
        experts,
        tensors: () => tensors,
        plan: { planner, costModel },
      }),
    );
  }
  const routingOf = routingsOf(job, rank, size);
  const rounds = Array.from({ length: repeats + 1 }, (_, round) => routingOf(round));
  const tokensMax = Math.max(...rounds.map(({ firstSlot }) => firstSlot.length - 1));
  const tokens = numbers(new Random(2 + rank), dtype, tokensMax * hiddenSize, 1);
  const steps = new Map(planners.map((planner) => [planner, [] as BenchStep[]]));
  const hashes = new Map(planners.map((planner) => [planner, createHash("sha256")]));
  // The first round grows buffers and isn't counted.
  for (const [round, routing] of rounds.entries()) {
    const x = tokens.subarray(0, (routing.firstSlot.length - 1) * hiddenSize);
    for (const planner of planners) {
      const layer = layers.get(planner) as ExpertLayer;
      await group.exchange.agree("bench", 0, () => new Uint8Array(0));
      const cpu = process.cpuUsage();
      const begin = performance.now();
      const output = await layer.forward(x, routing);
      const seconds = (performance.now() - begin) / 1000;
      const { user, system } = process.cpuUsage(cpu);
      hashes.get(planner)?.update(new Uint8Array(output.buffer, output.byteOffset, output.byteLength));
      if (round === 0) continue;
      const statistics = layer.statistics as StepStatistics;
      steps.get(planner)?.push({ seconds, cpuSeconds: (user + system) / 1e6, statistics });
    }
  }
  for (const planner of planners) {
    await tell({
      kind: "steps",
      planner,
      steps: steps.get(planner) as BenchStep[],
      outputHash: hashes.get(planner)?.digest("hex") as string,
    });
  }
});
