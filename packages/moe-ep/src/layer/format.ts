/** What the arrays of a layer hold, by its format. */
import { describe, pcclError } from "@pccl/core/base";
import type { ExpertFormat, ExpertNumbers } from "../experts/experts.js";

export function elementBytesOf({ dtype }: ExpertFormat): number {
  return dtype === "f32" ? 4 : 2;
}

export function newNumbers({ dtype }: ExpertFormat, count: number): ExpertNumbers {
  return dtype === "f32" ? new Float32Array(count) : new Uint16Array(count);
}

/** Whole rows of tokens in the layer's dtype; returns how many. */
export function checkTokens(call: string, name: string, value: unknown, format: ExpertFormat): number {
  const { dtype, hiddenSize } = format;
  const type = dtype === "f32" ? Float32Array : Uint16Array;
  if (!(value instanceof type)) {
    const held = dtype === "f32" ? "a Float32Array" : "a Uint16Array of bf16 bits";
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be ${held}, the layer's dtype, got ${describe(value)}`,
    );
  }
  if (value.length % hiddenSize !== 0) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} has ${value.length} elements, which aren't whole tokens of ${hiddenSize}`,
    );
  }
  return value.length / hiddenSize;
}
