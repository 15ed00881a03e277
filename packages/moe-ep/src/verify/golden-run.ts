/** A golden layer's forward and backward passes on one rank of a group, with the rank's part of the tokens. */
import type { ExpertGroup } from "../group/expert-group.js";
import { MoELayer } from "../layer/moe-layer.js";
import { costModelInCopies } from "../planner/cost-model.js";
import type { Planner } from "../planner/plan.js";
import type { GoldenLayer } from "./golden-layer.js";

export type Results = Readonly<Record<string, Float32Array>>;

/** What one rank has of a layer's results, by the files' names of the tensors. */
export interface RankResults {
  /** Rows of its tokens. */
  readonly rows: Results;
  /** Parts of sums over all tokens. */
  readonly parts: Results;
  /** Of its experts, by number. */
  readonly experts: readonly (readonly [number, Results])[];
}

/** Where each rank's tokens begin, and where the last one's end: as the file has it, or in equal parts. */
function firstTokens({ metadata }: GoldenLayer, ranks: number): number[] {
  const counts = JSON.parse(metadata.tokens_per_rank as string) as number[];
  const total = Number(metadata.T);
  if (counts.length !== ranks) {
    return Array.from({ length: ranks + 1 }, (_, rank) => Math.floor((rank * total) / ranks));
  }
  const first = [0];
  for (const count of counts) first.push((first.at(-1) as number) + count);
  return first;
}

/** These layers are small: loans of single copies are allowed, so that there are some. */
export async function runGoldenLayer(
  group: ExpertGroup,
  golden: GoldenLayer,
  planner: Planner,
): Promise<RankResults> {
  const { f32, format, isDeepSeek, metadata } = golden;
  const shared = isDeepSeek ? golden.sharedExpert() : undefined;
  const layer = await MoELayer.create(group, {
    router: golden.routerOptions,
    routerWeight: f32("router_weight"),
    routerBias: metadata.kind === "gpt_oss" ? f32("router_bias") : undefined,
    format,
    tensors: (expert) => golden.expert(expert),
    sharedExpert: shared && {
      tensors: shared,
      ffnSize: (shared.gate as Float32Array).length / format.hiddenSize,
    },
    training: true,
    plan: { planner, minChunkCopies: 1, minImbalance: 0, costModel: costModelInCopies(1) },
  });
  const first = firstTokens(golden, group.size);
  const own = (name: string): Float32Array => {
    const [begin, end] = [first[group.rank] as number, first[group.rank + 1] as number];
    return f32(name).slice(begin * format.hiddenSize, end * format.hiddenSize);
  };
  const [x, dout] = [own("x"), own("dout")];
  const out = (await layer.forward(x)) as Float32Array;
  const gradients = await layer.backward(dout);
  // The experts alone, by the same routing.
  const routing = layer.routing as NonNullable<typeof layer.routing>;
  const routedOut = (await layer.experts.forward(x, routing)) as Float32Array;
  const throughExperts = await layer.experts.backward(dout);
  const parts: Record<string, Float32Array> = { grad_router_weight: gradients.routerWeight };
  if (metadata.kind === "gpt_oss") parts.grad_router_bias = gradients.routerBias;
  for (const [name, gradient] of Object.entries(gradients.sharedExpert ?? {})) {
    parts[`grad_shared_${golden.theirName(name)}`] = gradient;
  }
  return {
    rows: {
      out,
      routed_out: routedOut,
      grad_x: gradients.x as Float32Array,
      grad_x_experts: throughExperts.x as Float32Array,
      grad_topk_weight: gradients.gates,
    },
    parts,
    experts: Array.from(gradients.experts, ([expert, tensors]) => [
      expert,
      Object.fromEntries(
        Object.entries(tensors).map(([name, gradient]) => [`grad_${golden.theirName(name)}`, gradient]),
      ),
    ]),
  };
}

/** The whole layer's results, from those of all ranks. */
export function assemble(ranks: readonly RankResults[]): Results {
  const results: Record<string, Float32Array> = {};
  const [{ rows, parts }] = ranks as [RankResults];
  for (const name of Object.keys(rows)) {
    results[name] = concatenate(ranks.map((rank) => rank.rows[name] as Float32Array));
  }
  for (const name of Object.keys(parts)) {
    const all = ranks.map((rank) => rank.parts[name] as Float32Array);
    results[name] = (all[0] as Float32Array).map((_, i) =>
      all.reduce((sum, part) => sum + (part[i] as number), 0),
    );
  }
  const experts = ranks.flatMap((rank) => rank.experts).toSorted(([a], [b]) => a - b);
  for (const name of Object.keys(experts[0]?.[1] ?? {})) {
    results[name] = concatenate(experts.map(([, tensors]) => tensors[name] as Float32Array));
  }
  return results;
}

function concatenate(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
