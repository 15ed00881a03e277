/** Goal: memory from `allocate` is what a tensor needs, and comes back. */
import { loadAddon } from "@pccl/bindings";
import { expect, it } from "vitest";

const MIB = 2 ** 20;

it.each([1, 4_096, 100_000, 2 * MIB, 5 * MIB + 12])("gives %i zeroed bytes", (bytes) => {
  const buffer = loadAddon().allocate(bytes);
  expect(buffer).toBeInstanceOf(ArrayBuffer);
  expect(buffer.byteLength).toBe(bytes);
  const array = new Uint8Array(buffer);
  expect(array.every((value) => value === 0)).toBe(true);
  array.fill(7);
  expect(array.every((value) => value === 7)).toBe(true);
});

it.each([0, -1, 1.5, "8", undefined])("refuses %s bytes", (bytes) => {
  expect(() => loadAddon().allocate(bytes as number)).toThrow(
    expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
  );
});

it("says so when the system has none left", () => {
  expect(() => loadAddon().allocate(2 ** 46)).toThrow(
    expect.objectContaining({ code: "ERR_PCCL_OUT_OF_MEMORY" }),
  );
});
