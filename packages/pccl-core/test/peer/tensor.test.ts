/** Goal: alloc gives the array that a dtype needs, and refuses what is no count or dtype. */
import { describe, expect, it } from "vitest";
import { allocTensor, type DType } from "../../src/peer/tensor.js";

const allocate = (bytes: number): ArrayBuffer => new ArrayBuffer(bytes);

describe("allocTensor", () => {
  it.each([
    ["f32", Float32Array],
    ["f64", Float64Array],
    ["i8", Int8Array],
    ["u8", Uint8Array],
    ["i16", Int16Array],
    ["u16", Uint16Array],
    ["i32", Int32Array],
    ["u32", Uint32Array],
    ["i64", BigInt64Array],
    ["u64", BigUint64Array],
    ["f16", Uint16Array],
    ["bf16", Uint16Array],
  ] as const)("gives an array for %s", (dtype, type) => {
    const tensor = allocTensor(3, dtype, allocate);
    expect(tensor).toBeInstanceOf(type);
    expect([tensor.length, tensor.byteLength]).toEqual([3, 3 * type.BYTES_PER_ELEMENT]);
  });

  it.each([0, -1, 0.5, Number.NaN, 2 ** 45, "3"])("refuses %s elements", (count) => {
    expect(() => allocTensor(count as number, "f32", allocate)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
    );
  });

  it("refuses what is no dtype", () => {
    expect(() => allocTensor(3, "f8" as DType, allocate)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
    );
  });
});
