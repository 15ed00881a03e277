/** `pccl simulate`: the shipped machines in virtual time, one world of faults for each seed. */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { checkInteger } from "../base/check.js";
import { drawScenario, type Scenario } from "../sim/scenario.js";
import { shrink } from "../sim/shrink.js";
import { type RunResult, runScenario } from "../sim/simulation.js";
import type { SweepTally } from "../sim/tally.js";
import { formatTrace } from "../sim/trace.js";
import { sweep } from "./sweep.js";
import { UsageError } from "./usage.js";

const SEED_MAX: number = 2 ** 32 - 1;
const SEEDS_DEFAULT = "1..1000";
const THREADS_MAX = 256;
const STATUS_TERMINAL_MS = 500;
const STATUS_PLAIN_MS = 10_000;

export const SIMULATE_USAGE: string = `Usage: pccl simulate [options]

Runs the coordinator and the peers' sessions, the very code that ships, in worlds that exist
only in memory: a virtual clock and network, a coordinator's disk, and a model of the data
plane. Processes crash, stop, run slow; networks split, lose streams, refuse connections; the
coordinator restarts with its state or without; callers withdraw, leave, or call something
else than the others. After every event the rules of docs/simulator.md are checked. One seed
is one world, always the same. At the first broken rule the world is made as small as it can
be, and what happened in it is printed.

Options:
  --seeds A..B     Seeds to run (default ${SEEDS_DEFAULT})
  --minutes M      Stop after M minutes; without --seeds: from a seed drawn from the clock on
  --seed S         Run this one alone
  --trace          With --seed: print everything that happened in it
  --threads N      Threads to run on (default: one for each processor)
  --json           Print one JSON object
  -h, --help       Show this help

The status goes to stderr.

Exit codes: 0 no rule was broken; 1 one was; 2 wrong usage; 130 ended by a signal
`;

interface SimulateArguments {
  readonly help: boolean;
  readonly json: boolean;
  readonly trace: boolean;
  /** Alone. */
  readonly seed: number | undefined;
  readonly from: number;
  readonly to: number;
  readonly minutes: number | undefined;
  readonly threads: number;
}

function parseSimulateArguments(args: readonly string[]): SimulateArguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string" },
      seed: { type: "string" },
      minutes: { type: "string" },
      threads: { type: "string", default: String(availableParallelism()) },
      trace: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const integer = (name: string, text: string, min: number, max: number): number =>
    checkInteger("simulate", `--${name}`, /^\d+$/.test(text) ? Number(text) : text, min, max);
  const { seeds, seed, minutes, threads, trace, json, help } = values;
  if (seed !== undefined && (seeds !== undefined || minutes !== undefined)) {
    throw new UsageError("--seed is one seed alone; it doesn't go with --seeds or --minutes");
  }
  if (trace && seed === undefined) throw new UsageError("--trace needs --seed: it prints one run");
  const range = /^(\d+)\.\.(\d+)$/.exec(seeds ?? SEEDS_DEFAULT);
  if (range === null) throw new UsageError(`--seeds must be a range like 1..1000, got "${seeds}"`);
  if (minutes !== undefined && !(Number(minutes) > 0)) {
    throw new UsageError(`--minutes must be a number above 0, got "${minutes}"`);
  }
  const endless = minutes !== undefined && seeds === undefined;
  const from = endless ? seedFromClock() : integer("seeds", range[1] as string, 0, SEED_MAX);
  return {
    help,
    json,
    trace,
    seed: seed === undefined ? undefined : integer("seed", seed, 0, SEED_MAX),
    from,
    to: endless ? SEED_MAX : integer("seeds", range[2] as string, from, SEED_MAX),
    minutes: minutes === undefined ? undefined : Number(minutes),
    threads: integer("threads", threads, 1, THREADS_MAX),
  };
}

/** A different start for each second, with room for the seeds that follow. */
function seedFromClock(): number {
  return (Math.floor(Date.now() / 1_000) * 1_000) % 2 ** 31;
}

/** Runs to the end, a broken rule or a signal; returns the exit code. Throws UsageError or PcclError. */
export async function runSimulate(args: readonly string[]): Promise<number> {
  const parsed = parseSimulateArguments(args);
  if (parsed.help) {
    process.stdout.write(SIMULATE_USAGE);
    return 0;
  }
  return parsed.seed === undefined ? await runMany(parsed) : runOne(parsed.seed, parsed);
}

