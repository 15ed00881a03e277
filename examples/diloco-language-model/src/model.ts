/**
 * The model: an n-gram language model with one hidden layer (Bengio et al. 2003), 102,784 parameters, with
 * gradients by jax-js. Any library would do: DiLoCo only sees the arena.
 */
import { ParameterArena } from "@pccl/core/diloco";
import { init, jit, nn, numpy as np, valueAndGrad } from "@jax-js/jax";
import { Random } from "./random.js";
import { type Batch, CONTEXT, VOCABULARY } from "./text.js";

export const BATCH = 512;
const EMBEDDING = 32;
const HIDDEN = 256;

// A type, not an interface: jax-js takes trees of arrays only as aliases.
type Arrays = { embedding: np.Array; w1: np.Array; b1: np.Array; w2: np.Array; b2: np.Array };

export function createParameters(seed: number): ParameterArena {
  const arena = new ParameterArena({
    embedding: [VOCABULARY, EMBEDDING],
    w1: [CONTEXT * EMBEDDING, HIDDEN],
    b1: [HIDDEN],
    w2: [HIDDEN, VOCABULARY],
    b2: [VOCABULARY],
  });
  const random = new Random(seed);
  // He et al. 2015 before the relu; small at the end, so that training starts from nearly equal probabilities.
  const scales = { embedding: 1, w1: Math.sqrt(2 / (CONTEXT * EMBEDDING)), w2: 0.1 / Math.sqrt(HIDDEN) };
  for (const [name, scale] of Object.entries(scales)) {
    const view = arena.view(name);
    for (let i = 0; i < view.length; i++) view[i] = scale * random.normal();
  }
  return arena;
}

/** [batch, VOCABULARY] from [batch × CONTEXT] one-hot rows. In jax-js every use of an array consumes it. */
function logits(p: Arrays, contexts: np.Array): np.Array {
  const embedded = np.matmul(nn.oneHot(contexts, VOCABULARY), p.embedding);
  const input = embedded.reshape([-1, CONTEXT * EMBEDDING]);
  const hidden = nn.relu(np.matmul(input, p.w1).add(p.b1));
  return np.matmul(hidden, p.w2).add(p.b2);
}

/** Mean cross-entropy in nats. */
function lossOf(p: Arrays, contexts: np.Array, targets: np.Array): np.Array {
  const logProbabilities = nn.logSoftmax(logits(p, contexts));
  const picked = logProbabilities.mul(nn.oneHot(targets, VOCABULARY)).sum();
  return picked.mul(-1 / BATCH);
}

export class LanguageModel {
  readonly #arena: ParameterArena;
  readonly #lossAndGradient = jit(valueAndGrad(lossOf));
  readonly #loss = jit(lossOf);
  readonly #logits = jit(logits);

  private constructor(arena: ParameterArena) {
    this.#arena = arena;
  }

  static async create(arena: ParameterArena): Promise<LanguageModel> {
    await init("wasm");
    return new LanguageModel(arena);
  }

  /** The loss of a batch of BATCH rows, and its gradients in the arena's order. */
  async lossAndGradient(batch: Batch): Promise<{ loss: number; gradients: Float32Array[] }> {
    const [loss, gradients] = this.#lossAndGradient(
      this.#arrays(),
      ints(batch.contexts),
      ints(batch.targets),
    );
    const read: Float32Array[] = [];
    for (const { name } of this.#arena.layout) {
      read.push(await floats(gradients[name as keyof Arrays]));
    }
    return { loss: await scalar(loss), gradients: read };
  }

  /** Mean loss of a batch of BATCH rows, nats per byte. */
  async loss(batch: Batch): Promise<number> {
    const loss = this.#loss(this.#arrays(), ints(batch.contexts), ints(batch.targets));
    return await scalar(loss);
  }

  /** `length` bytes drawn one after the other, beginning with `prompt` (at least CONTEXT ASCII characters). */
  async generate(prompt: string, length: number, temperature: number, random: Random): Promise<string> {
    const text = [...Buffer.from(prompt, "ascii")];
    while (text.length < prompt.length + length) {
      const context = ints(Int32Array.from(text.slice(-CONTEXT)));
      text.push(draw(await floats(this.#logits(this.#arrays(), context)), temperature, random));
    }
    return Buffer.from(text).toString("ascii");
  }

  #arrays(): Arrays {
    const array = (name: keyof Arrays): np.Array =>
      np.array(this.#arena.view(name)).reshape([...this.#arena.shape(name)]);
    return {
      embedding: array("embedding"),
      w1: array("w1"),
      b1: array("b1"),
      w2: array("w2"),
      b2: array("b2"),
    };
  }
}

function ints(values: Int32Array): np.Array {
  return np.array(values);
}

/** Consumes the array. Its declared type has Float16Array in it, which TypeScript's library for Node 20 lacks. */
async function floats(array: np.Array): Promise<Float32Array> {
  return (await array.data()) as Float32Array;
}

async function scalar(array: np.Array): Promise<number> {
  return (await floats(array))[0] as number;
}

function draw(scores: ArrayLike<number>, temperature: number, random: Random): number {
  const highest = Math.max(...Array.from(scores));
  const weights = Array.from(scores, (score) => Math.exp((score - highest) / temperature));
  let rest = random.next() * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [symbol, weight] of weights.entries()) {
    rest -= weight;
    if (rest < 0) return symbol;
  }
  return weights.length - 1;
}
