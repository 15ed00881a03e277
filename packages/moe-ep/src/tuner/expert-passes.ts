/** Times the forward pass of experts, as the runtime runs them. */
import { type ExpertFormat, type ExpertNumbers, ExpertWeights, expertForward } from "../experts/experts.js";
import type { Sample } from "../planner/cost-model.js";

/** More than one, so that weights come out of memory as in a layer, and not out of a cache. */
const EXPERTS_MAX = 4;
const PACKED_BYTES_MAX = 512 * 2 ** 20;

export class ExpertPasses {
  readonly #format: ExpertFormat;
  readonly #weights: readonly ExpertWeights[];

  private constructor(format: ExpertFormat, weights: readonly ExpertWeights[]) {
    this.#format = format;
    this.#weights = weights;
  }

  static async create(format: ExpertFormat): Promise<ExpertPasses> {
    const { inference } = ExpertWeights.packedBytes(format);
    const experts = Math.max(1, Math.min(EXPERTS_MAX, Math.floor(PACKED_BYTES_MAX / inference)));
    const product = format.hiddenSize * format.ffnSize;
    const tensor = ones(format.dtype, product);
    const weights: ExpertWeights[] = [];
    for (let expert = 0; expert < experts; expert++) {
      weights.push(await ExpertWeights.pack(format, { tensors: { gate: tensor, up: tensor, down: tensor } }));
    }
    return new ExpertPasses(format, weights);
  }

  /** Seconds of one expert with so many rows: that of passes over several, for about `seconds`. */
  async measure(rows: number, seconds: number): Promise<Sample> {
    const { dtype, hiddenSize } = this.#format;
    const experts = this.#weights.map((weights) => ({ weights, tokens: rows }));
    const x = ones(dtype, experts.length * rows * hiddenSize);
    const y = ones(dtype, x.length);
    await expertForward({ experts, x, y });
    const times: number[] = [];
    const end = performance.now() + seconds * 1e3;
    while (times.length < 3 || performance.now() < end) {
      const begin = performance.now();
      await expertForward({ experts, x, y });
      times.push((performance.now() - begin) / 1e3 / experts.length);
    }
    return { size: rows, seconds: typical(times) };
  }
}

/** 2^-8 in f32 or bf16: sums stay small. */
function ones(dtype: ExpertFormat["dtype"], count: number): ExpertNumbers {
  return dtype === "f32" ? new Float32Array(count).fill(2 ** -8) : new Uint16Array(count).fill(0x3b80);
}

/** The lower quartile: whatever else the machine does makes times longer, and never shorter. */
export function typical(seconds: readonly number[]): number {
  const sorted = [...seconds].sort((a, b) => a - b);
  return sorted[sorted.length >> 2] as number;
}
