/**
 * Test data in which no wrong result can hide: every element follows from its source and its position, and sums of it
 * are exact in their dtype. It repeats after a prime number of elements, so that no offset of a whole number of chunks
 * or blocks is a period, and so that filling and checking run at the speed of memory.
 */
import { bytesOf, type DType, type Tensor } from "../peer/tensor.js";

const PERIOD = 16_381;

type TensorType = new (length: number) => Tensor;

const TYPES: Readonly<Record<DType, TensorType>> = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  f32: Float32Array,
  f64: Float64Array,
};

/** Up to these every integer is a value of the dtype; no larger than 2^24, so that indices mix well. */
const INTEGER_MAX: Readonly<Record<DType, number>> = {
  u8: 2 ** 8 - 1,
  i8: 2 ** 7 - 1,
  u16: 2 ** 16 - 1,
  i16: 2 ** 15 - 1,
  u32: 2 ** 24,
  i32: 2 ** 24,
  u64: 2 ** 24,
  i64: 2 ** 24,
  f16: 2 ** 11,
  bf16: 2 ** 8,
  f32: 2 ** 24,
  f64: 2 ** 24,
};

export const DTYPES: readonly DType[] = Object.keys(TYPES) as DType[];

export function integerMax(dtype: DType): number {
  return INTEGER_MAX[dtype];
}

export function elementBytes(dtype: DType): number {
  return new TYPES[dtype](1).byteLength;
}

export function makeTensor(dtype: DType, length: number): Tensor {
  return new TYPES[dtype](length);
}

/** An integer from 0 to `count` - 1 that depends on all bits of `source` and `position`. */
export function scatter(source: number, position: number, count: number): number {
  // The finalizer of MurmurHash3 (Austin Appleby, public domain).
  let bits = Math.imul(source + 1, 0x9e3779b1) ^ Math.imul(position + 1, 0x85ebca77);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return ((bits ^ (bits >>> 16)) >>> 0) % count;
}

const SCRATCH = new Float32Array(1);
const SCRATCH_BITS = new Uint32Array(SCRATCH.buffer);

/** An integer that the dtype has, as an element of its typed array. */
function encode(dtype: DType, value: number): number | bigint {
  if (dtype === "u64" || dtype === "i64") return BigInt(value);
  if (dtype !== "f16" && dtype !== "bf16") return value;
  SCRATCH[0] = value;
  const bits = SCRATCH_BITS[0] as number;
  if (dtype === "bf16" || value === 0) return bits >>> 16;
  // The exponent's bias is 15 instead of 127, and the significand has 10 of the 23 bits.
  return (bits >>> 13) - ((127 - 15) << 10);
}

/** Elements that repeat: element i of what is filled or checked is `valueAt(i % PERIOD)`. */
export class Pattern {
  readonly #period: Tensor;
  readonly #bytes: Uint8Array;

  /** `valueAt` gives integers up to integerMax(dtype). */
  constructor(dtype: DType, valueAt: (position: number) => number) {
    this.#period = makeTensor(dtype, PERIOD);
    for (let i = 0; i < PERIOD; i++) this.#period[i] = encode(dtype, valueAt(i)) as never;
    this.#bytes = bytesOf(this.#period);
  }

  /** Writes the elements from position `from` on. */
  write(target: Tensor, from = 0): void {
    const bytes = bytesOf(target);
    for (const { begin, part } of this.#parts(bytes.length, from * target.BYTES_PER_ELEMENT)) {
      bytes.set(part, begin);
    }
  }

  /** The first element that isn't what it has to be, in words; undefined if there is none. */
  difference(actual: Tensor, from = 0): string | undefined {
    const bytes = bytesOf(actual);
    for (const { begin, part } of this.#parts(bytes.length, from * actual.BYTES_PER_ELEMENT)) {
      if (Buffer.compare(part, bytes.subarray(begin, begin + part.length)) === 0) continue;
      const index = begin / actual.BYTES_PER_ELEMENT + firstDifference(part, bytes.subarray(begin), actual);
      const expected = this.#period[(from + index) % PERIOD];
      return `element ${index} of ${actual.length} is ${actual[index]} instead of ${expected}`;
    }
    return undefined;
  }

  /** The first element that is further than `errorMax` from what it has to be, or no number; for f32 and f64. */
  distance(actual: Float32Array | Float64Array, errorMax: number, from = 0): string | undefined {
    const expected = this.#period as Float32Array | Float64Array;
    const index = actual.findIndex((value, i) => {
      const wanted = expected[(from + i) % PERIOD] as number;
      return !(Math.abs(value - wanted) <= errorMax);
    });
    if (index === -1) return undefined;
    const wanted = expected[(from + index) % PERIOD];
    return `element ${index} of ${actual.length} is ${actual[index]}, further than ${errorMax} from ${wanted}`;
  }

  /** The pieces of the period that make up `length` bytes from byte `from` on, and where each begins. */
  *#parts(length: number, from: number): Generator<{ begin: number; part: Uint8Array }> {
    let offset = from % this.#bytes.length;
    for (let begin = 0; begin < length; ) {
      const part = this.#bytes.subarray(offset, offset + length - begin);
      yield { begin, part };
      begin += part.length;
      offset = 0;
    }
  }
}

/** In elements of `tensor`'s size. */
function firstDifference(expected: Uint8Array, actual: Uint8Array, { BYTES_PER_ELEMENT }: Tensor): number {
  return Math.floor(expected.findIndex((byte, i) => byte !== actual[i]) / BYTES_PER_ELEMENT);
}
