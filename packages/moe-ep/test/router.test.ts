/**
 * Routers against two oracles: the models' formulas written out in double precision (gradients by finite differences),
 * and golden layers, where they lie beside the repository.
 */
import { Router, type RouterOptions, type Routing, routerLogits, routerLogitsGradient } from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";
import { readGoldenLayer, worstDifference } from "../dist/verify/golden-layer.js";
import { randomFloats } from "./random-floats.js";
import { goldenFiles, goldenPath, hasGolden, WHY_SKIPPED } from "./shared.js";

/** A token's gates for given experts, as the models' papers and code define them. */
function gatesOf(options: RouterOptions, logits: readonly number[], chosen: readonly number[]): number[] {
  if (options.kind === "deepseek-v3") {
    const scores = chosen.map((expert) => 1 / (1 + Math.exp(-(logits[expert] as number))));
    const sum = (options.renormalize ?? true) ? scores.reduce((a, b) => a + b, 1e-20) : 1;
    return scores.map((score) => (score / sum) * (options.scale ?? 2.5));
  }
  const exponentials = logits.map((logit) => Math.exp(logit));
  const all = exponentials.reduce((a, b) => a + b, 0);
  const probabilities = chosen.map((expert) => (exponentials[expert] as number) / all);
  const renormalize = "renormalize" in options ? options.renormalize : options.kind !== "top-p";
  const sum = (renormalize ?? options.kind === "qwen3-moe") ? probabilities.reduce((a, b) => a + b, 0) : 1;
  return probabilities.map((probability) => probability / sum);
}

const slotsOf = (routing: Routing, token: number): number[] =>
  Array.from(routing.experts.subarray(routing.firstSlot[token], routing.firstSlot[token + 1]));

const EXPERTS = 12;
const TOKENS = 40;
const kinds: readonly RouterOptions[] = [
  { kind: "gpt-oss", experts: EXPERTS, topK: 4 },
  { kind: "mixtral", experts: EXPERTS, topK: 2 },
  { kind: "qwen3-moe", experts: EXPERTS, topK: 3 },
  { kind: "qwen3-moe", experts: EXPERTS, topK: 3, renormalize: false },
  { kind: "deepseek-v3", experts: EXPERTS, topK: 4, groups: 4, groupsKept: 2 },
  { kind: "deepseek-v3", experts: EXPERTS, topK: 2, renormalize: false, scale: 1 },
  { kind: "top-p", experts: EXPERTS, probability: 0.6 },
  { kind: "top-p", experts: EXPERTS, probability: 0.9, maxExperts: 3, renormalize: true },
];

describe.each(kinds.map((options) => [JSON.stringify(options), options] as const))("%s", (_, options) => {
  const router = new Router(options);
  const logits = randomFloats(TOKENS * EXPERTS, 7, 3);
  const routing = router.route(logits);
  const row = (token: number): number[] =>
    Array.from(logits.subarray(token * EXPERTS, (token + 1) * EXPERTS));

  it("gives the gates of its formula", () => {
    for (let token = 0; token < TOKENS; token++) {
      const expected = gatesOf(options, row(token), slotsOf(routing, token));
      const gates = routing.gates.subarray(routing.firstSlot[token], routing.firstSlot[token + 1]);
      expect(gates).toHaveLength(expected.length);
      for (const [slot, gate] of expected.entries()) expect(gates[slot]).toBeCloseTo(gate, 5);
    }
  });

  it("has the gradient that finite differences of its formula have", () => {
    const gateGradients = randomFloats(routing.experts.length, 11);
    const gradient = router.gradient(logits, routing, gateGradients);
    const step = 1e-6;
    for (let token = 0; token < TOKENS; token++) {
      const chosen = slotsOf(routing, token);
      const first = routing.firstSlot[token] as number;
      const loss = (values: readonly number[]): number =>
        gatesOf(options, values, chosen).reduce(
          (total, gate, slot) => total + gate * (gateGradients[first + slot] as number),
          0,
        );
      for (let expert = 0; expert < EXPERTS; expert++) {
        const moved = (by: number): number[] =>
          row(token).map((value, i) => (i === expert ? value + by : value));
        const slope = (loss(moved(step)) - loss(moved(-step))) / (2 * step);
        expect(gradient[token * EXPERTS + expert]).toBeCloseTo(slope, 4);
      }
    }
  });

  it("routes a token by its own logits alone, and counts its slots", () => {
    const order = [3, 0, 17];
    const some = router.route(Float32Array.from(order.flatMap(row)));
    for (const [index, token] of order.entries())
      expect(slotsOf(some, index)).toEqual(slotsOf(routing, token));
    const counts = router.count(routing);
    expect(counts.reduce((a, b) => a + b, 0)).toBe(routing.experts.length);
    expect(counts[5]).toBe(routing.experts.filter((expert) => expert === 5).length);
  });
});

