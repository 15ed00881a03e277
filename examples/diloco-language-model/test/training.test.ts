/** The training code in this process: gradients against finite differences, the optimizer against its formula. */
import { ParameterArena } from "@pccl/core/diloco";
import { describe, expect, it } from "vitest";
import { AdamW } from "../src/adamw.js";
import { BATCH, createParameters, LanguageModel } from "../src/model.js";
import { Random } from "../src/random.js";
import { randomBatch } from "../src/text.js";

describe("LanguageModel", () => {
  it("has the gradient of its loss, and starts at the loss of knowing nothing", async () => {
    const arena = createParameters(1);
    const model = await LanguageModel.create(arena);
    const random = new Random(2);
    const text = Uint8Array.from({ length: 5_000 }, () => 32 + random.below(90));
    const batch = randomBatch(text, BATCH, random);
    const { loss, gradients } = await model.lossAndGradient(batch);
    expect(loss).toBeCloseTo(Math.log(128), 1);
    expect(await model.loss(batch)).toBeCloseTo(loss, 5);
    expect(gradients.map(({ length }) => length)).toEqual(arena.layout.map(({ length }) => length));

    for (const [index, { name }] of arena.layout.entries()) {
      const gradient = gradients[index] as Float32Array;
      // Along the gradient the loss changes by its squared length: the largest change there is to measure.
      const squared = gradient.reduce((sum, value) => sum + value * value, 0);
      const view = arena.view(name);
      const before = view.slice();
      const step = 0.02 / Math.sqrt(squared);
      const at = async (sign: number): Promise<number> => {
        for (let i = 0; i < view.length; i++) {
          view[i] = (before[i] as number) + sign * step * (gradient[i] as number);
        }
        return await model.loss(batch);
      };
      const slope = ((await at(1)) - (await at(-1))) / (2 * step);
      view.set(before);
      expect(slope / squared).toBeCloseTo(1, 1);
    }
  });

  it("writes ASCII on from a prompt, the same with the same seed", async () => {
    const model = await LanguageModel.create(createParameters(1));
    const sample = await model.generate("The ring ", 20, 0.7, new Random(3));
    expect(sample).toHaveLength(29);
    expect(sample.startsWith("The ring ")).toBe(true);
    expect(await model.generate("The ring ", 20, 0.7, new Random(3))).toBe(sample);
  });
});

describe("AdamW", () => {
  it("makes the first two steps that the formula gives", () => {
    const arena = new ParameterArena({ matrix: [1, 1], bias: [1] });
    arena.data.set([2, 2]);
    const optimizer = new AdamW(arena);
    optimizer.step([Float32Array.of(4), Float32Array.of(4)]);
    // Corrected first step: m̂ = g, v̂ = g², so rate · 1; rate = 0.01 / 20. The matrix decays by 1 − rate · 0.1 first.
    expect(arena.view("bias")[0]).toBeCloseTo(2 - 0.0005, 6);
    expect(arena.view("matrix")[0]).toBeCloseTo(2 * (1 - 0.00005) - 0.0005, 6);
    optimizer.step([Float32Array.of(0), Float32Array.of(0)]);
    // m̂ = 0.9 · 0.4 / (1 − 0.81), v̂ = 0.99 · 0.16 / (1 − 0.9801); rate = 0.001.
    const second = (0.001 * ((0.9 * 0.4) / 0.19)) / Math.sqrt((0.99 * 0.16) / 0.0199);
    expect(arena.view("bias")[0]).toBeCloseTo(2 - 0.0005 - second, 6);
  });
});
