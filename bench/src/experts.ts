/**
 * How fast tokens pass through an expert, forward and backward, with everything that JavaScript adds: Gflop/s of one
 * call on its one thread. native/bench/products_bench.cc measures the matrix products beside oneDNN's.
 *
 *   node bench/dist/experts.js [--size 1024] [--rounds 15] [--out FILE]
 */
import { parseArgs } from "node:util";
import {
  type ExpertFormat,
  type ExpertNumbers,
  ExpertWeights,
  expertBackward,
  expertForward,
} from "@pccl/moe-ep";
import { medianOf, writeResults } from "./statistics.js";

const TOKENS = [1, 16, 64, 256, 1024, 4096];

/** Ones in bf16 (0x3f80) or f32, made small enough that no sum grows out of bounds. */
function numbers(dtype: ExpertFormat["dtype"], count: number): ExpertNumbers {
  return dtype === "f32" ? new Float32Array(count).fill(2 ** -8) : new Uint16Array(count).fill(0x3b80);
}

async function gflopsOf(rounds: number, flops: number, run: () => Promise<void>): Promise<number> {
  await run();
  const rates: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    await run();
    rates.push(flops / (performance.now() - begin) / 1e6);
  }
  return medianOf(rates);
}

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "1024" },
    rounds: { type: "string", default: "15" },
    out: { type: "string" },
  },
});
const size = Number(values.size);
const rounds = Number(values.rounds);
const results = [];
for (const kind of ["swiglu", "gpt-oss"] as const) {
  for (const dtype of ["f32", "bf16"] as const) {
    const format = { kind, dtype, hiddenSize: size, ffnSize: size };
    const product = size * size;
    const tensors: Record<string, ExpertNumbers> =
      kind === "swiglu"
        ? { gate: numbers(dtype, product), up: numbers(dtype, product), down: numbers(dtype, product) }
        : {
            gateUp: numbers(dtype, 2 * product),
            gateUpBias: numbers(dtype, 2 * size),
            down: numbers(dtype, product),
            downBias: numbers(dtype, size),
          };
    const weights = await ExpertWeights.pack(format, { tensors, training: true });
    const gradients = weights.zeroGradients();
    for (const tokens of TOKENS) {
      const x = numbers(dtype, tokens * size);
      const [y, xGradient] = [numbers(dtype, tokens * size), numbers(dtype, tokens * size)];
      const preactivations = numbers(dtype, tokens * 2 * size);
      const yGradient = numbers(dtype, tokens * size);
      // Three matrices forward; backward each once for the tokens and once for itself.
      const flops = 6 * product * tokens;
      const forwardGflops = await gflopsOf(rounds, flops, () =>
        expertForward({ experts: [{ weights, tokens }], x, y, preactivations }),
      );
      const experts = [{ weights, tokens, firstPosition: 0, gradients }];
      const backwardGflops = await gflopsOf(rounds, 2 * flops, () =>
        expertBackward({ experts, x, preactivations, yGradient, xGradient }),
      );
      results.push({ kind, dtype, size, tokens, forwardGflops, backwardGflops });
      process.stdout.write(
        `${kind.padEnd(8)} ${dtype.padEnd(5)} ${size}² ${String(tokens).padStart(5)} tokens: ` +
          `forward ${forwardGflops.toFixed(1)} Gflop/s, backward ${backwardGflops.toFixed(1)}\n`,
      );
    }
  }
}
writeResults(values.out, results);