describe("the choice of experts", () => {
  const choose = (options: RouterOptions, logits: readonly number[]): number[] =>
    slotsOf(new Router(options).route(Float32Array.from(logits)), 0);

  it("takes the largest, and of equal ones those with lower numbers", () => {
    expect(choose({ kind: "mixtral", experts: 5, topK: 3 }, [1, 4, 1, 4, 2])).toEqual([1, 3, 4]);
    expect(choose({ kind: "gpt-oss", experts: 5, topK: 2 }, [0, 0, 0, 0, 0])).toEqual([0, 1]);
  });

  it("tells logits apart whose probabilities round to nothing", () => {
    expect(choose({ kind: "mixtral", experts: 4, topK: 3 }, [300, -300, -200, -400])).toEqual([0, 2, 1]);
  });

  it("under top-p takes as many as their sum needs, and renormalizes only when told to", () => {
    const logits = [Math.log(0.5), Math.log(0.3), Math.log(0.15), Math.log(0.05)];
    const options = { kind: "top-p", experts: 4 } as const;
    expect(choose({ ...options, probability: 0.4 }, logits)).toEqual([0]);
    expect(choose({ ...options, probability: 0.7 }, logits)).toEqual([0, 1]);
    expect(choose({ ...options, probability: 1 }, logits)).toEqual([0, 1, 2, 3]);
    expect(choose({ ...options, probability: 0.9, maxExperts: 2 }, logits)).toEqual([0, 1]);
    const [gate] = new Router({ ...options, probability: 0.4 }).route(Float32Array.from(logits)).gates;
    expect(gate).toBeCloseTo(0.5, 6);
  });

  it("under DeepSeek-V3 keeps groups by their two best, and lets the correction choose but not weigh", () => {
    // Groups {0,1}, {2,3}, {4,5}: the single best expert is in a group with a weak partner.
    const options = { kind: "deepseek-v3", experts: 6, topK: 2, groups: 3, groupsKept: 1 } as const;
    const logits = [3, -5, 2, 2, 0, 0];
    expect(choose(options, logits)).toEqual([2, 3]);
    const correction = [0, 0, 0, 0, 0.9, 0.8];
    expect(choose({ ...options, correction }, logits)).toEqual([4, 5]);
    const { gates } = new Router({ ...options, correction, scale: 1 }).route(Float32Array.from(logits));
    expect(Array.from(gates)).toEqual([0.5, 0.5]);
    // Hugging Face masks other groups with 0, which negative corrections can fall below; DeepSeek with -Infinity.
    const negative = [-2, -2, -2, -2, -2, -2];
    expect(choose({ ...options, correction: negative }, logits)).toEqual([2, 3]);
    expect(choose({ ...options, correction: negative, maskedScore: 0 }, logits)).toEqual([0, 1]);
  });
});

describe("the router's linear layer", () => {
  it("multiplies and adds, and a token's logits don't depend on its batch", () => {
    const [hidden, experts, tokens] = [37, 11, 21];
    const x = randomFloats(tokens * hidden, 1);
    const weight = randomFloats(experts * hidden, 2);
    const bias = randomFloats(experts, 3);
    const logits = routerLogits(x, weight, experts, bias);
    for (let token = 0; token < tokens; token++) {
      for (let expert = 0; expert < experts; expert++) {
        let sum = bias[expert] as number;
        for (let i = 0; i < hidden; i++)
          sum += (x[token * hidden + i] as number) * (weight[expert * hidden + i] as number);
        expect(logits[token * experts + expert]).toBeCloseTo(sum, 4);
      }
      const alone = routerLogits(x.slice(token * hidden, (token + 1) * hidden), weight, experts, bias);
      expect(alone).toEqual(logits.slice(token * experts, (token + 1) * experts));
    }
  });

  it("has the gradients of a linear layer", () => {
    const x = Float32Array.of(1, 2, 3, 4, 5, 6);
    const weight = Float32Array.of(1, 0, -1, 2, 2, 2);
    const logitGradients = Float32Array.of(1, 10, 0, -1);
    expect(routerLogitsGradient(x, weight, 2, logitGradients)).toEqual({
      x: Float32Array.of(21, 20, 19, -2, -2, -2),
      weight: Float32Array.of(1, 2, 3, 6, 15, 24),
      bias: Float32Array.of(1, 9),
    });
  });
});

