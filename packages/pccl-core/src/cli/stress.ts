/** `pccl stress`: real peers under churn and faults, with a live status and a verdict. */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { checkInteger } from "../base/check.js";
import { GROUP_MAX, LEASE_MAX_MS, LEASE_MIN_MS } from "../base/limits.js";
import { type StressOptions, StressRun, type StressStatus } from "../stress/run.js";
import type { Fault } from "../stress/schedule.js";
import { formatSummary } from "../stress/summary.js";
import { StatusLine } from "./status-line.js";
import { UsageError } from "./usage.js";

const PEERS_DEFAULT = 10;
const PEERS_MAX = 100;
const DURATION_DEFAULT = "60s";
const LEASE_DEFAULT_MS = 2_000;
const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

export const STRESS_USAGE: string = `Usage: pccl stress [options]

Starts a coordinator and peers as processes of this machine. The peers vote, sync a shared
state of 4 MiB, go through every other collective, and reduce (10 × 128×128 f32 and one of
4 MiB) without pause, while every half to two seconds one joins or leaves, or something worse
happens. Every element of every result is checked, and after each step the hashes of all peers
are compared; at the end processes, descriptors and memory are.

Options:
  --peers N            Most peers at a time (default ${PEERS_DEFAULT})
  --groups N           Groups that they are spread over (default 1)
  --duration TIME      How long to disturb them, like 500ms, 60s, 10m, 8h (default ${DURATION_DEFAULT})
  --seed N             What happens and in which order, and how many connections two peers
                       have (default: a random one, printed)
  --lease-ms N         Silence after which a peer counts as dead (default ${LEASE_DEFAULT_MS})
  --kill               Kill peers (SIGKILL)
  --stop               Stop peers (SIGSTOP) for less or more than their lease
  --coordinator-kill   Kill the coordinator, and start it again
  --state DIR          Where the coordinator keeps its state (with --coordinator-kill: by
                       default a temporary directory)
  --netns              Each peer in a network namespace of its own: cut off peers, or pairs of
                       them, in silence, and reset connections (needs root and iproute2)
  --json               Print the summary as one JSON object
  -h, --help           Show this help

The status goes to stderr. SIGINT or SIGTERM ends the run, and cleans up.

Exit codes: 0 no divergence, hang, leak or other problem; 1 some, or the run could not begin;
2 wrong usage; 130 ended by a signal
`;

interface StressArguments {
  readonly help: boolean;
  readonly json: boolean;
  readonly options: StressOptions;
}

function parseStressArguments(args: readonly string[]): StressArguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      peers: { type: "string", default: String(PEERS_DEFAULT) },
      groups: { type: "string", default: "1" },
      duration: { type: "string", default: DURATION_DEFAULT },
      seed: { type: "string", default: String(Math.floor(Math.random() * 1_000_000)) },
      "lease-ms": { type: "string", default: String(LEASE_DEFAULT_MS) },
      kill: { type: "boolean", default: false },
      stop: { type: "boolean", default: false },
      "coordinator-kill": { type: "boolean", default: false },
      state: { type: "string" },
      netns: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const integer = (name: "peers" | "groups" | "seed" | "lease-ms", min: number, max: number): number =>
    checkInteger(
      "stress",
      `--${name}`,
      /^\d+$/.test(values[name]) ? Number(values[name]) : values[name],
      min,
      max,
    );
  const groups = integer("groups", 1, PEERS_MAX / 2);
  // Two peers of each group are left alone, and one more has to be there to be disturbed.
  const peers = integer("peers", 3 * groups, PEERS_MAX);
  const faults: readonly (readonly [Fault, boolean])[] = [
    ["kill", values.kill],
    ["stop", values.stop],
    ["coordinator-kill", values["coordinator-kill"]],
    ["black-hole", values.netns],
    ["pair-cut", values.netns],
    ["reset", values.netns],
  ];
  return {
    help: values.help,
    json: values.json,
    options: {
      peers,
      groups,
      durationMs: parseDuration(values.duration),
      seed: integer("seed", 0, GROUP_MAX),
      leaseMs: integer("lease-ms", LEASE_MIN_MS, LEASE_MAX_MS),
      faults: faults.filter(([, on]) => on).map(([fault]) => fault),
      netns: values.netns,
      stateDirectory: values.state,
      program: fileURLToPath(new URL("./main.js", import.meta.url)),
    },
  };
}

function parseDuration(text: string): number {
  const [, number = "", unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  const ms = Number(number) * (UNITS_MS[unit] ?? Number.NaN);
  if (!(ms > 0)) throw new UsageError(`--duration must be a time like 500ms, 60s, 10m or 8h, got "${text}"`);
  return ms;
}

/** Runs to the end, or until a signal; returns the exit code. Throws UsageError or PcclError. */
export async function runStress(args: readonly string[]): Promise<number> {
  const { help, json, options } = parseStressArguments(args);
  if (help) {
    process.stdout.write(STRESS_USAGE);
    return 0;
  }
  const interrupted = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => interrupted.abort(new Error(name));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  process.stderr.write(`seed ${options.seed}\n`);
  const run = new StressRun(options);
  const line = new StatusLine(() => {
    const status = run.status();
    return status === undefined ? undefined : formatStatus(status);
  });
  try {
    const summary = await run.run(interrupted.signal);
    line.clear();
    process.stdout.write(json ? `${JSON.stringify(summary)}\n` : formatSummary(summary));
    if (interrupted.signal.aborted) return 130;
    return summary.ok ? 0 : 1;
  } finally {
    line.end();
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}

function formatStatus({ phase, seconds, working, steps, counts }: StressStatus): string {
  const faults = [
    ["kills", counts.kills],
    ["stops", counts.stops],
    ["cuts", counts.blackHoles + counts.pairCuts],
    ["resets", counts.resets],
    ["restarts", counts.coordinatorRestarts],
  ].map(([name, count]) => `${name} ${count}`);
  return (
    `${seconds.toFixed(0)} s  ${phase}  step ${steps.join("/")}  peers ${working}  ` +
    `joins ${counts.joins}  leaves ${counts.leaves}  ${faults.join("  ")}`
  );
}
