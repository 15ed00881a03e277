/**
 * Our collectives beside other libraries', by turns: for each case, every contender runs once in each round, in an order
 * that changes from round to round, so that whatever else the machine does hits all of them. The figure of a contender
 * is the median of its rounds; a ratio is the median of the rounds' ratios, above 1 where ours took less time.
 *
 *   npm run bench:peers -- [--quick] [--collectives all-reduce,all-to-all,all-to-all-v] [--peers 2,4,8]
 *     [--sizes-kib 4,256,4096,16384,65536,262144] [--rounds 3] [--out FILE]
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Case, type Contender, contendersOf, type Programs } from "./contenders.js";
import { type Rounds, type Verdict, verdictsOn } from "./goals.js";
import { runCommand } from "./run-command.js";
import { medianOf, ratioOf, writeResults } from "./statistics.js";

const SKEW = 0.8;
const ALL_TO_ALL_PEERS = 4;
const ALL_TO_ALL_SIZES_KIB = [16_384, 65_536];
const QUICK = { peers: "2,4", sizes: "4,4096,65536", rounds: "2" };
const FULL = { peers: "2,4,8", sizes: "4,256,4096,16384,65536,262144", rounds: "3" };

interface Row {
  readonly case: Case;
  /** Seconds of each round, by contender; null where it failed. */
  readonly seconds: Readonly<Record<string, readonly number[]>>;
  readonly medianSeconds: Readonly<Record<string, number>>;
  readonly goals: readonly Verdict[];
}

function casesOf(
  collectives: readonly string[],
  peers: readonly number[],
  sizesKiB: readonly number[],
): Case[] {
  return collectives.flatMap((collective) => {
    const isAllReduce = collective === "all-reduce";
    const worlds = isAllReduce ? peers : peers.filter((count) => count === ALL_TO_ALL_PEERS);
    const sizes = isAllReduce ? sizesKiB : ALL_TO_ALL_SIZES_KIB.filter((size) => sizesKiB.includes(size));
    return worlds.flatMap((count) =>
      sizes.flatMap((sizeKiB): Case[] => {
        const bytes = sizeKiB * 1_024;
        if (collective === "all-reduce" || collective === "all-to-all") {
          return [{ collective, peers: count, bytes }];
        }
        if (collective !== "all-to-all-v") throw new Error(`--collectives: there is no ${collective}`);
        return [1 / count, SKEW].map((skew) => ({ collective, peers: count, bytes, skew }));
      }),
    );
  });
}

function describe({ collective, peers, bytes, skew }: Case): string {
  const size = bytes < 2 ** 20 ? `${bytes / 2 ** 10} KiB` : `${bytes / 2 ** 20} MiB`;
  const share = skew === undefined ? "" : `, ${Math.round(skew * 100)} % to rank 0`;
  return `${collective}, ${peers} peers, ${size}${share}`;
}

/** All rounds of one case. */
async function measure(
  what: Case,
  contenders: readonly Contender[],
  count: number,
  signal: AbortSignal,
): Promise<Rounds> {
  const able = contenders.filter(({ command }) => command(what) !== undefined);
  const rounds = new Map<string, number[]>(able.map(({ name }) => [name, []]));
  for (let round = 0; round < count; round++) {
    for (let turn = 0; turn < able.length; turn++) {
      const contender = able[(turn + round) % able.length] as Contender;
      signal.throwIfAborted();
      process.stderr.write(`${describe(what)}: round ${round + 1} of ${count}, ${contender.name}\n`);
      const command = contender.command(what) as [string, ...string[]];
      const seconds = await runCommand(command, contender.read, signal);
      if (typeof seconds === "string" && !signal.aborted) process.stderr.write(`  failed: ${seconds}\n`);
      rounds.get(contender.name)?.push(typeof seconds === "string" ? Number.NaN : seconds);
    }
  }
  return rounds;
}

