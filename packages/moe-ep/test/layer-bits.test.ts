/**
 * The layer on several ranks against the layer on one: results, gradients by tokens and by gates have to have the same
 * bits, however tokens are routed, whatever the plan, and whichever way weights come to those who borrow them.
 */
import {
  ExpertGroup,
  type ExpertFormat,
  ExpertLayer,
  type ExpertLayerOptions,
  type ExpertNumbers,
  generateRouting,
  type Gradients,
  Router,
  type Routing,
  type StepStatistics,
} from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";
import { joined, type LayerCase, layerCase, partOf } from "./layer-case.js";
import { randomFloats } from "./random-floats.js";
import { onRanks } from "./ranks.js";

interface Outcome {
  readonly y: ExpertNumbers;
  readonly x: ExpertNumbers;
  readonly gates: Float32Array;
  readonly experts: ReadonlyMap<number, Gradients>;
  readonly statistics: StepStatistics;
}

type Plan = NonNullable<ExpertLayerOptions["plan"]>;
/** Loans of single copies, for as little as may be. */
const EAGER = { minChunkCopies: 1, minImbalance: 0 };
const PLANS: readonly Plan[] = [
  { planner: "ep" },
  { ...EAGER, planner: "lla" },
  { ...EAGER, planner: "auto" },
  { planner: "eplb" },
];

/** One layer takes all routings, one after the other, so that weights stay borrowed or not from step to step. */
async function passes(
  layer: LayerCase,
  routings: readonly Routing[],
  group: ExpertGroup,
  plan: Plan,
  lending: "auto" | "send",
): Promise<Outcome[]> {
  const { format, experts, tensors } = layer;
  const options = { format, experts, tensors, training: true, plan, lending };
  const mine = await ExpertLayer.create(group, options);
  const outcomes: Outcome[] = [];
  for (const routing of routings) {
    const part = partOf(layer, routing, group.rank, group.size);
    const y = await mine.forward(part.x, part.routing);
    const statistics = mine.statistics as StepStatistics;
    outcomes.push({ y, statistics, ...(await mine.backward(part.outputGradient)) });
  }
  return outcomes;
}

/** Every token has all of the first experts, or the same one several times. */
function extremeRouting(tokens: number, experts: readonly number[]): Routing {
  return {
    firstSlot: Int32Array.from({ length: tokens + 1 }, (_, token) => token * experts.length),
    experts: Int32Array.from(
      { length: tokens * experts.length },
      (_, slot) => experts[slot % experts.length] as number,
    ),
    gates: randomFloats(tokens * experts.length, 5),
  };
}

function routingsOf({ experts, tokens }: LayerCase): Record<string, Routing> {
  const generated = { experts, tokens, ranks: 1, rank: 0 };
  const router = new Router({ kind: "top-p", experts, probability: 0.4, maxExperts: 5 });
  return {
    even: generateRouting({ ...generated, scenario: "balanced", topK: 2 }),
    hot: generateRouting({ ...generated, scenario: "80%:2", topK: 3 }),
    "one expert, three times": extremeRouting(tokens, [3, 3, 3]),
    "the last experts": extremeRouting(tokens, [experts - 1, experts - 2]),
    "a varying number": router.route(randomFloats(tokens * experts, 9, 6)),
    "no expert at all": extremeRouting(tokens, []),
  };
}

const F32: ExpertFormat = { kind: "swiglu", dtype: "f32", hiddenSize: 40, ffnSize: 24 };
const BF16: ExpertFormat = { kind: "gpt-oss", dtype: "bf16", hiddenSize: 24, ffnSize: 40 };

