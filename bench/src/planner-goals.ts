/**
 * How good the planner's plans are, and how long planning takes, beside what they were meant to reach. The plans' part
 * is deterministic: costs are max over ranks of (load + w · max(imports, exports)), in token-copies, and lla is the
 * reference's at α 1, m 1024, λ 1.3.
 *
 *   node bench/dist/planner-goals.js [--golden ../shared/golden/llep]
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { costModelInCopies, type ExpertPlan, generateCounts, planExperts } from "@pccl/moe-ep";
import { type BoundPoint, boundsOf, leastSum } from "./planner-bound.js";
import { medianOf } from "./statistics.js";

interface LargeCase {
  readonly name: string;
  readonly total: number;
  readonly counts_per_rank: number[][];
}

interface SmallCase {
  readonly P: number;
  readonly N: number;
  readonly m: number;
  readonly w: number;
  readonly loads: number[];
  readonly cost_opt: number | null;
}

interface Compared {
  readonly auto: number;
  readonly lla: number;
  readonly autoTransfers: number;
  readonly llaTransfers: number;
  readonly points: readonly BoundPoint[];
}

const CHUNK_MIN = 1024;
const GOALS = [
  { w: 200, cost: 0.98, transfers: 0.75 },
  { w: 1_714, cost: 0.93, transfers: 0.63 },
  { w: 12_000, cost: 0.67, transfers: 0.38 },
];
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const { values } = parseArgs({ options: { golden: { type: "string", default: "../shared/golden/llep" } } });
const readGolden = <T>(file: string): T => JSON.parse(readFileSync(join(values.golden, file), "utf8")) as T;
const problems: string[] = [];

function costOf({ loadsAfter, transfers }: ExpertPlan, w: number): number {
  const loans = [...new Map(transfers.map((loan) => [`${loan.expert} ${loan.target}`, loan])).values()];
  return Math.max(
    ...loadsAfter.map((load, rank) => {
      const imports = loans.filter(({ target }) => target === rank).length;
      const exports = loans.filter(({ source }) => source === rank).length;
      return load + w * Math.max(imports, exports);
    }),
  );
}

/** Duplicates, chunks below m, loads above EP's: none may ever be. */
function checkRules(name: string, plan: ExpertPlan, m: number): void {
  const pairs = new Set(plan.transfers.map(({ expert, target }) => `${expert} ${target}`));
  if (pairs.size < plan.transfers.length) problems.push(`${name}: an expert goes to a rank twice`);
  if (plan.transfers.some(({ copies }) => copies < m)) problems.push(`${name}: a chunk is below ${m}`);
  if (Math.max(...plan.loadsAfter) > Math.max(...plan.loadsBefore)) problems.push(`${name}: above ep's load`);
}

function compare({ name, counts_per_rank: counts }: LargeCase, w: number): Compared {
  const reference = planExperts(counts, { planner: "lla", strictReference: true, minChunkCopies: CHUNK_MIN });
  const lla = reference.isApplied ? reference : planExperts(counts, { planner: "ep" });
  const auto = planExperts(counts, { minChunkCopies: CHUNK_MIN, costModel: costModelInCopies(w) });
  checkRules(name, auto, CHUNK_MIN);
  checkRules(name, planExperts(counts, { planner: "lla", minChunkCopies: CHUNK_MIN }), CHUNK_MIN);
  const [ranks, experts] = [counts.length, counts[0]?.length ?? 0];
  const owned = Array.from({ length: ranks }, (_, rank) =>
    Array.from({ length: experts / ranks }, (_unused, i) =>
      sum(counts.map((row) => row[(rank * experts) / ranks + i] as number)),
    ),
  );
  if (costOf(auto, w) > Math.max(...auto.loadsBefore)) problems.push(`${name}: costs more than ep at w ${w}`);
  return {
    auto: costOf(auto, w),
    lla: costOf(lla, w),
    autoTransfers: auto.transfers.length,
    llaTransfers: lla.transfers.length,
    points: boundsOf(owned, w),
  };
}