function milliseconds(seconds: number): string {
  return (Number.isNaN(seconds) ? "failed" : (seconds * 1e3).toPrecision(4)).padStart(11);
}

function ratio(value: number): string {
  return (Number.isNaN(value) ? "" : value.toFixed(2)).padStart(10);
}

function print(what: Case, rounds: Rounds, goals: readonly Verdict[]): void {
  console.log(
    `\n${describe(what).padEnd(46)} median/ms     min/ms     max/ms  / ours tcp  / ours shm  / alloc`,
  );
  for (const [name, seconds] of rounds) {
    const valid = seconds.filter((value) => !Number.isNaN(value));
    const times = [
      medianOf(seconds),
      ...(valid.length === 0 ? [] : [Math.min(...valid), Math.max(...valid)]),
    ];
    const ratios = ["ours tcp", "ours shm", "ours alloc"].map((ours) =>
      ratio(ratioOf(seconds, rounds.get(ours) ?? [])),
    );
    console.log(`  ${name.padEnd(42)} ${times.map(milliseconds).join("")}  ${ratios.join("  ")}`);
  }
  for (const goal of goals) console.log(`  ${describeGoal(goal)}`);
}

function describeGoal({ goal, value, isMet }: Verdict): string {
  const shown = value < 0.01 ? `${(value * 1e6).toFixed(0)} µs` : value.toFixed(2);
  return `${isMet ? "met   " : "MISSED"}  ${goal}: ${shown}`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      programs: { type: "string" },
      quick: { type: "boolean", default: false },
      collectives: { type: "string", default: "all-reduce,all-to-all,all-to-all-v" },
      peers: { type: "string" },
      "sizes-kib": { type: "string" },
      rounds: { type: "string" },
      out: { type: "string" },
    },
  });
  if (values.programs === undefined) throw new Error("run it as: npm run bench:peers");
  const defaults = values.quick ? QUICK : FULL;
  const numbers = (text: string): number[] => text.split(",").map(Number);
  const cases = casesOf(
    values.collectives.split(","),
    numbers(values.peers ?? defaults.peers),
    numbers(values["sizes-kib"] ?? defaults.sizes),
  );
  const count = Number(values.rounds ?? defaults.rounds);
  const programs = JSON.parse(readFileSync(values.programs, "utf8")) as Programs;
  const skipped = Object.entries(programs).filter(([, { path }]) => path === undefined);
  for (const [name, { reason }] of skipped) console.log(`without ${name}: ${reason}`);
  const results = fileURLToPath(
    new URL(`../results/${new Date().toISOString().slice(0, 10)}-peers.json`, import.meta.url),
  );
  const out = values.out ?? (values.quick ? undefined : results);

  const interrupted = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => interrupted.abort(new Error(name)));
  }
  const contenders = contendersOf(programs);
  const rows: Row[] = [];
  try {
    for (const what of cases) {
      const rounds = await measure(what, contenders, count, interrupted.signal);
      const goals = verdictsOn(what, rounds);
      print(what, rounds, goals);
      const medians = [...rounds].map(([name, seconds]) => [name, medianOf(seconds)]);
      rows.push({
        case: what,
        seconds: Object.fromEntries(rounds),
        medianSeconds: Object.fromEntries(medians) as Record<string, number>,
        goals,
      });
      // What has been measured isn't lost when the rest is broken off.
      writeResults(out, { rounds: count, without: Object.fromEntries(skipped), rows });
    }
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
    process.exitCode = 130;
  }
  const goals = rows.flatMap((row) => row.goals.map((verdict) => ({ what: row.case, verdict })));
  const missed = goals.filter(({ verdict }) => !verdict.isMet);
  console.log(`\n${goals.length - missed.length} of ${goals.length} goals met`);
  for (const { what, verdict } of missed) console.log(`  ${describe(what)}: ${describeGoal(verdict)}`);
}

await main();
