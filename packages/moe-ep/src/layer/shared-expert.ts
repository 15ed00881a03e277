/** The expert that every token of a DeepSeek-V3 layer goes to: each rank has it, for its own tokens. */
import {
  type ExpertFormat,
  type ExpertNumbers,
  type ExpertTensors,
  ExpertWeights,
  expertBackward,
  expertForward,
} from "../experts/experts.js";
import { newNumbers } from "./format.js";
import type { Gradients } from "./gradient-return.js";

interface Pass {
  readonly x: ExpertNumbers;
  readonly preactivations: ExpertNumbers;
}

export class SharedExpert {
  readonly #training: boolean;
  #weights: ExpertWeights;
  #pass: Pass | undefined;

  private constructor(weights: ExpertWeights) {
    this.#weights = weights;
    this.#training = weights.training;
  }

  static async create(
    format: ExpertFormat,
    tensors: ExpertTensors,
    training: boolean,
  ): Promise<SharedExpert> {
    return new SharedExpert(await ExpertWeights.pack(format, { tensors, training }));
  }

  async setTensors(tensors: ExpertTensors): Promise<void> {
    this.#weights = await ExpertWeights.pack(this.#weights.format, { tensors, training: this.#training });
  }

  /** Its results, tokens × D. */
  async forward(x: ExpertNumbers): Promise<ExpertNumbers> {
    const { format } = this.#weights;
    const tokens = x.length / format.hiddenSize;
    const y = newNumbers(format, x.length);
    const preactivations = this.#training ? newNumbers(format, tokens * 2 * format.ffnSize) : undefined;
    await expertForward({ experts: [{ weights: this.#weights, tokens }], x, y, preactivations });
    this.#pass = preactivations && { x, preactivations };
    return y;
  }

  /** The gradients of the last forward pass, by x, and by the tensors over this rank's tokens. */
  async backward(yGradient: ExpertNumbers): Promise<{ x: ExpertNumbers; tensors: Gradients }> {
    const { x, preactivations } = this.#pass as Pass;
    const weights = this.#weights;
    const gradients = weights.zeroGradients();
    const xGradient = newNumbers(weights.format, x.length);
    const experts = [{ weights, tokens: x.length / weights.format.hiddenSize, firstPosition: 0, gradients }];
    await expertBackward({ experts, x, preactivations, yGradient, xGradient });
    return { x: xGradient, tensors: gradients };
  }
}
