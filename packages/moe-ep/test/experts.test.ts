/**
 * Experts through the addon: whole layers against the golden ones with every gradient, bf16 against f32 with the same
 * weights, the bits of a token in other batches, and what happens around a call.
 */
import { Worker } from "node:worker_threads";
import {
  type ExpertFormat,
  ExpertWeights,
  expertBackward,
  expertForward,
  routerLogits,
  routerLogitsGradient,
} from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";
import { type GoldenLayer, readGoldenLayer, worstDifference } from "../dist/verify/golden-layer.js";
import { randomFloats } from "./random-floats.js";
import { goldenFiles, goldenPath, hasGolden, WHY_SKIPPED } from "./shared.js";

type Gradients = Record<string, Float32Array>;

/** An expert's pass over all rows of x. */
async function pass(
  weights: ExpertWeights,
  x: Float32Array,
  yGradientOf: (y: Float32Array) => Float32Array,
): Promise<{ y: Float32Array; xGradient: Float32Array; gradients: Gradients }> {
  const { hiddenSize, ffnSize } = weights.format;
  const tokens = x.length / hiddenSize;
  const y = new Float32Array(x.length);
  const preactivations = new Float32Array(tokens * 2 * ffnSize);
  await expertForward({ experts: [{ weights, tokens }], x, y, preactivations });
  const xGradient = new Float32Array(x.length);
  const gradients = weights.zeroGradients();
  const yGradient = yGradientOf(y);
  const experts = [{ weights, tokens, firstPosition: 0, gradients }];
  await expertBackward({ experts, x, preactivations, yGradient, xGradient });
  return { y, xGradient, gradients };
}

const row = (matrix: Float32Array, index: number, width: number): Float32Array =>
  matrix.subarray(index * width, (index + 1) * width);

/** into += factor · from */
function addScaled(into: Float32Array, factor: number, from: Float32Array): void {
  for (let i = 0; i < into.length; i++) into[i] = (into[i] as number) + factor * (from[i] as number);
}

const dot = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);

/** A layer in one process: dispatch by expert, all experts in one call, results added in slot order. */
async function runLayer(layer: GoldenLayer): Promise<Record<string, Float32Array>> {
  const { f32, format, router, metadata, isDeepSeek } = layer;
  const width = format.hiddenSize;
  const [x, dout, routerWeight] = [f32("x"), f32("dout"), f32("router_weight")];
  const bias = metadata.kind === "gpt_oss" ? f32("router_bias") : undefined;
  const logits = routerLogits(x, routerWeight, router.experts, bias);
  const routing = router.route(logits);
  const slots = Array.from(routing.experts.keys());
  const tokenOf = slots.map((slot) => routing.firstSlot.findLastIndex((first) => first <= slot));
  const order = slots.toSorted(
    (a, b) => (routing.experts[a] as number) - (routing.experts[b] as number) || a - b,
  );

  const copies = new Float32Array(order.length * width);
  for (const [i, slot] of order.entries()) copies.set(row(x, tokenOf[slot] as number, width), i * width);
  const counts = router.count(routing);
  const experts = await Promise.all(
    Array.from(counts, async (tokens, index) => {
      const weights = await ExpertWeights.pack(format, { tensors: layer.expert(index), training: true });
      return { weights, tokens, firstPosition: 0, gradients: weights.zeroGradients() };
    }),
  );
  const y = new Float32Array(copies.length);
  const preactivations = new Float32Array(order.length * 2 * format.ffnSize);
  const lists = experts.map(({ weights, tokens }) => ({ weights, tokens }));
  await expertForward({ experts: lists, x: copies, y, preactivations });

  const placeOf = new Map(order.map((slot, i) => [slot, i]));
  const result = (slot: number): Float32Array => row(y, placeOf.get(slot) as number, width);
  const routedOut = new Float32Array(x.length);
  for (const slot of slots) {
    addScaled(row(routedOut, tokenOf[slot] as number, width), routing.gates[slot] as number, result(slot));
  }

  const yGradient = new Float32Array(copies.length);
  const gateGradients = new Float32Array(slots.length);
  for (const [i, slot] of order.entries()) {
    const outGradient = row(dout, tokenOf[slot] as number, width);
    addScaled(row(yGradient, i, width), routing.gates[slot] as number, outGradient);
    gateGradients[slot] = dot(outGradient, result(slot));
  }
  const copyGradients = new Float32Array(copies.length);
  await expertBackward({ experts, x: copies, preactivations, yGradient, xGradient: copyGradients });
  const xGradientOfExperts = new Float32Array(x.length);
  for (const slot of slots) {
    addScaled(
      row(xGradientOfExperts, tokenOf[slot] as number, width),
      1,
      row(copyGradients, placeOf.get(slot) as number, width),
    );
  }

  const logitGradients = router.gradient(logits, routing, gateGradients);
  const throughRouter = routerLogitsGradient(x, routerWeight, router.experts, logitGradients);
  const xGradient = xGradientOfExperts.slice();
  addScaled(xGradient, 1, throughRouter.x);
  const out = routedOut.slice();
  const results: Record<string, Float32Array> = {
    routed_out: routedOut,
    out,
    grad_topk_weight: gateGradients,
    grad_x_experts: xGradientOfExperts,
    grad_x: xGradient,
    grad_router_weight: throughRouter.weight,
  };
  if (bias !== undefined) results.grad_router_bias = throughRouter.bias;
  if (isDeepSeek) {
    const tensors = layer.sharedExpert();
    const sharedFormat = { ...format, ffnSize: (tensors.gate as Float32Array).length / width };
    const weights = await ExpertWeights.pack(sharedFormat, { tensors, training: true });
    const shared = await pass(weights, x, () => dout);
    addScaled(out, 1, shared.y);
    addScaled(xGradient, 1, shared.xGradient);
    for (const [name, gradient] of Object.entries(shared.gradients)) {
      results[`grad_shared_${name}_proj`] = gradient;
    }
  }
  for (const [index, { gradients }] of experts.entries()) {
    for (const [name, gradient] of Object.entries(gradients)) results[`${index} ${name}`] = gradient;
  }
  return results;
}

