/** How a layer comes to be on all ranks: same options, packed experts, and who can read whose memory. */
import type { Exchange } from "../group/exchange.js";
import { costModelInCopies } from "../planner/cost-model.js";
import type { PlanOptions } from "../planner/plan.js";
import {
  checkConfig,
  compareConfigs,
  CONFIG_BYTES,
  encodeConfig,
  type ExpertLayerOptions,
  type LayerConfig,
} from "./layer-config.js";
import { ANNOUNCEMENT_BYTES, WeightStore } from "./weight-store.js";

export interface SharedWeights {
  readonly config: LayerConfig;
  readonly store: WeightStore;
  /** Whether a rank maps another one's weights: [target][source]. */
  readonly mapped: readonly (readonly boolean[])[];
}

/** A mapped expert is computed as an own one is, but that its weights are in no cache of this rank's yet. */
const MAPPED_COST = costModelInCopies(16);
const SENT_COST = costModelInCopies(256);

/** Packs this rank's experts and maps those of the others. Collective: what `options` throws, all ranks get. */
export async function shareWeights(
  call: string,
  exchange: Exchange,
  options: () => ExpertLayerOptions | Promise<ExpertLayerOptions>,
): Promise<SharedWeights> {
  let own!: Pick<SharedWeights, "config" | "store">;
  const answers = await exchange.agree(call, CONFIG_BYTES + ANNOUNCEMENT_BYTES, async () => {
    const given = await options();
    const config = checkConfig(call, given, exchange.size);
    const store = new WeightStore(config.format, config.training, config.owners, exchange.rank);
    for (const [expert, owner] of config.owners.entries()) {
      if (owner === exchange.rank) await store.pack(call, expert, await given.tensors(expert));
    }
    own = { config, store };
    const answer = new Uint8Array(CONFIG_BYTES + ANNOUNCEMENT_BYTES);
    answer.set(encodeConfig(config));
    answer.set(store.announcement(), CONFIG_BYTES);
    return answer;
  });
  const configs = answers.map((answer) => answer.subarray(0, CONFIG_BYTES));
  compareConfigs(call, configs);
  const { config, store } = own;
  const maps = await exchange.agree(call, exchange.size, () => {
    const announcements = answers.map((answer) => answer.subarray(CONFIG_BYTES));
    const mapped =
      config.lending === "auto"
        ? store.map(announcements)
        : announcements.map((_, rank) => rank === exchange.rank);
    return Uint8Array.from(mapped, Number);
  });
  return { config, store, mapped: maps.map((row) => Array.from(row, (one) => one === 1)) };
}

export function planOptionsOf({ config, store, mapped }: SharedWeights): PlanOptions {
  const allMapped = mapped.every((row) => row.every((one) => one));
  return {
    ...config.plan,
    costModel: config.plan.costModel ?? (allMapped ? MAPPED_COST : SENT_COST),
    nativeRanks: config.owners,
    expertBytes: store.expertBytes,
  };
}
