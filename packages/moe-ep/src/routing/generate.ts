/** Routings and counts of a scenario: the same for the same options, on every rank and machine. */
import { checkInteger, checkOptions, pcclError } from "@pccl/core/base";
import { PopularityTree } from "./popularity.js";
import { Random } from "./random.js";
import { countCopies, EXPERTS_MAX, type Routing } from "./routing.js";
import { formatScenario, parseScenario, type Scenario } from "./scenario.js";

export interface GenerateCountsOptions {
  readonly scenario: string | Scenario;
  /** N. */
  readonly experts: number;
  /** K: the slots of every token. */
  readonly topK: number;
  /** Of each rank. */
  readonly tokens: number;
  /** P. */
  readonly ranks: number;
  /** Default 0. */
  readonly seed?: number | undefined;
  /** What popularities stay the same in, and tokens don't; hot experts drift over steps. Default 0. */
  readonly step?: number | undefined;
}

export interface GenerateRoutingOptions extends GenerateCountsOptions {
  readonly rank: number;
}

/** What a stream of random numbers is for: parts of its key. */
const STREAM = { popularity: 1, drift: 2, order: 3, draws: 4, gates: 5 } as const;
const KEYS = ["scenario", "experts", "topK", "tokens", "ranks", "seed", "step"];
const COPIES_MAX = 2 ** 31 - 1;
const STEP_MAX = 1_000_000;

type Checked = GenerateRoutingOptions & {
  readonly scenario: Scenario;
  readonly seed: number;
  readonly step: number;
};

function check(call: string, options: GenerateCountsOptions, rank: number): Checked {
  const scenario = parseScenario(
    typeof options.scenario === "object" ? formatScenario(options.scenario) : options.scenario,
  );
  const experts = checkInteger(call, "experts", options.experts, 1, EXPERTS_MAX);
  const topK = checkInteger(call, "topK", options.topK, 1, experts);
  const tokens = checkInteger(call, "tokens", options.tokens, 0, Math.floor(COPIES_MAX / topK));
  const ranks = checkInteger(call, "ranks", options.ranks, 1, 4096);
  const seed = checkInteger(call, "seed", options.seed ?? 0, 0, Number.MAX_SAFE_INTEGER);
  const step = checkInteger(call, "step", options.step ?? 0, 0, STEP_MAX);
  checkInteger(call, "rank", rank, 0, ranks - 1);
  if (scenario.kind === "hot" || scenario.kind === "drift") {
    const text = formatScenario(scenario);
    if (scenario.experts > experts) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: ${text} has more hot experts than the ${experts}`,
      );
    }
    if (scenario.experts === experts && scenario.part < 1) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: ${text} leaves none of the ${experts} experts to the other tokens`,
      );
    }
  }
  return { scenario, experts, topK, tokens, ranks, rank, seed, step };
}

/**
 * The routing of one rank's tokens. Under `balanced`, `80%:4` and `drift:…` the copies of all ranks together are even
 * to within one per expert, and so are the hot ones; a token whose slots are more than the hot experts has some of
 * them several times, as in the paper's own experiments. Under the others a token has different experts. Gates are
 * random, fall, and add up to 1. Throws PcclError with ERR_PCCL_INVALID_ARGUMENT or ERR_PCCL_UNKNOWN_OPTION.
 */
export function generateRouting(options: GenerateRoutingOptions): Routing {
  const call = "generateRouting";
  checkOptions(call, options, [...KEYS, "rank"]);
  const checked = check(call, options, options.rank);
  const { topK, tokens } = checked;
  return {
    firstSlot: Int32Array.from({ length: tokens + 1 }, (_, token) => token * topK),
    experts: chooseExperts(checked),
    gates: drawGates(checked),
  };
}

/** The copies of each rank for each expert, P rows of N: those of every rank's generateRouting. */
export function generateCounts(options: GenerateCountsOptions): Float64Array[] {
  const call = "generateCounts";
  checkOptions(call, options, KEYS);
  return Array.from({ length: check(call, options, 0).ranks }, (_, rank) => {
    const checked = check(call, options, rank);
    return countCopies(call, { experts: chooseExperts(checked) }, checked.experts);
  });
}

