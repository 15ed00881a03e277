/** Nesterov SGD against values worked out by hand, and its bits against a C program of single-precision operations. */
import { describe, expect, it } from "vitest";
import { OuterOptimizer } from "../../src/diloco/outer-optimizer.js";

describe("OuterOptimizer", () => {
  it("gives the values of PyTorch's Nesterov form worked out by hand", () => {
    const optimizer = new OuterOptimizer({ learningRate: 0.7, momentum: 0.9 });
    const parameters = Float32Array.of(1, -2);
    const momentum = new Float32Array(2);

    // m = 0.5; θ = 1 − 0.7 (0.5 + 0.9·0.5) = 0.335. The other way round with twice the size.
    optimizer.step(parameters, momentum, Float32Array.of(0.5, -1));
    expect(momentum[0]).toBeCloseTo(0.5, 6);
    expect(parameters[0]).toBeCloseTo(0.335, 6);
    expect(momentum[1]).toBeCloseTo(-1, 6);
    expect(parameters[1]).toBeCloseTo(-0.67, 6);

    // m = 0.45 − 0.25 = 0.2; θ = 0.335 − 0.7 (−0.25 + 0.18) = 0.384. Then without a gradient the momentum goes on.
    optimizer.step(parameters, momentum, Float32Array.of(-0.25, 0));
    expect(momentum[0]).toBeCloseTo(0.2, 6);
    expect(parameters[0]).toBeCloseTo(0.384, 6);
    expect(momentum[1]).toBeCloseTo(-0.9, 6);
    expect(parameters[1]).toBeCloseTo(-0.67 + 0.7 * 0.81, 6);
  });

  it("adopts the peers' mean with a learning rate of 1 and no momentum", () => {
    const optimizer = new OuterOptimizer({ learningRate: 1, momentum: 0 });
    const parameters = Float32Array.of(8);
    optimizer.step(parameters, new Float32Array(1), Float32Array.of(3));
    expect(parameters[0]).toBe(5);
  });

  it("has the bits of single-precision arithmetic, operation by operation", () => {
    // The same loop in C (volatile float, -ffp-contract=off) gave the expected bits.
    let state = 1;
    const random = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return ((state >>> 8) - 2 ** 23) / 2 ** 20;
    };
    const optimizer = new OuterOptimizer();
    const parameters = Float32Array.from({ length: 64 }, random);
    const momentum = new Float32Array(64);
    for (let step = 0; step < 5; step++) {
      optimizer.step(parameters, momentum, Float32Array.from({ length: 64 }, random));
    }
    // FNV-1a over the little-endian bytes of (θ[i], m[i]).
    let hash = 2166136261;
    const bytes = new DataView(new ArrayBuffer(8));
    for (let i = 0; i < 64; i++) {
      bytes.setFloat32(0, parameters[i] as number, true);
      bytes.setFloat32(4, momentum[i] as number, true);
      for (let k = 0; k < 8; k++) hash = Math.imul(hash ^ bytes.getUint8(k), 16777619) >>> 0;
    }
    expect(hash.toString(16)).toBe("993c7336");
  });

  it.each([
    { learningRate: Number.NaN },
    { learningRate: -1 },
    { momentum: 1.5 },
    { momentum: Number.POSITIVE_INFINITY },
  ])("refuses %o", (options) => {
    expect(() => new OuterOptimizer(options)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
    );
  });

  it("refuses an option that it doesn't know", () => {
    expect(() => new OuterOptimizer({ lr: 0.7 } as object)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_UNKNOWN_OPTION" }),
    );
  });
});
