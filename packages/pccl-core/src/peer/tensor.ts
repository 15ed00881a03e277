/** What counts as a tensor at the public surface, and the checks every call makes before native code sees one. */
import type { DType, Tensor } from "@pccl/bindings";
import { checkInteger, checkOneOf, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";

export type { DType, Tensor };

type TensorType = abstract new (...args: never[]) => Tensor;

/** What the elements of each array type are, unless a call says otherwise. */
const DTYPES: readonly (readonly [TensorType, DType])[] = [
  [Float32Array, "f32"],
  [Float64Array, "f64"],
  [Int8Array, "i8"],
  [Uint8Array, "u8"],
  [Int16Array, "i16"],
  [Uint16Array, "u16"],
  [Int32Array, "i32"],
  [Uint32Array, "u32"],
  [BigInt64Array, "i64"],
  [BigUint64Array, "u64"],
];
/** More than any machine has, and what native code takes. */
const ALLOC_BYTES_MAX = 2 ** 46;
const TYPE_NAMES = DTYPES.map(([type]) => type.name).join(", ");

/** The array type and the DType that goes with it. */
function kindOf(tensor: Tensor): readonly [TensorType, DType] {
  const kind = DTYPES.find(([type]) => tensor instanceof type);
  if (kind === undefined) throw pcclError("ERR_PCCL_INTERNAL", `${describe(tensor)} is no tensor.`);
  return kind;
}

export function dtypeOf(tensor: Tensor): DType {
  return kindOf(tensor)[1];
}

/** `dtype`, or what the array's type says. Only a Uint16Array can hold something else: the bits of f16 or bf16. */
export function checkDType(call: string, tensor: Tensor, dtype: unknown): DType {
  const [type, own] = kindOf(tensor);
  const possible = own === "u16" ? (["u16", "f16", "bf16"] as const) : [own];
  return checkOneOf(call, `dtype of a ${type.name}`, dtype ?? own, possible);
}

const ELEMENT_BYTES: Readonly<Record<DType, number>> = {
  f32: 4,
  f64: 8,
  i8: 1,
  u8: 1,
  i16: 2,
  u16: 2,
  i32: 4,
  u32: 4,
  i64: 8,
  u64: 8,
  f16: 2,
  bf16: 2,
};

/** As checkDType; besides, a Uint8Array can hold the bytes of a whole number of elements of any type. */
export function checkRawDType(call: string, name: string, tensor: Tensor, dtype: unknown): DType {
  if (!(tensor instanceof Uint8Array) || dtype === undefined) return checkDType(call, tensor, dtype);
  const checked = checkOneOf(call, `dtype of ${name}`, dtype, Object.keys(ELEMENT_BYTES) as DType[]);
  if (tensor.byteLength % ELEMENT_BYTES[checked] !== 0) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} has ${tensor.byteLength} bytes, which is no whole number of ${checked} elements.`,
    );
  }
  return checked;
}

/** How many elements of `dtype` the array's bytes are. */
export function countOf(tensor: Tensor, dtype: DType): number {
  return tensor.byteLength / ELEMENT_BYTES[dtype];
}

/** The array that holds elements of a dtype. */
export interface ArrayOf {
  readonly f32: Float32Array<ArrayBuffer>;
  readonly f64: Float64Array<ArrayBuffer>;
  readonly i8: Int8Array<ArrayBuffer>;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i16: Int16Array<ArrayBuffer>;
  readonly u16: Uint16Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly i64: BigInt64Array<ArrayBuffer>;
  readonly u64: BigUint64Array<ArrayBuffer>;
  readonly f16: Uint16Array<ArrayBuffer>;
  readonly bf16: Uint16Array<ArrayBuffer>;
}

/** `count` elements of `dtype` in the memory that `allocate` gives. */
export function allocTensor<D extends DType>(
  count: number,
  dtype: D,
  allocate: (bytes: number) => ArrayBuffer,
): ArrayOf[D] {
  const names = [...DTYPES.map(([, name]) => name), "f16", "bf16"] as const;
  const name = checkOneOf("alloc", "dtype", dtype, names);
  const held = name === "f16" || name === "bf16" ? "u16" : name;
  const [type] = DTYPES.find(([, own]) => own === held) as (typeof DTYPES)[number];
  const Type = type as unknown as {
    new (buffer: ArrayBuffer, offset: number, length: number): ArrayOf[D];
    readonly BYTES_PER_ELEMENT: number;
  };
  const length = checkInteger("alloc", "count", count, 1, ALLOC_BYTES_MAX / Type.BYTES_PER_ELEMENT);
  return new Type(allocate(length * Type.BYTES_PER_ELEMENT), 0, length);
}

/** A tensor's memory. */
export function bytesOf({ buffer, byteOffset, byteLength }: Tensor): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/**
 * An array of integers or floating-point numbers with at least `minLength` elements in memory that stays where it is.
 * Refused: detached buffers, and resizable or WebAssembly memory, whose bytes can move under a running op.
 */
export function checkTensor(call: string, name: string, value: unknown, minLength: number): Tensor {
  if (!isTensor(value)) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be one of ${TYPE_NAMES}, got ${describe(value)}.`,
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

/** Throws if two named tensors have memory in common. */
export function refuseOverlap(
  call: string,
  [aName, a]: [string, Tensor],
  [bName, b]: [string, Tensor],
): void {
  const apart =
    a.buffer !== b.buffer ||
    a.byteOffset + a.byteLength <= b.byteOffset ||
    b.byteOffset + b.byteLength <= a.byteOffset;
  if (apart) return;
  throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${aName} and ${bName} overlap; copy one of them.`);
}

function isTensor(value: unknown): value is Tensor {
  return DTYPES.some(([type]) => value instanceof type);
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
