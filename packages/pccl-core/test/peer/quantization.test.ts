/**
 * Goal: options of quantizations are read as they are documented, and arrays that are quantized here are off by no more
 * than docs/quantization.md says. Method: the checks, and the arithmetic, on one array.
 */
import { describe, expect, it } from "vitest";
import { dequantize, type Quantize, quantize, quantizedBytes } from "@pccl/core";
import { checkAllReduce, checkReduceList } from "../../src/peer/collective-call.js";
import { checkQuantize } from "../../src/peer/quantization.js";

const FORMATS = ["u8", "i8", "i4", "fp8", "bf16", "f16"] as const;
const INVALID = "ERR_PCCL_INVALID_ARGUMENT";

describe("options of a quantization", () => {
  it("have defaults, and a short form", () => {
    expect(checkQuantize("call", "quantize", "u8")).toEqual({
      ...{
        format: "u8",
        scheme: "min-max",
        blockSize: 256,
        rounding: "nearest",
        seed: 0n,
        nonFinite: "error",
      },
    });
    const given = { format: "i4", scheme: "zero-point", blockSize: 64, nonFinite: "pass" } as const;
    const random = { rounding: "stochastic", seed: 7 } as const;
    expect(checkQuantize("call", "quantize", { ...given, ...random })).toEqual({
      ...given,
      ...random,
      seed: 7n,
    });
  });

  it.each([
    ["no format", {}, /quantize\.format must be one of/],
    ["an unknown format", "u4", /format must be one of u8, i8, i4, fp8, bf16, f16, got "u4"/],
    ["nothing", null, /must be a format or an object/],
    ["a number", 8, /must be a format or an object/],
    ["a strange key", { format: "u8", bits: 8 }, /"bits"/, "ERR_PCCL_UNKNOWN_OPTION"],
    ["a scheme of fp8", { format: "fp8", scheme: "min-max" }, /scheme is for u8, i8 and i4, not for fp8/],
    ["an unknown scheme", { format: "u8", scheme: "max" }, /scheme must be one of/],
    ["blocks of bf16", { format: "bf16", blockSize: 256 }, /blockSize is for formats with a scale/],
    ["blocks of 100", { format: "u8", blockSize: 100 }, /power of two, got 100/],
    ["blocks of 16", { format: "u8", blockSize: 16 }, /from 32 to 4096/],
    ["an unknown rounding", { format: "u8", rounding: "up" }, /rounding must be one of/],
    ["a seed without a use", { format: "u8", seed: 1 }, /seed is for stochastic rounding/],
    ["a negative seed", { format: "u8", rounding: "stochastic", seed: -1 }, /seed must be an integer/],
    ["another word for NaN", { format: "u8", nonFinite: "drop" }, /nonFinite must be one of/],
  ])("refuse %s", (_, value, message, code = INVALID) => {
    const call = (): unknown => checkQuantize("allReduce", "quantize", value);
    expect(call).toThrow(message);
    expect(call).toThrow(expect.objectContaining({ code }));
    expect(call).toThrow(/^allReduce: /);
  });

  it("go with f32 and any reduction but prod", () => {
    const f32 = new Float32Array(4);
    expect(checkAllReduce(f32, undefined, { quantize: "u8", op: "max" }).quantize).toMatchObject({
      format: "u8",
    });
    expect(checkReduceList("allReduceAll", [{ send: f32, quantize: "i4" }])[0]?.quantize?.format).toBe("i4");
    for (const tensor of [new Float64Array(4), new Int8Array(4)]) {
      expect(() => checkAllReduce(tensor, undefined, { quantize: "u8" })).toThrow(
        /only f32 can be quantized/,
      );
    }
    expect(() => checkAllReduce(new Uint16Array(4), undefined, { quantize: "u8", dtype: "bf16" })).toThrow(
      /only f32/,
    );
    expect(() => checkAllReduce(f32, undefined, { quantize: "u8", op: "prod" })).toThrow(/products can't be/);
  });
});

const wave = (count: number): Float32Array => Float32Array.from({ length: count }, (_, i) => Math.sin(i * i));

/** The greatest, of any two elements at the same place. */
function distance(a: Float32Array, b: Float32Array): number {
  return a.reduce((greatest, value, i) => Math.max(greatest, Math.abs(value - (b[i] as number))), 0);
}

describe("quantize and dequantize", () => {
  // Half a step of values from -1 to 1; for fp8, bf16 and f16 half of the last bit of 1.
  const ERROR_MAX = { u8: 1 / 255, i8: 1 / 255, i4: 1 / 15, fp8: 2 ** -4, bf16: 2 ** -8, f16: 2 ** -11 };

  it.each(FORMATS)("come back to what was, in %s", (format) => {
    for (const count of [0, 1, 255, 1_000, 10_003]) {
      const values = wave(count);
      const bytes = quantize(values, format);
      expect(bytes.length).toBe(quantizedBytes(count, format));
      const back = dequantize(bytes, new Float32Array(count), format);
      expect(distance(values, back)).toBeLessThanOrEqual(ERROR_MAX[format] * 1.001);
      if (count > 1_000) expect(distance(values, back)).toBeGreaterThan(ERROR_MAX[format] / 3);
      // What has lost its error has none to lose.
      const again = dequantize(quantize(back, format), new Float32Array(count), format);
      expect(distance(again, back)).toBeLessThan(1e-6);
    }
  });

  it("take any options of a call", () => {
    const options: Quantize = {
      format: "u8",
      scheme: "zero-point",
      blockSize: 32,
      rounding: "stochastic",
      seed: 3n,
    };
    const values = wave(1_000);
    const bytes = quantize(values, options);
    expect(quantize(values, options)).toEqual(bytes);
    expect(quantize(values, { ...options, seed: 4n })).not.toEqual(bytes);
    expect(bytes.length).toBe(quantizedBytes(1_000, options));
  });

  it("tell NaN, or pass it on", () => {
    const values = Float32Array.of(1, Number.NaN, -Infinity, 3);
    expect(() => quantize(values, "u8")).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_NON_FINITE_INPUT" }),
    );
    expect(() => quantize(Float32Array.of(65_520), "f16")).toThrow(/too large for the format/);
    for (const format of FORMATS) {
      const options = { format, nonFinite: "pass" } as const;
      const back = dequantize(quantize(values, options), new Float32Array(4), options);
      expect([...back].map((value) => (Number.isFinite(value) ? Math.round(value) : value))).toEqual([
        ...values,
      ]);
    }
  });

  it("refuse what doesn't fit", () => {
    const into = new Float32Array(4);
    const refused: [() => unknown, RegExp][] = [
      [() => quantize(new Float64Array(4) as unknown as Float32Array, "u8"), /values must be a Float32Array/],
      [
        () => dequantize(new Uint8Array(11), into, "u8"),
        /4 values take 12 bytes in this quantization, and there are 11/,
      ],
      [
        () => dequantize(new Int8Array(12) as unknown as Uint8Array, into, "u8"),
        /bytes must be a Uint8Array/,
      ],
      [() => dequantize(new Uint8Array(into.buffer, 0, 12), into, "u8"), /overlap/],
      [
        () => dequantize(new Uint8Array(12).fill(255), into, "u8"),
        /the bytes are none that this quantization gives/,
      ],
      [() => quantizedBytes(-1, "u8"), /count must be an integer/],
    ];
    for (const [call, message] of refused) {
      expect(call).toThrow(message);
      expect(call).toThrow(expect.objectContaining({ code: INVALID }));
    }
  });
});
