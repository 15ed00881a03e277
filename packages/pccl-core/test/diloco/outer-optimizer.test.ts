/**
 * Goal: each update rule is its formula. Method: many steps on random numbers, against the formula in double precision
 * with an error that single precision allows, and Nesterov's bits against a C program of single-precision operations.
 */
import { describe, expect, it } from "vitest";
import { createOuterOptimizer, type OuterOptions } from "../../src/diloco/outer-optimizer.js";
import { elementwise, difference, digestOf } from "../../src/diloco/kernels.js";

/** Linear congruential, so that a C program can make the same numbers. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 8) - 2 ** 23) / 2 ** 20;
  };
}

type Rule = (g: number, t: number, at: { theta: number; m: number; v: number }) => void;

const golden: readonly [string, OuterOptions, Rule][] = [
  [
    "sgd",
    { kind: "sgd", learningRate: 0.25 },
    (g, _t, at) => {
      at.theta -= 0.25 * g;
    },
  ],
  [
    "nesterov",
    { kind: "nesterov", learningRate: 0.7, momentum: 0.9 },
    (g, _t, at) => {
      at.m = 0.9 * at.m + g;
      at.theta -= 0.7 * (g + 0.9 * at.m);
    },
  ],
  [
    "adam",
    { kind: "adam", learningRate: 0.3, beta1: 0.9, beta2: 0.95, epsilon: 0.1 },
    (g, t, at) => {
      at.m = 0.9 * at.m + 0.1 * g;
      at.v = 0.95 * at.v + 0.05 * g * g;
      at.theta -= (0.3 * (at.m / (1 - 0.9 ** t))) / (Math.sqrt(at.v / (1 - 0.95 ** t)) + 0.1);
    },
  ],
];

describe("outer optimizers", () => {
  // An odd length, so that vectors and the rest behind them are both gone through.
  const length = 1003;
  it.each(golden)("%s follows its formula in double precision", async (_name, options, rule) => {
    const optimizer = createOuterOptimizer(options);
    const random = numbers(7);
    const parameters = Float32Array.from({ length }, random);
    const slots = optimizer.slots.map(() => new Float32Array(length));
    const exact = Array.from(parameters, (theta) => ({ theta, m: 0, v: 0 }));
    for (let t = 1; t <= 20; t++) {
      const gradient = Float32Array.from({ length }, random);
      await optimizer.step(gradient, 0.5, t, { parameters, slots }, { parameters, slots });
      for (const [i, at] of exact.entries()) rule(0.5 * (gradient[i] as number), t, at);
    }
    let worst = 0;
    for (const [i, { theta }] of exact.entries()) {
      worst = Math.max(worst, Math.abs(theta - (parameters[i] as number)) / (1 + Math.abs(theta)));
    }
    expect(worst).toBeLessThan(1e-5);
    expect(worst).toBeGreaterThan(0);
  });

  it("leaves its own arrays alone when it writes elsewhere", async () => {
    const optimizer = createOuterOptimizer();
    const from = { parameters: Float32Array.of(1, -2), slots: [Float32Array.of(0.5, 1)] };
    const into = { parameters: new Float32Array(2), slots: [new Float32Array(2)] };
    await optimizer.step(Float32Array.of(0.5, -1), 1, 1, from, into);
    expect([...from.parameters, ...(from.slots[0] ?? [])]).toEqual([1, -2, 0.5, 1]);
    // m = 0.9 · 0.5 + 0.5 = 0.95; θ = 1 − 0.7 (0.5 + 0.9 · 0.95).
    expect(into.slots[0]?.[0]).toBeCloseTo(0.95, 6);
    expect(into.parameters[0]).toBeCloseTo(1 - 0.7 * (0.5 + 0.9 * 0.95), 6);
  });

  it("has the bits of single-precision arithmetic, operation by operation", async () => {
    // The same loop in C (volatile float, -ffp-contract=off) gave the expected bits.
    const random = numbers(1);
    const optimizer = createOuterOptimizer();
    const parameters = Float32Array.from({ length: 64 }, random);
    const slots = [new Float32Array(64)];
    for (let step = 0; step < 5; step++) {
      const gradient = Float32Array.from({ length: 64 }, random);
      await optimizer.step(gradient, 1, step + 1, { parameters, slots }, { parameters, slots });
    }
    // FNV-1a over the little-endian bytes of (θ[i], m[i]).
    let hash = 2166136261;
    const bytes = new DataView(new ArrayBuffer(8));
    for (let i = 0; i < 64; i++) {
      bytes.setFloat32(0, parameters[i] as number, true);
      bytes.setFloat32(4, slots[0]?.[i] as number, true);
      for (let k = 0; k < 8; k++) hash = Math.imul(hash ^ bytes.getUint8(k), 16777619) >>> 0;
    }
    expect(hash.toString(16)).toBe("993c7336");
  });

  it.each([
    { kind: "nesterov", learningRate: Number.NaN },
    { kind: "nesterov", learningRate: -1 },
    { kind: "nesterov", momentum: 1.5 },
    { kind: "adam", beta2: Number.POSITIVE_INFINITY },
  ] as const)("refuses %o", (options) => {
    expect(() => createOuterOptimizer(options)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
    );
  });
});

describe("kernels", () => {
  const length = 517;
  const random = numbers(3);
  const arrays = (): [Float32Array, Float32Array, Float32Array] => [
    Float32Array.from({ length }, random),
    Float32Array.from({ length }, random),
    Float32Array.from({ length }, random),
  ];

  it("difference gives the difference and the sum of its squares", async () => {
    const [a, b, into] = arrays();
    const sum = await difference(a, b, into);
    expect([...into]).toEqual([...a.map((value, i) => Math.fround(value - (b[i] as number)))]);
    expect(sum).toBeCloseTo(
      into.reduce((total, value) => total + value * value, 0),
      8,
    );
    a[500] = Number.NaN;
    expect(await difference(a, b, into)).toBeNaN();
    a[500] = Number.POSITIVE_INFINITY;
    expect(Number.isFinite(await difference(a, b, into))).toBe(false);
  });

  it("scale, addScaled, mix and carry round each operation once", async () => {
    const { fround } = Math;
    const [a, b, c] = arrays();
    const scaled = a.slice();
    await elementwise("scale", [scaled], [0.3]);
    expect([...scaled]).toEqual([...a.map((x) => fround(fround(0.3) * x))]);
    const added = b.slice();
    await elementwise("addScaled", [a, added], [0.3]);
    expect([...added]).toEqual([...b.map((y, i) => fround(y + fround(fround(0.3) * (a[i] as number))))]);
    const mixed = b.slice();
    await elementwise("mix", [a, mixed], [0.25, 0.75]);
    expect([...mixed]).toEqual([
      ...b.map((y, i) => fround(fround(0.25 * y) + fround(0.75 * (a[i] as number)))),
    ]);
    const [start, local] = [b.slice(), c.slice()];
    await elementwise("carry", [a, start, local]);
    expect([...local]).toEqual([...c.map((x, i) => fround((a[i] as number) + fround(x - (b[i] as number))))]);
    expect([...start]).toEqual([...a]);
  });

  it("refuse what doesn't fit, before anything changes", async () => {
    const [a, b] = arrays();
    const invalid: unknown = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });
    await expect(elementwise("copy", [a, b.subarray(1)])).rejects.toThrow(invalid);
    await expect(elementwise("copy", [a])).rejects.toThrow(invalid);
    await expect(elementwise("scale", [a])).rejects.toThrow(invalid);
    await expect(elementwise("nothing" as never, [a])).rejects.toThrow(invalid);
  });

  it("digest tells one bit's difference", async () => {
    const [a] = arrays();
    const before = await digestOf([a, a.subarray(3)]);
    expect(before).toHaveLength(32);
    a[2] = (a[2] as number) + 1;
    const after = await digestOf([a, a.subarray(3)]);
    expect(after.subarray(0, 16)).not.toEqual(before.subarray(0, 16));
    expect(after.subarray(16)).toEqual(before.subarray(16));
  });
});
