/** Goal: no wrong element of a result passes the check of a benchmark. Method: results with one known error each. */
import { describe, expect, it } from "vitest";
import { DTYPES, elementBytes, integerMax, makeTensor, Pattern, scatter } from "../../src/bench/pattern.js";
import { formatSize, parseSizes } from "../../src/bench/size.js";

/** Longer than two periods of the pattern, and of no round length. */
const COUNT = 40_009;

function patternOf(source: number, count = 1_000): Pattern {
  return new Pattern("f32", (position) => scatter(source, position, count));
}

describe("Pattern", () => {
  it.each(DTYPES)("finds what it has filled to be right, from any position on, in %s", (dtype) => {
    const pattern = new Pattern(dtype, (position) => scatter(3, position, integerMax(dtype) + 1));
    const tensor = makeTensor(dtype, COUNT);
    for (const from of [0, 1, 16_380, 16_381, 100_000]) {
      pattern.write(tensor, from);
      expect(pattern.difference(tensor, from)).toBeUndefined();
      expect(pattern.difference(tensor, from + 1)).toMatch(/^element 0 /);
    }
    expect(tensor.byteLength).toBe(COUNT * elementBytes(dtype));
  });

  it.each([0, 1, 16_380, 16_381, 30_000, COUNT - 1])("names the only wrong element, at %i", (index) => {
    const tensor = new Float32Array(COUNT);
    const pattern = patternOf(1);
    pattern.write(tensor);
    const right = tensor[index] as number;
    tensor[index] = right + 1;
    expect(pattern.difference(tensor)).toBe(
      `element ${index} of ${COUNT} is ${right + 1} instead of ${right}`,
    );
  });

  it("differs between sources, and isn't the same again after chunks and blocks of any power of two", () => {
    const tensor = new Float32Array(COUNT);
    patternOf(1).write(tensor);
    expect(patternOf(2).difference(tensor)).toBeDefined();
    for (let shift = 1; shift < 2 ** 31; shift *= 2) {
      expect(patternOf(1).difference(tensor, shift)).toBeDefined();
    }
  });

  it("writes integers as the bits of f16 and bf16", () => {
    const bits = (dtype: "f16" | "bf16", value: number): number => {
      const tensor = makeTensor(dtype, 1);
      new Pattern(dtype, () => value).write(tensor);
      return tensor[0] as number;
    };
    // Of IEEE 754 binary16: 1, 3, 2047, 2048; of bfloat16, the upper half of binary32: 1, 3, 255, 256.
    expect([0, 1, 3, 2_047, 2_048].map((value) => bits("f16", value))).toEqual([
      0, 0x3c00, 0x4200, 0x67ff, 0x6800,
    ]);
    expect([0, 1, 3, 255, 256].map((value) => bits("bf16", value))).toEqual([
      0, 0x3f80, 0x4040, 0x437f, 0x4380,
    ]);
  });
});

describe("sizes", () => {
  it("are read and written in binary units", () => {
    expect(parseSizes("--sizes", "4KiB, 16MiB,1GiB,7B")).toEqual([4_096, 16 * 2 ** 20, 2 ** 30, 7]);
    expect([7, 4_096, 5_000, 16 * 2 ** 20, 2 ** 30].map(formatSize)).toEqual([
      ...["7 B", "4 KiB", "5000 B", "16 MiB", "1 GiB"],
    ]);
  });

  it.each(["", "4", "4kb", "4KB", "-4KiB", "0B", "1.5MiB", "5GiB", "4KiB,", "4KiB;8KiB"])(
    "refuses %j",
    (text) => {
      expect(() => parseSizes("--sizes", text)).toThrow(/--sizes must be sizes like 4KiB,64MiB/);
    },
  );
});