describe.skipIf(!hasGolden)(`golden layers (${WHY_SKIPPED})`, () => {
  it.each(goldenFiles("moe", ".safetensors"))("%s, forward and every gradient", async (file) => {
    const layer = readGoldenLayer(goldenPath(`moe/${file}`));
    const results = await runLayer(layer);
    const names = { gate: "gate_proj", up: "up_proj", down: "down_proj", gateUp: "gate_up_proj" };
    const biases = { gateUpBias: "gate_up_proj_bias", downBias: "down_proj_bias" };
    let compared = 0;
    for (const [key, actual] of Object.entries(results)) {
      const [index, ours] = key.split(" ");
      const name = ours === undefined ? key : `grad_${{ ...names, ...biases }[ours]}`;
      const expected =
        ours === undefined ? layer.f32(key) : (layer.expert(Number(index), "grad_")[ours] as Float32Array);
      expect(worstDifference(actual, expected), key).toBeLessThanOrEqual(layer.allowed(name));
      compared += 1;
    }
    const perExpert = layer.format.kind === "gpt-oss" ? 4 : 3;
    expect(compared).toBeGreaterThanOrEqual(6 + perExpert * layer.router.experts);
  });
});

const toBf16 = (numbers: Float32Array): Uint16Array =>
  new Uint16Array(new Uint32Array(numbers.slice().buffer).map((bits) => bits >>> 16));
const fromBf16 = (bits: Uint16Array): Float32Array =>
  new Float32Array(Uint32Array.from(bits, (value) => value << 16).buffer);
const cut = (numbers: Float32Array): Float32Array => fromBf16(toBf16(numbers));

/** Random tensors that bf16 can hold. */
function randomTensors(format: ExpertFormat, seed: number): Record<string, Float32Array> {
  const { kind, hiddenSize, ffnSize } = format;
  const product = hiddenSize * ffnSize;
  const sizes: Record<string, number> =
    kind === "swiglu"
      ? { gate: product, up: product, down: product }
      : { gateUp: 2 * product, gateUpBias: 2 * ffnSize, down: product, downBias: hiddenSize };
  return Object.fromEntries(
    Object.entries(sizes).map(([name, size], i) => [
      name,
      cut(randomFloats(size, seed + i, 2 / Math.sqrt(hiddenSize))),
    ]),
  );
}

