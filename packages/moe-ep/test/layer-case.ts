/** A small layer with random weights and tokens for tests: the whole of it, and any rank's part. */
import type { ExpertFormat, ExpertNumbers, ExpertTensors, Routing } from "@pccl/moe-ep";
import { randomFloats } from "./random-floats.js";

export interface LayerCase {
  readonly format: ExpertFormat;
  readonly experts: number;
  readonly tokens: number;
  readonly x: ExpertNumbers;
  readonly outputGradient: ExpertNumbers;
  readonly tensors: (expert: number) => ExpertTensors;
}

export interface Part {
  readonly x: ExpertNumbers;
  readonly outputGradient: ExpertNumbers;
  readonly routing: Routing;
}

export function layerCase(format: ExpertFormat, experts: number, tokens: number): LayerCase {
  const { dtype, kind, hiddenSize, ffnSize } = format;
  const product = hiddenSize * ffnSize;
  const sizes: Record<string, number> =
    kind === "swiglu"
      ? { gate: product, up: product, down: product }
      : { gateUp: 2 * product, gateUpBias: 2 * ffnSize, down: product, downBias: hiddenSize };
  const numbers = (count: number, seed: number, scale: number): ExpertNumbers => {
    const floats = randomFloats(count, seed, scale);
    return dtype === "f32" ? floats : Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
  };
  return {
    format,
    experts,
    tokens,
    x: numbers(tokens * hiddenSize, 1, 1),
    outputGradient: numbers(tokens * hiddenSize, 2, 1),
    tensors: (expert) =>
      Object.fromEntries(
        Object.entries(sizes).map(([name, size], i) => [
          name,
          numbers(size, 100 * (expert + 1) + i, 1.5 / Math.sqrt(hiddenSize)),
        ]),
      ),
  };
}

/** Ranks have different numbers of tokens: rank r's share is as r + 1. */
export function partOf(layer: LayerCase, routing: Routing, rank: number, ranks: number): Part {
  const shares = (ranks * (ranks + 1)) / 2;
  const first = (before: number): number =>
    Math.floor((layer.tokens * ((before * (before + 1)) / 2)) / shares);
  const [begin, end] = [first(rank), first(rank + 1)];
  const [firstSlot, endSlot] = [routing.firstSlot[begin] as number, routing.firstSlot[end] as number];
  const width = layer.format.hiddenSize;
  return {
    x: layer.x.slice(begin * width, end * width),
    outputGradient: layer.outputGradient.slice(begin * width, end * width),
    routing: {
      firstSlot: routing.firstSlot.slice(begin, end + 1).map((slot) => slot - firstSlot),
      experts: routing.experts.slice(firstSlot, endSlot),
      gates: routing.gates.slice(firstSlot, endSlot),
    },
  };
}

export function joined(parts: readonly ExpertNumbers[]): Buffer {
  return Buffer.concat(
    parts.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength)),
  );
}