describe("bad input", () => {
  const code = "ERR_PCCL_INVALID_ARGUMENT";
  const mixtral = { kind: "mixtral", experts: 4, topK: 2 } as const;
  const bad: readonly [string, object, string][] = [
    ["a kind that doesn't exist", { kind: "softmax", experts: 4, topK: 2 }, "kind"],
    ["more slots than experts", { ...mixtral, topK: 5 }, "topK"],
    ["no experts", { ...mixtral, experts: 0 }, "experts"],
    ["a probability of 0", { kind: "top-p", experts: 4, probability: 0 }, "probability"],
    ["a renormalize that is no boolean", { ...mixtral, kind: "qwen3-moe", renormalize: 1 }, "renormalize"],
  ];
  it.each(bad)("refuses %s", (_, options, name) => {
    expect(() => new Router(options as RouterOptions)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(name) as string }),
    );
  });

  it("refuses groups, corrections and masks that don't fit", () => {
    const options = { kind: "deepseek-v3", experts: 8, topK: 4 } as const;
    const logits = new Float32Array(8);
    const misfits = [{ groups: 3 }, { groups: 4, groupsKept: 1 }, { correction: [1, 2] }, { maskedScore: 1 }];
    for (const misfit of misfits) {
      expect(() => new Router({ ...options, ...misfit }).route(logits)).toThrow(
        expect.objectContaining({ code }),
      );
    }
  });

  it("refuses an option of another kind", () => {
    expect(() => new Router({ ...mixtral, scale: 2 } as RouterOptions)).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_UNKNOWN_OPTION" }),
    );
  });

  it("refuses logits that aren't finite or whole, naming the token and the expert", () => {
    const router = new Router(mixtral);
    const logits = new Float32Array(12);
    logits[6] = Number.NaN;
    expect(() => router.route(logits)).toThrow(/token 1 for expert 2 is nan/i);
    expect(() => router.route(new Float32Array(7))).toThrow(/7 logits/);
    expect(() => router.route(new Float64Array(8) as unknown as Float32Array)).toThrow(/Float32Array/);
  });

  it("refuses routings and gradients of another batch", () => {
    const router = new Router(mixtral);
    const logits = new Float32Array(8);
    const routing = router.route(logits);
    const gradients = new Float32Array(4);
    expect(() => router.gradient(new Float32Array(4), routing, gradients)).toThrow(
      expect.objectContaining({ code }),
    );
    expect(() => router.gradient(logits, routing, new Float32Array(3))).toThrow(/each of 4 slots/);
    const experts = Int32Array.of(0, 1, 4, 0);
    expect(() => router.gradient(logits, { ...routing, experts }, gradients)).toThrow(/expert 4/);
    expect(() => router.count({ experts })).toThrow(/expert 4/);
    expect(() => routerLogits(new Float32Array(5), new Float32Array(8), 4)).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

describe.skipIf(!hasGolden)(`golden layers (${WHY_SKIPPED})`, () => {
  it.each(goldenFiles("moe", ".safetensors"))("%s", (file) => {
    const { router, f32, i32, allowed, metadata, isDeepSeek } = readGoldenLayer(goldenPath(`moe/${file}`));
    const expectNear = (name: string, actual: Float32Array, expected = f32(name)): void =>
      expect(worstDifference(actual, expected), name).toBeLessThanOrEqual(allowed(name));
    const [x, weight] = [f32("x"), f32("router_weight")];
    const bias = metadata.kind === "gpt_oss" ? f32("router_bias") : undefined;

    const logits = routerLogits(x, weight, router.experts, bias);
    expectNear("router_logits", logits);
    const routing = router.route(logits);
    expect(Array.from(routing.experts)).toEqual(Array.from(i32("topk_idx")));
    expectNear("topk_weight", routing.gates);

    const logitGradients = router.gradient(logits, routing, f32("grad_topk_weight"));
    const gradient = routerLogitsGradient(x, weight, router.experts, logitGradients);
    expectNear("grad_router_weight", gradient.weight);
    if (bias !== undefined) expectNear("grad_router_bias", gradient.bias);
    // The shared expert of DeepSeek-V3 has a part in grad_x too.
    if (!isDeepSeek) {
      const throughRouter = f32("grad_x").map((value, i) => value - (f32("grad_x_experts")[i] as number));
      expectNear("grad_x", gradient.x, throughRouter);
    }
  });
});