describe.each(["swiglu", "gpt-oss"] as const)("%s", (kind) => {
  const format = { kind, dtype: "f32", hiddenSize: 40, ffnSize: 50 } as const;
  const tokens = 30;
  const x = cut(randomFloats(tokens * format.hiddenSize, 1));
  const dy = cut(randomFloats(tokens * format.hiddenSize, 2));

  it("in bf16 is near f32", async () => {
    const tensors = randomTensors(format, 3);
    const weights = await ExpertWeights.pack(format, { tensors, training: true });
    const wide = await pass(weights, x, () => dy);
    const halves = await ExpertWeights.pack(
      { ...format, dtype: "bf16" },
      {
        tensors: Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, toBf16(tensor)])),
        training: true,
      },
    );
    const [y, xGradient] = [new Uint16Array(x.length), new Uint16Array(x.length)];
    const preactivations = new Uint16Array(tokens * 2 * format.ffnSize);
    const gradients = halves.zeroGradients();
    const all = { x: toBf16(x), preactivations };
    await expertForward({ ...all, experts: [{ weights: halves, tokens }], y });
    const experts = [{ weights: halves, tokens, firstPosition: 0, gradients }];
    await expertBackward({ ...all, experts, yGradient: toBf16(dy), xGradient });
    const largest = (numbers: Float32Array): number => numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const expectNear = (actual: Float32Array, expected: Float32Array): void =>
      expect(worstDifference(actual, expected)).toBeLessThanOrEqual(0.02 * largest(expected));
    expectNear(fromBf16(y), wide.y);
    expectNear(fromBf16(xGradient), wide.xGradient);
    for (const [name, gradient] of Object.entries(gradients)) {
      expectNear(gradient, wide.gradients[name] as Float32Array);
    }
  });

  it("gives a token the same bits in any list", async () => {
    const weights = await ExpertWeights.pack(format, { tensors: randomTensors(format, 4) });
    const other = await ExpertWeights.pack(format, { tensors: randomTensors(format, 5) });
    const y = new Float32Array(x.length);
    await expertForward({ experts: [{ weights, tokens }], x, y });
    const split = new Float32Array(x.length);
    const experts = [
      { weights, tokens: 7 },
      { weights: other, tokens: 5 },
      { weights, tokens: 0 },
      { weights, tokens: tokens - 12 },
    ];
    await expertForward({ experts, x, y: split });
    const width = format.hiddenSize;
    expect(split.subarray(0, 7 * width)).toEqual(y.subarray(0, 7 * width));
    expect(split.subarray(12 * width)).toEqual(y.subarray(12 * width));
    expect(split.subarray(7 * width, 12 * width)).not.toEqual(y.subarray(7 * width, 12 * width));
  });

  it("adds lists of one expert to the same gradients", async () => {
    const weights = await ExpertWeights.pack(format, { tensors: randomTensors(format, 6), training: true });
    const { gradients: expected, xGradient: expectedX } = await pass(weights, x, () => dy);
    const preactivations = new Float32Array(tokens * 2 * format.ffnSize);
    const y = new Float32Array(x.length);
    await expertForward({ experts: [{ weights, tokens }], x, y, preactivations });
    const gradients = weights.zeroGradients();
    const xGradient = new Float32Array(x.length);
    // The second begins a block of positions, as the first would have if it had gone on to 512.
    const experts = [
      { weights, tokens: 10, firstPosition: 0, gradients },
      { weights, tokens: tokens - 10, firstPosition: 512, gradients },
    ];
    await expertBackward({ experts, x, preactivations, yGradient: dy, xGradient });
    expect(xGradient).toEqual(expectedX);
    for (const [name, gradient] of Object.entries(gradients)) {
      expect(worstDifference(gradient, expected[name] as Float32Array), name).toBeLessThanOrEqual(1e-4);
    }
  });
});

describe("packed weights", () => {
  it("say what memory they take", async () => {
    const format = { kind: "swiglu", dtype: "bf16", hiddenSize: 64, ffnSize: 96 } as const;
    const plain = 3 * 64 * 96 * 2;
    expect(ExpertWeights.packedBytes(format)).toEqual({ inference: plain, training: 2 * plain });
    const zeros = new Uint16Array(64 * 96);
    const tensors = { gate: zeros, up: zeros, down: zeros };
    const { packed } = await ExpertWeights.pack(format, { tensors });
    expect(packed).toHaveLength(plain);
  });
});

describe("a running call", () => {
  const format = { kind: "swiglu", dtype: "f32", hiddenSize: 512, ffnSize: 512 } as const;
  const weightsOf = async (): Promise<ExpertWeights> => {
    const tensor = new Float32Array(512 * 512);
    return await ExpertWeights.pack(format, { tensors: { gate: tensor, up: tensor, down: tensor } });
  };

  it("leaves the event loop to others, and its arrays where they are", async () => {
    const weights = await weightsOf();
    const tokens = 4096;
    const x = new Float32Array(tokens * 512);
    const y = new Float32Array(tokens * 512);
    let isOver = false;
    const running = expertForward({ experts: [{ weights, tokens }], x, y }).finally(() => {
      isOver = true;
    });
    // The loop's turns go on while the call runs.
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    expect(isOver).toBe(false);
    try {
      structuredClone(x.buffer, { transfer: [x.buffer] });
    } catch {
      // Newer versions of Node refuse; older ones copy.
    }
    expect(x).toHaveLength(tokens * 512);
    await running;
  });

  it("ends with its worker", async () => {
    const worker = new Worker(new URL("fixtures/endless-expert.mjs", import.meta.url));
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    expect(await worker.terminate()).toBe(1);
  });
});