describe("a layer", () => {
  it.each([
    [F32, 2, "auto", "auto"],
    [F32, 4, "send", "tcp"],
    [F32, 8, "auto", "auto"],
    [BF16, 2, "send", "auto"],
    [BF16, 4, "auto", "tcp"],
    [BF16, 8, "send", "auto"],
  ] as const)(
    "of %o on %i ranks has the same bits as on one, weights lent by %s, transport %s",
    async (...args) => {
      const [format, ranks, lending, transport] = args;
      const layer = layerCase(format, 11, 150);
      const routings = routingsOf(layer);
      const names = Object.keys(routings);
      const all = Object.values(routings);
      const singles = await passes(layer, all, ExpertGroup.alone(), { planner: "ep" }, "auto");
      const byRank = await onRanks(
        ranks,
        async (group) => {
          const byPlan: Outcome[][] = [];
          for (const plan of PLANS) byPlan.push(await passes(layer, all, group, plan, lending));
          return byPlan;
        },
        { transport },
      );
      for (const [i, plan] of PLANS.entries()) {
        for (const [j, single] of singles.entries()) {
          const of = byRank.map((byPlan) => byPlan[i]?.[j] as Outcome);
          const what = `${names[j]}, ${plan.planner}`;
          expect(joined(of.map(({ y }) => y)).equals(joined([single.y])), `output: ${what}`).toBe(true);
          expect(joined(of.map(({ x }) => x)).equals(joined([single.x])), `x: ${what}`).toBe(true);
          expect(joined(of.map(({ gates }) => gates)).equals(joined([single.gates])), `gates: ${what}`).toBe(
            true,
          );
          const owned = of.flatMap(({ experts }) => [...experts.keys()]);
          expect(owned.toSorted((a, b) => a - b)).toEqual([...single.experts.keys()]);
        }
      }
      const repeated = names.indexOf("one expert, three times");
      const [ep, lla] = [0, 1].map((i) => byRank.map((byPlan) => byPlan[i]?.[repeated] as Outcome));
      expect(Math.max(...(ep?.[0]?.statistics.loadsAfter ?? []))).toBe(450);
      expect(Math.max(...(lla?.[0]?.statistics.loadsAfter ?? []))).toBe(Math.ceil(450 / ranks));
      const moved = lla?.some(({ statistics }) => statistics.weightBytesMoved > 0);
      expect(moved).toBe(lending === "send");
    },
  );
});

describe("gradients of weights", () => {
  const format: ExpertFormat = { kind: "swiglu", dtype: "f32", hiddenSize: 12, ffnSize: 8 };
  const layer = layerCase(format, 4, 1300);
  const routing = extremeRouting(layer.tokens, [1, 2]);

  it("are the same in every run, and right to the last bits but few of single precision", async () => {
    const plan = { ...EAGER, planner: "lla" } as const;
    const run = async (): Promise<Map<number, Gradients>> => {
      const outcomes = await onRanks(3, (group) => passes(layer, [routing], group, plan, "send"));
      return new Map(outcomes.flatMap(([outcome]) => [...(outcome as Outcome).experts]));
    };
    const [first, second] = [await run(), await run()];
    const exact = exactGradients(layer, routing);
    for (const [expert, gradients] of first) {
      for (const [name, gradient] of Object.entries(gradients)) {
        expect(joined([gradient]).equals(joined([second.get(expert)?.[name] as Float32Array]))).toBe(true);
        const expected = exact.get(expert)?.[name] as Float64Array;
        const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
        for (const [i, value] of gradient.entries()) {
          expect(Math.abs(value - (expected[i] as number))).toBeLessThanOrEqual(2e-6 * largest);
        }
      }
    }
  });
});

/** swiglu's, in double precision. */
function exactGradients(layer: LayerCase, routing: Routing): Map<number, Record<string, Float64Array>> {
  const { hiddenSize: D, ffnSize: H } = layer.format;
  const at = (values: ArrayLike<number> | undefined, i: number): number => values?.[i] as number;
  const all = new Map<number, Record<string, Float64Array>>();
  for (let expert = 0; expert < layer.experts; expert++) {
    const { gate, up, down } = layer.tensors(expert);
    const sums = {
      gate: new Float64Array(H * D),
      up: new Float64Array(H * D),
      down: new Float64Array(H * D),
    };
    for (let token = 0; token < layer.tokens; token++) {
      for (let slot = at(routing.firstSlot, token); slot < at(routing.firstSlot, token + 1); slot++) {
        if (routing.experts[slot] !== expert) continue;
        const factor = at(routing.gates, slot);
        const x = (i: number): number => at(layer.x, token * D + i);
        const dy = (i: number): number => factor * at(layer.outputGradient, token * D + i);
        for (let h = 0; h < H; h++) {
          let [g, u, da] = [0, 0, 0];
          for (let i = 0; i < D; i++) {
            g += at(gate, h * D + i) * x(i);
            u += at(up, h * D + i) * x(i);
            da += at(down, i * H + h) * dy(i);
          }
          const sigmoid = 1 / (1 + Math.exp(-g));
          const silu = g * sigmoid;
          const dg = da * u * (sigmoid + silu * (1 - sigmoid));
          for (let i = 0; i < D; i++) {
            sums.gate[h * D + i] = at(sums.gate, h * D + i) + dg * x(i);
            sums.up[h * D + i] = at(sums.up, h * D + i) + da * silu * x(i);
            sums.down[i * H + h] = at(sums.down, i * H + h) + silu * u * dy(i);
          }
        }
      }
    }
    all.set(expert, sums);
  }
  return all;
}
