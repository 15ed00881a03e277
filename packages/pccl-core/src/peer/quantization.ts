/** How f32 elements travel in fewer bytes: the options as users write them, and the same arithmetic on arrays. */
import type { Quantization } from "@pccl/bindings";
import { checkInteger, checkOneOf, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { addon, guard } from "./native-calls.js";
import { checkTensor, refuseOverlap } from "./tensor.js";

export type QuantizedFormat = Quantization["format"];

export interface QuantizeOptions {
  /**
   * "u8", "i8": 256 evenly spaced values per block, stored without or with a sign. "i4": 16 of them. "fp8": e4m3 times
   * a scale per block. "bf16", "f16": casts; in f16 what is greater than 65504 becomes infinite.
   */
  readonly format: QuantizedFormat;
  /**
   * Of u8, i8 and i4, default "min-max": the values go from the block's least to its greatest element. "zero-point":
   * likewise, but 0 is always in between, and comes out as exactly 0.
   */
  readonly scheme?: "min-max" | "zero-point" | undefined;
  /** Elements that share a scale, but for bf16 and f16: a power of two from 32 to 4096, default 256. */
  readonly blockSize?: number | undefined;
  /**
   * Default "nearest", ties to even. "stochastic": up or down at random, so that the mean of many roundings is the
   * element itself.
   */
  readonly rounding?: "nearest" | "stochastic" | undefined;
  /**
   * Of stochastic rounding: 0 to 2^64-1, default 0. The same seed rounds the same array alike, so that a caller takes
   * another one for each step; peers may have different ones.
   */
  readonly seed?: bigint | number | undefined;
  /**
   * Default "error": NaN and infinities in the input are refused with ERR_PCCL_NON_FINITE_INPUT, on all peers of an
   * op. "pass": they come out where f32 would give them.
   */
  readonly nonFinite?: "error" | "pass" | undefined;
}

export type Quantize = QuantizedFormat | QuantizeOptions;

export const QUANTIZED_FORMATS = ["u8", "i8", "i4", "fp8", "bf16", "f16"] as const;
const KEYS = ["format", "scheme", "blockSize", "rounding", "seed", "nonFinite"] as const;
const AFFINE: readonly QuantizedFormat[] = ["u8", "i8", "i4"];
const CASTS: readonly QuantizedFormat[] = ["bf16", "f16"];
const BLOCK_DEFAULT = 256;
const BLOCK_MIN = 32;
const BLOCK_MAX = 4096;
const SEED_MAX = 2n ** 64n - 1n;

/** `name` as in "quantize". ERR_PCCL_INVALID_ARGUMENT and ERR_PCCL_UNKNOWN_OPTION on anything else. */
export function checkQuantize(call: string, name: string, value: unknown): Quantization {
  const options = (typeof value === "string" ? { format: value } : value) as QuantizeOptions;
  if (typeof options !== "object" || options === null) {
    throw refused(call, `${name} must be a format or an object with one, got ${describe(value)}`);
  }
  checkOptions(`${call}: ${name}`, options, KEYS);
  const format = checkOneOf(call, `${name}.format`, options.format, QUANTIZED_FORMATS);
  const {
    scheme = "min-max",
    blockSize = BLOCK_DEFAULT,
    rounding = "nearest",
    nonFinite = "error",
  } = options;
  if (options.scheme !== undefined && !AFFINE.includes(format)) {
    throw refused(call, `${name}.scheme is for u8, i8 and i4, not for ${format}`);
  }
  if (options.blockSize !== undefined && CASTS.includes(format)) {
    throw refused(call, `${name}.blockSize is for formats with a scale per block, not for ${format}`);
  }
  if (options.seed !== undefined && rounding !== "stochastic") {
    throw refused(call, `${name}.seed is for stochastic rounding`);
  }
  checkInteger(call, `${name}.blockSize`, blockSize, BLOCK_MIN, BLOCK_MAX);
  if (!Number.isInteger(Math.log2(blockSize))) {
    throw refused(call, `${name}.blockSize must be a power of two, got ${blockSize}`);
  }
  return {
    format,
    scheme: checkOneOf(call, `${name}.scheme`, scheme, ["min-max", "zero-point"]),
    blockSize,
    rounding: checkOneOf(call, `${name}.rounding`, rounding, ["nearest", "stochastic"]),
    seed: checkSeed(call, name, options.seed),
    nonFinite: checkOneOf(call, `${name}.nonFinite`, nonFinite, ["error", "pass"]),
  };
}

function checkSeed(call: string, name: string, seed: unknown = 0): bigint {
  const value = typeof seed === "number" && Number.isSafeInteger(seed) ? BigInt(seed) : seed;
  if (typeof value === "bigint" && value >= 0n && value <= SEED_MAX) return value;
  throw refused(call, `${name}.seed must be an integer from 0 to 2^64-1, got ${describe(seed)}`);
}

function refused(call: string, why: string): Error {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${why}.`);
}

/** How many bytes `count` elements take. */
export function quantizedBytes(count: number, options: Quantize): number {
  const { format, blockSize } = checkQuantize("quantizedBytes", "options", options);
  checkInteger("quantizedBytes", "count", count, 0, Number.MAX_SAFE_INTEGER / 8);
  if (CASTS.includes(format)) return 2 * count;
  const headerBytes = format === "fp8" ? 4 : 8;
  const codeBytes = (elements: number): number => (format === "i4" ? Math.ceil(elements / 2) : elements);
  const rest = count % blockSize;
  const whole = Math.floor(count / blockSize) * (headerBytes + codeBytes(blockSize));
  return whole + (rest === 0 ? 0 : headerBytes + codeBytes(rest));
}

/**
 * The bytes that a quantized op sends for `values`. So what rounding costs, `values` less dequantize() of these, can be
 * known on this peer alone. ERR_PCCL_NON_FINITE_INPUT for NaN and infinities, unless nonFinite is "pass".
 */
export function quantize(values: Float32Array, options: Quantize): Uint8Array {
  const quantization = checkQuantize("quantize", "options", options);
  const tensor = checkFloats("quantize", "values", values);
  return guard("quantize", () => addon().quantize(tensor, quantization));
}

/** Writes the values of `bytes` to `into`, which is as long as what they were made of; returns it. */
export function dequantize(bytes: Uint8Array, into: Float32Array, options: Quantize): Float32Array {
  const quantization = checkQuantize("dequantize", "options", options);
  const source = checkTensor("dequantize", "bytes", bytes, 0);
  if (!(source instanceof Uint8Array)) {
    throw refused("dequantize", `bytes must be a Uint8Array, got ${describe(bytes)}`);
  }
  const target = checkFloats("dequantize", "into", into);
  refuseOverlap("dequantize", ["bytes", source], ["into", target]);
  guard("dequantize", () => addon().dequantize(source, quantization, target));
  return into;
}

function checkFloats(call: string, name: string, value: unknown): Float32Array {
  const tensor = checkTensor(call, name, value, 0);
  if (tensor instanceof Float32Array) return tensor;
  throw refused(call, `${name} must be a Float32Array, got ${describe(value)}`);
}