describe("bad input", () => {
  const format = { kind: "swiglu", dtype: "f32", hiddenSize: 4, ffnSize: 8 } as const;
  const tensors = { gate: new Float32Array(32), up: new Float32Array(32), down: new Float32Array(32) };
  const invalid = (text: string): unknown =>
    expect.objectContaining({
      code: "ERR_PCCL_INVALID_ARGUMENT",
      message: expect.stringContaining(text) as string,
    });

  it.each([
    ["a kind that doesn't exist", { ...format, kind: "relu" }, tensors, "kind"],
    ["a size of 0", { ...format, ffnSize: 0 }, tensors, "ffnSize"],
    ["a missing tensor", format, { gate: tensors.gate, up: tensors.up }, "down"],
    ["a tensor of another size", format, { ...tensors, up: new Float32Array(31) }, "up must be"],
    ["a tensor of another type", format, { ...tensors, up: new Uint16Array(32) }, "a Float32Array of 32"],
  ])("refuses to pack %s", async (_, badFormat, badTensors, text) => {
    const packing = ExpertWeights.pack(badFormat as ExpertFormat, {
      tensors: badTensors,
    });
    await expect(packing).rejects.toEqual(invalid(text));
  });

  it("refuses tensors and options that it doesn't know", async () => {
    const unknown = expect.objectContaining({ code: "ERR_PCCL_UNKNOWN_OPTION" }) as unknown;
    await expect(ExpertWeights.pack(format, { tensors: { ...tensors, bias: tensors.up } })).rejects.toEqual(
      unknown,
    );
    await expect(ExpertWeights.pack(format, { tensors, trains: true } as never)).rejects.toEqual(unknown);
  });

  it("refuses arrays that don't fit, before anything has changed", async () => {
    const weights = await ExpertWeights.pack(format, { tensors });
    const trained = await ExpertWeights.pack(format, { tensors, training: true });
    const experts = [{ weights, tokens: 2 }];
    const [x, y] = [new Float32Array(8), new Float32Array(8).fill(5)];
    const forward = async (options: object): Promise<void> =>
      await expertForward({ experts, x, y, ...options });
    await expect(forward({ experts: [] })).rejects.toEqual(invalid("one or more"));
    await expect(forward({ experts: [{ weights: {}, tokens: 2 }] })).rejects.toEqual(
      invalid("ExpertWeights"),
    );
    await expect(forward({ experts: [{ weights, tokens: 1.5 }] })).rejects.toEqual(invalid("tokens"));
    await expect(forward({ experts: [{ weights, tokens: 3 }] })).rejects.toEqual(invalid("x must be"));
    await expect(forward({ x: new Float64Array(8) })).rejects.toEqual(invalid("a Float32Array of 8"));
    await expect(forward({ y: x })).rejects.toEqual(invalid("shares memory"));
    await expect(forward({ preactivations: new Float32Array(16) })).rejects.toEqual(
      invalid("preactivations"),
    );
    const gradients = trained.zeroGradients();
    const backward = async (expert: object, options: object = {}): Promise<void> =>
      await expertBackward({
        experts: [{ weights: trained, tokens: 2, firstPosition: 0, gradients, ...expert }],
        x,
        preactivations: new Float32Array(32),
        yGradient: new Float32Array(8),
        xGradient: y,
        ...options,
      });
    await expect(backward({ weights })).rejects.toEqual(invalid("training"));
    await expect(backward({ firstPosition: -1 })).rejects.toEqual(invalid("firstPosition"));
    const shared = { ...gradients, up: gradients.gate as Float32Array };
    await expect(backward({ gradients: { gate: gradients.gate } })).rejects.toEqual(invalid("up"));
    await expect(backward({ gradients: { ...gradients, down: x.subarray(0, 4) } })).rejects.toEqual(
      invalid("down"),
    );
    await expect(backward({}, { xGradient: x })).rejects.toEqual(invalid("shares memory"));
    await expect(backward({ gradients: shared })).rejects.toEqual(invalid("shares memory"));
    expect(y).toEqual(new Float32Array(8).fill(5));
  });
});