function runOne(seed: number, { trace, json }: SimulateArguments): number {
  const scenario = drawScenario(seed);
  const result = runScenario(scenario, { trace });
  const { violation } = result;
  if (json) {
    const { results, counts, faults, virtualMs } = result;
    const lines = result.trace.length === 0 ? {} : { trace: result.trace };
    process.stdout.write(
      `${JSON.stringify({ seed, virtualMs, results, counts, faults, violation: violation ?? null, scenario, ...lines })}\n`,
    );
  } else {
    if (trace) process.stdout.write(`${formatTrace(result.trace)}\n`);
    process.stdout.write(
      violation === undefined ? describeRun(result) : `seed ${seed} breaks ${violation.message}\n`,
    );
    if (violation !== undefined && !trace) process.stdout.write(describeFailure(scenario));
  }
  return violation === undefined ? 0 : 1;
}

async function runMany({ from, to, minutes, threads, json }: SimulateArguments): Promise<number> {
  const stop = new AbortController();
  let interrupted = false;
  const onSignal = (): void => {
    interrupted = true;
    stop.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  const timer = minutes === undefined ? undefined : setTimeout(() => stop.abort(), minutes * 60_000);
  const startedAtMs = performance.now();
  const secondsNow = (): number => (performance.now() - startedAtMs) / 1_000;
  const terminal = process.stderr.isTTY;
  let shownAtMs = startedAtMs;
  const onProgress = (tally: SweepTally): void => {
    if (performance.now() - shownAtMs < (terminal ? STATUS_TERMINAL_MS : STATUS_PLAIN_MS)) return;
    shownAtMs = performance.now();
    const line = describeRate(tally, secondsNow());
    process.stderr.write(terminal ? `\r\x1b[K${line}` : `${line}\n`);
  };
  try {
    const { tally, broken } = await sweep({ from, to, threads, signal: stop.signal, onProgress });
    if (terminal) process.stderr.write("\r\x1b[K");
    const seconds = secondsNow();
    if (json) {
      process.stdout.write(
        `${JSON.stringify({ from, ...tally, seconds, violation: broken === undefined ? null : failureOf(broken) })}\n`,
      );
    } else {
      process.stdout.write(describeSweep(from, tally, seconds));
      if (broken !== undefined) process.stdout.write(describeFailure(drawScenario(broken)));
    }
    if (broken !== undefined) return 1;
    return interrupted ? 130 : 0;
  } finally {
    clearTimeout(timer);
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}

function failureOf(seed: number): object {
  const shrunk = shrink(drawScenario(seed));
  if (shrunk === undefined) throw new Error(`seed ${seed} broke a rule, and then it didn't`);
  const { violation, scenario } = shrunk;
  return { seed, ...violation, scenario, trace: runScenario(scenario, { trace: true }).trace };
}

/** The smallest world in which the same rule breaks, and how to see the whole one. */
function describeFailure(scenario: Scenario): string {
  const { seed } = scenario;
  const shrunk = shrink(scenario);
  if (shrunk === undefined) throw new Error(`seed ${seed} broke a rule, and then it didn't`);
  const { peers, faults, quirks } = shrunk.scenario;
  const { violation, trace } = runScenario(shrunk.scenario, { trace: true });
  return [
    "",
    `Seed ${seed}, made small: ${peers.length} peers, ${faults.length} faults, ${quirks.length} quirks (${shrunk.runs} runs)`,
    "",
    formatTrace(trace),
    "",
    violation?.message ?? "",
    "",
    `Again:     pccl simulate --seed ${seed}`,
    `In full:   pccl simulate --seed ${seed} --trace`,
    "",
  ].join("\n");
}

function describeRun({ seed, virtualMs, results, counts }: RunResult): string {
  const done = results.filter((result) => result === "done").length;
  return (
    `seed ${seed}: ${(virtualMs / 1_000).toFixed(1)} s, ${results.length} peers, ${done} done, ` +
    `${counts.installs} installs, ${counts.commits} commits, ${counts.aborts} aborts; no rule was broken\n`
  );
}

function describeRate({ seeds, virtualMs }: SweepTally, seconds: number): string {
  const hours = virtualMs / 3_600_000;
  return `${seeds} seeds, ${hours.toFixed(1)} virtual hours, ${(seeds / seconds).toFixed(0)} seeds/s`;
}

function describeSweep(from: number, tally: SweepTally, seconds: number): string {
  const pairs = (counts: Readonly<Record<string, number>>): string =>
    Object.entries(counts)
      .sort(([, a], [, b]) => b - a)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ");
  return [
    `${describeRate(tally, seconds)}, from seed ${from} on, ${seconds.toFixed(1)} s`,
    `happened: ${pairs(tally.counts)}`,
    `faults:   ${pairs(tally.faults)}`,
    `ends:     ${pairs(tally.results)}`,
    "",
  ].join("\n");
}