function printLargeCases(): void {
  const cases = ["paper", "scenario", "random"]
    .flatMap((name) => readGolden<{ cases: LargeCase[] }>(`${name}.json`).cases)
    .filter(({ total }) => total >= 50_000);
  for (const goal of GOALS) {
    const compared = cases.map((one) => compare(one, goal.w));
    const count = compared.length;
    const transfersMax = goal.transfers * sum(compared.map(({ llaTransfers }) => llaTransfers));
    const llaSum = sum(compared.map(({ lla }) => lla));
    const least = (value: (one: Compared, cost: number) => number): number =>
      leastSum(compared, ({ points }) => points, value, transfersMax);
    const share = sum(compared.map(({ autoTransfers }) => autoTransfers)) / (transfersMax / goal.transfers);
    const rows = {
      "1 / mean of (lla / auto)": {
        auto: count / sum(compared.map(({ auto, lla }) => lla / auto)),
        "no plan below": -count / least(({ lla }, cost) => -lla / cost),
        goal: goal.cost,
      },
      "mean of (auto / lla)": {
        auto: sum(compared.map(({ auto, lla }) => auto / lla)) / count,
        "no plan below": least(({ lla }, cost) => cost / lla) / count,
        goal: goal.cost,
      },
      "sum of auto / sum of lla": {
        auto: sum(compared.map(({ auto }) => auto)) / llaSum,
        "no plan below": least((_, cost) => cost) / llaSum,
        goal: goal.cost,
      },
      transfers: { auto: share, goal: goal.transfers },
    };
    process.stdout.write(
      `\nw = ${goal.w}: ${count} cases, bounds with at most ${goal.transfers} of lla's transfers\n`,
    );
    printTable(rows);
  }
}

function printSmallCases(): void {
  const ratios = readGolden<{ rows: SmallCase[] }>("small_milp.json")
    .rows.filter(({ cost_opt: optimum }) => optimum !== null && optimum > 0)
    .map(({ P, N, m, w, loads, cost_opt: optimum }, index) => {
      const counts = Array.from({ length: P }, (_, rank) =>
        rank === 0 ? loads : new Array<number>(N).fill(0),
      );
      const plan = planExperts(counts, { minChunkCopies: m, costModel: costModelInCopies(w) });
      checkRules(`small case ${index}`, plan, m);
      return costOf(plan, w) / (optimum as number);
    });
  const mean = sum(ratios) / ratios.length;
  process.stdout.write(`\n${ratios.length} small cases beside a mixed-integer program's optimum\n`);
  printTable({ "cost / optimum": { mean, most: Math.max(...ratios), goal: 1.05 } });
}

/** Where m is at or above any rank's room, the reference puts all of a hot expert's rest on one rank. */
function checkCollapse(): void {
  for (const m of [1_000, 1_024, 2_500, 4_000, 7_000]) {
    // With j loans of c copies each, which are m at least.
    const best = Math.min(
      ...[1, 2, 3, 4, 5, 6, 7].map((j) => {
        const c = Math.max(m, 8_000 / (j + 1));
        return j * c > 8_000 ? 8_000 : Math.max(c, 8_000 - j * c);
      }),
    );
    const counts = Array.from({ length: 8 }, () => [1_000, ...new Array<number>(15).fill(0)]);
    for (const planner of ["lla", "auto"] as const) {
      const plan = planExperts(counts, { planner, minChunkCopies: m, costModel: costModelInCopies(1) });
      checkRules(`m ${m}`, plan, m);
      if (Math.max(...plan.loadsAfter) > 1.1 * best) problems.push(`m ${m}: ${planner} collapses`);
    }
  }
}

function printTimes(): void {
  const rows: Record<string, Record<string, number>> = {};
  for (const { experts, ranks, goal } of [
    { experts: 128, ranks: 8, goal: 50 },
    { experts: 384, ranks: 64, goal: 150 },
  ]) {
    const counts = generateCounts({ scenario: "dirichlet:0.3", experts, topK: 8, tokens: 4096, ranks });
    for (const [planner, factor] of [
      ["lla", 1],
      ["auto", 10],
    ] as const) {
      const options = { planner, costModel: costModelInCopies(1_714) };
      const times = Array.from({ length: 500 }, () => {
        const begin = performance.now();
        planExperts(counts, options);
        return (performance.now() - begin) * 1e3;
      }).slice(100);
      rows[`${planner}, ${experts} experts on ${ranks} ranks`] = {
        least: Math.min(...times),
        median: medianOf(times),
        goal: goal * factor,
      };
    }
  }
  process.stdout.write(
    "\nplanExperts in µs, with what JavaScript adds (native/bench/planner_bench.cc: without)\n",
  );
  printTable(rows);
}

function printTable(rows: Record<string, Record<string, number>>): void {
  console.table(
    Object.fromEntries(
      Object.entries(rows).map(([name, row]) => [
        name,
        Object.fromEntries(Object.entries(row).map(([key, value]) => [key, Number(value.toPrecision(4))])),
      ]),
    ),
  );
}

printLargeCases();
printSmallCases();
checkCollapse();
printTimes();
process.stdout.write(problems.length === 0 ? "\nNo plan breaks a rule.\n" : `\n${problems.join("\n")}\n`);
process.exitCode = problems.length === 0 ? 0 : 1;
