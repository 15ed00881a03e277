/** What one process trains with: text, model and inner optimizer. It knows nothing of other peers. */
import { readFileSync } from "node:fs";
import type { ParameterArena } from "@pccl/core/diloco";
import { AdamW } from "./adamw.js";
import { BATCH, createParameters, LanguageModel } from "./model.js";
import { Random } from "./random.js";
import { batchAt, CONTEXT, evenPositions, randomBatch, splitText, type Text } from "./text.js";

/** Held-out loss is measured on this many batches of BATCH positions, the same ones in every process. */
export const HELD_OUT_BATCHES = 32;

/** The positions of the held-out text that losses are measured at. */
export function heldOutPositions(text: Text): number[] {
  return evenPositions(text.heldOut, HELD_OUT_BATCHES * BATCH);
}

export class Trainer {
  readonly arena: ParameterArena;
  readonly #text: Text;
  readonly #heldOut: readonly number[];
  readonly #model: LanguageModel;
  readonly #optimizer: AdamW;
  readonly #random: Random;

  private constructor(arena: ParameterArena, model: LanguageModel, text: Text, random: Random) {
    this.arena = arena;
    this.#model = model;
    this.#text = text;
    this.#heldOut = heldOutPositions(text);
    this.#optimizer = new AdamW(arena);
    this.#random = random;
  }

  /**
   * `textFile` holds the whole text. `seed` gives the initial parameters; `stream`, different in every process, the order of the training data.
   * Kernels are compiled here, so that the first step is as fast as the others.
   */
  static async create(textFile: string, seed: number, stream: number): Promise<Trainer> {
    const text = splitText(readFileSync(textFile));
    const arena = createParameters(seed);
    const model = await LanguageModel.create(arena);
    const warmUp = batchAt(text.train, evenPositions(text.train, BATCH));
    await model.lossAndGradient(warmUp);
    await model.loss(warmUp);
    return new Trainer(arena, model, text, new Random(seed * 1_000_003 + stream));
  }

  /** One batch, one step of AdamW; the batch's loss in nats per byte. */
  async innerStep(): Promise<number> {
    const batch = randomBatch(this.#text.train, BATCH, this.#random);
    const { loss, gradients } = await this.#model.lossAndGradient(batch);
    this.#optimizer.step(gradients);
    return loss;
  }

  /** [batch, loss] of every `stride`-th held-out batch from `first` on. */
  async heldOutLosses(first = 0, stride = 1): Promise<[number, number][]> {
    const losses: [number, number][] = [];
    for (let index = first; index < HELD_OUT_BATCHES; index += stride) {
      const positions = this.#heldOut.slice(index * BATCH, (index + 1) * BATCH);
      losses.push([index, await this.#model.loss(batchAt(this.#text.heldOut, positions))]);
    }
    return losses;
  }

  /** Text that the model writes on from a piece of held-out text. */
  async sample(length: number): Promise<string> {
    const random = new Random(this.#heldOut.length + length);
    const start = random.below(Math.floor(this.#text.heldOut.length / 2));
    const lineBreak = this.#text.heldOut.indexOf(10, start);
    const prompt = this.#text.heldOut.subarray(lineBreak + 1, lineBreak + 1 + 4 * CONTEXT);
    return await this.#model.generate(Buffer.from(prompt).toString("latin1"), length, 0.7, random);
  }
}