/** tokens × topK experts. */
function chooseExperts(options: Checked): Int32Array {
  const { scenario, experts, seed } = options;
  const all = Array.from({ length: experts }, (_, expert) => expert);
  switch (scenario.kind) {
    case "balanced":
      return deal(options, 0, [], all);
    case "hot":
      return deal(options, scenario.part, all.slice(0, scenario.experts), all.slice(scenario.experts));
    case "drift": {
      const hot = driftedSet(options, scenario.experts, scenario.periodSteps);
      const cold = all.filter((expert) => !hot.includes(expert));
      return deal(options, scenario.part, hot, cold);
    }
    case "zipf": {
      const weights = all.map((place) => (place + 1) ** -scenario.exponent);
      return drawByPopularity(options, new Random(seed, STREAM.popularity).shuffle(weights));
    }
    case "dirichlet": {
      const random = new Random(seed, STREAM.popularity);
      return drawByPopularity(
        options,
        all.map(() => random.gamma(scenario.concentration)),
      );
    }
  }
}

/**
 * Deals the slots of hot tokens to the hot experts in turn, and the others' to the cold ones; ranks go on where the
 * one before ended. Hot tokens are as evenly spaced as may be. Experts are dealt to in a random order, so that a
 * token's aren't neighbours on one rank.
 */
function deal(
  { topK, tokens, rank, seed, step }: Checked,
  part: number,
  hot: number[],
  cold: number[],
): Int32Array {
  const order = new Random(seed, STREAM.order, step);
  order.shuffle(hot);
  order.shuffle(cold);
  const chosen = new Int32Array(tokens * topK);
  for (let token = 0; token < tokens; token++) {
    const index = rank * tokens + token;
    const hotBefore = Math.floor(index * part);
    const isHot = Math.floor((index + 1) * part) > hotBefore;
    const set = isHot ? hot : cold;
    const dealt = (isHot ? hotBefore : index - hotBefore) * topK;
    for (let slot = 0; slot < topK; slot++) {
      chosen[token * topK + slot] = set[(dealt + slot) % set.length] as number;
    }
  }
  return chosen;
}

/** The hot experts at a step: every period the one that has been hot for the longest time makes place for another. */
function driftedSet({ experts, seed, step }: Checked, size: number, periodSteps: number): number[] {
  const random = new Random(seed, STREAM.drift);
  const hot = random.shuffle(Array.from({ length: experts }, (_, expert) => expert)).slice(0, size);
  if (size === experts) return hot;
  const isHot = new Set(hot);
  for (let change = 0; change < Math.floor(step / periodSteps); change++) {
    let next = random.below(experts);
    while (isHot.has(next)) next = random.below(experts);
    isHot.delete(hot[change % size] as number);
    isHot.add(next);
    hot[change % size] = next;
  }
  return hot;
}

function drawByPopularity(
  { topK, tokens, rank, seed, step }: Checked,
  weights: readonly number[],
): Int32Array {
  const tree = new PopularityTree(weights);
  const random = new Random(seed, STREAM.draws, step, rank);
  const chosen = new Int32Array(tokens * topK);
  for (let token = 0; token < tokens; token++) {
    tree.draw(random, chosen.subarray(token * topK, (token + 1) * topK));
  }
  return chosen;
}

/** tokens × topK, as of a softmax over random logits. */
function drawGates({ topK, tokens, rank, seed, step }: Checked): Float32Array {
  const random = new Random(seed, STREAM.gates, step, rank);
  const gates = new Float32Array(tokens * topK);
  for (let token = 0; token < tokens; token++) {
    const own = Array.from({ length: topK }, () => Math.exp(random.normal())).sort((a, b) => b - a);
    const sum = own.reduce((total, gate) => total + gate, 0);
    for (const [slot, gate] of own.entries()) gates[token * topK + slot] = gate / sum;
  }
  return gates;
}
