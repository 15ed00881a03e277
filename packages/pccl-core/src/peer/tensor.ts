/** What counts as a tensor at the public surface, and the checks every call makes before native code sees one. */
import type { DType, Tensor } from "@pccl/bindings";
import { describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";

export type { DType, Tensor };

export function dtypeOf(tensor: Tensor): DType {
  if (tensor instanceof Float32Array) return "f32";
  return tensor instanceof Float64Array ? "f64" : "i32";
}

/**
 * A Float32Array, Float64Array or Int32Array with at least `minLength` elements in memory that stays where it is.
 * Refused: detached buffers, and resizable or WebAssembly memory, whose bytes can move under a running op.
 */
export function checkTensor(call: string, name: string, value: unknown, minLength: number): Tensor {
  const isTensor =
    value instanceof Float32Array || value instanceof Float64Array || value instanceof Int32Array;
  if (!isTensor) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be a Float32Array, Float64Array or Int32Array, got ${describe(value)}.`,
    );
  }
  const buffer = value.buffer as ArrayBufferLike & { resizable?: boolean; growable?: boolean };
  if (buffer.resizable === true || buffer.growable === true) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} lies in a resizable buffer, which may move; copy it into a plain array.`,
    );
  }
  if (isDetached(value)) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} has been detached (its buffer was transferred away).`,
    );
  }
  if (value.length < minLength) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must have at least ${minLength} element${minLength === 1 ? "" : "s"}, got ${value.length}.`,
    );
  }
  return value;
}

/** Node 20 has no `buffer.detached`; only a detached buffer refuses to be viewed. */
function isDetached(tensor: Tensor): boolean {
  if (tensor.buffer.byteLength > 0 || tensor.buffer instanceof SharedArrayBuffer) return false;
  try {
    new Uint8Array(tensor.buffer);
    return false;
  } catch {
    return true;
  }
}
