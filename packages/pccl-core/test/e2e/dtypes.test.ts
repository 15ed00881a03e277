/**
 * Goal: every element type with every reduction, as users write it, gives the same right values on all peers.
 * Method: three peers in this process. Integers are compared with sums and products of bigints, cut to their size, so
 * some of them wrap around; floating-point numbers are such that all results are exact.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DType, ReduceOp, Tensor } from "@pccl/core";
import { LocalWorld } from "./local-world.js";

const PEERS = 3;
const COUNT = 10_007;
const OPS: readonly ReduceOp[] = ["sum", "avg", "max", "min", "prod"];

let world: LocalWorld;
beforeAll(async () => {
  world = await LocalWorld.start(PEERS);
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

/** Reduces in place and out of place, into a SharedArrayBuffer, and returns each peer's result of either. */
async function reduce(make: (peer: number) => Tensor, op: ReduceOp, dtype: DType): Promise<Tensor[]> {
  const sends = world.peers.map((_, peer) => make(peer));
  const recvs = sends.map(shared);
  await Promise.all(
    world.peers.map((comm, peer) => comm.allReduce(sends[peer] as Tensor, recvs[peer], { op, dtype })),
  );
  for (const [peer, send] of sends.entries()) expectSame(send, make(peer), "send");
  await Promise.all(
    world.peers.map((comm, peer) => comm.allReduce(sends[peer] as Tensor, undefined, { op, dtype })),
  );
  return [...recvs, ...sends];
}

/** One of the same type and length in shared memory. */
function shared(tensor: Tensor): Tensor {
  const type = tensor.constructor as new (buffer: SharedArrayBuffer) => Tensor;
  return new type(new SharedArrayBuffer(tensor.byteLength));
}

function bytes({ buffer, byteOffset, byteLength }: Tensor): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function expectSame(got: Tensor, want: Tensor, what: string): void {
  if (Buffer.compare(bytes(got), bytes(want)) !== 0) expect(got, what).toEqual(want);
}

describe("integers", () => {
  const types = {
    u8: Uint8Array,
    i8: Int8Array,
    u16: Uint16Array,
    i16: Int16Array,
    u32: Uint32Array,
    i32: Int32Array,
    u64: BigUint64Array,
    i64: BigInt64Array,
  } as const;

  /** Small ones of either sign, some near the limits, and a pattern that uses all bits. */
  function contribution(peer: number, i: number): bigint {
    if (i % 5 === 3) return 2n ** 63n - 1n - BigInt(peer);
    if (i % 5 === 4) return BigInt(i + 1) * 0x9e37_79b9_7f4a_7c15n * BigInt(peer + 1);
    return BigInt(((i * 7 + peer * 13) % 23) - 11);
  }

  it.each(Object.entries(types))("%s", async (name, type) => {
    const dtype = name as keyof typeof types;
    const bits = 8 * type.BYTES_PER_ELEMENT;
    const cut = (value: bigint): bigint =>
      dtype[0] === "u" ? BigInt.asUintN(bits, value) : BigInt.asIntN(bits, value);
    const tensor = (element: (i: number) => bigint): Tensor => {
      const values = new type(COUNT);
      for (let i = 0; i < COUNT; i++) {
        const value = cut(element(i));
        values[i] = (
          values instanceof BigInt64Array || values instanceof BigUint64Array ? value : Number(value)
        ) as never;
      }
      return values;
    };
    const results: Record<ReduceOp, (values: bigint[]) => bigint> = {
      sum: (values) => values.reduce((a, b) => a + b),
      avg: (values) => cut(values.reduce((a, b) => a + b)) / BigInt(PEERS),
      max: (values) => values.reduce((a, b) => (a > b ? a : b)),
      min: (values) => values.reduce((a, b) => (a < b ? a : b)),
      prod: (values) => values.reduce((a, b) => a * b),
    };
    for (const op of OPS) {
      const want = tensor((i) => results[op]([0, 1, 2].map((peer) => cut(contribution(peer, i)))));
      for (const got of await reduce((peer) => tensor((i) => contribution(peer, i)), op, dtype)) {
        expectSame(got, want, op);
      }
    }
  });
});

describe("floating point", () => {
  /** Bits of a 16-bit format for a number that it can hold, subnormal ones aside. */
  function encode(value: number, mantissaBits: number): number {
    if (value === 0) return 0;
    const exponentBits = 15 - mantissaBits;
    const exponent = Math.floor(Math.log2(Math.abs(value)));
    const mantissa = (Math.abs(value) / 2 ** exponent - 1) * 2 ** mantissaBits;
    const biased = exponent + 2 ** (exponentBits - 1) - 1;
    return (value < 0 ? 0x8000 : 0) | (biased << mantissaBits) | mantissa;
  }

  const of16 = (mantissaBits: number) => (values: number[]) =>
    Uint16Array.from(values, (value) => encode(value, mantissaBits));
  const types: [DType, (values: number[]) => Tensor][] = [
    ["f16", of16(10)],
    ["bf16", of16(7)],
    ["f32", (values) => Float32Array.from(values)],
    ["f64", (values) => Float64Array.from(values)],
  ];

  /** Multiples of 3, for the average, and few factors of their own, so that products need no more than 5 bits. */
  const contribution = (peer: number, i: number): number =>
    [-6, -3, 3, 6, 12][(i * 3 + peer * 2 + (i >> 4)) % 5] ?? 0;
  const results: Record<ReduceOp, (values: number[]) => number> = {
    sum: (values) => values.reduce((a, b) => a + b),
    avg: (values) => values.reduce((a, b) => a + b) / PEERS,
    max: (values) => Math.max(...values),
    min: (values) => Math.min(...values),
    prod: (values) => values.reduce((a, b) => a * b),
  };
  const elements = (element: (i: number) => number): number[] =>
    Array.from({ length: COUNT }, (_, i) => element(i));

  it.each(types)("%s", async (dtype, tensor) => {
    for (const op of OPS) {
      const want = tensor(elements((i) => results[op]([0, 1, 2].map((peer) => contribution(peer, i)))));
      for (const got of await reduce((peer) => tensor(elements((i) => contribution(peer, i))), op, dtype)) {
        expectSame(got, want, op);
      }
    }
  });

  it("rounds halves to even, keeps NaN, and tells zeros apart", async () => {
    const [one, half, nan, minusZero] = [0x3f80, 0x3b80, 0x7fa1, 0x8000];
    const values = (peer: number): Tensor =>
      Uint16Array.of(
        peer === 0 ? one : peer === 1 ? half : 0,
        peer === 1 ? nan : one,
        peer === 2 ? 0 : minusZero,
      );
    for (const got of await reduce(values, "sum", "bf16")) expect([...got]).toEqual([one, 0x7fc0, 0]);
    for (const got of await reduce(values, "max", "bf16")) expect([...got]).toEqual([one, 0x7fc0, 0]);
    for (const got of await reduce(values, "min", "bf16")) expect([...got]).toEqual([0, 0x7fc0, minusZero]);
  });
});
