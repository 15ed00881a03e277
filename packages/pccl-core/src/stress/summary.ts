/** The result of a stress run, and how people read it. */
import type { Recovery } from "./ledger.js";
import type { Fault } from "./schedule.js";

export interface Durations {
  readonly count: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface Counts {
  joins: number;
  leaves: number;
  kills: number;
  stops: number;
  blackHoles: number;
  pairCuts: number;
  resets: number;
  coordinatorRestarts: number;
  /** Peers that were removed because a stop or black hole outlasted their lease. */
  removals: number;
}

export interface MemoryGrowth {
  readonly process: string;
  readonly fromMiB: number;
  readonly toMiB: number;
  readonly seconds: number;
}

export interface StressSummary {
  /** No divergence, hang, leak or other problem. */
  readonly ok: boolean;
  readonly seed: number;
  readonly seconds: number;
  readonly peers: number;
  readonly groups: number;
  /** TCP connections between two linked peers; follows from the seed. */
  readonly connectionsPerPeer: number;
  readonly faults: readonly Fault[];
  readonly reducesCommitted: number;
  /** Attempts that a change of membership aborted, and that were made again. */
  readonly retriedOps: number;
  readonly counts: Readonly<Counts>;
  /** Longest time without a committed reduce, by group. */
  readonly longestGapMs: Readonly<Record<string, number>>;
  /** From a fault to the next committed reduce of a survivor. */
  readonly recovery: Durations | undefined;
  readonly recoveryByFault: Readonly<Record<string, Durations>>;
  readonly memory: readonly MemoryGrowth[];
  readonly divergences: readonly string[];
  readonly hangs: readonly string[];
  /** Processes that didn't end, and descriptors that old processes hold beyond those of new ones. */
  readonly leaks: readonly string[];
  /** Peers or a coordinator that ended without a reason, and others. */
  readonly problems: readonly string[];
  /** The last things that happened, when something went wrong. */
  readonly log: readonly string[];
}

export function durationsOf(values: readonly number[]): Durations | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  /** Nearest rank. */
  const at = (quantile: number): number =>
    Math.round(sorted[Math.ceil(quantile * sorted.length) - 1] ?? Number.NaN);
  return { count: sorted.length, medianMs: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

export function durationsByFault(recoveries: readonly Recovery[]): Record<string, Durations> {
  const faults = [...new Set(recoveries.map(({ fault }) => fault))].sort();
  return Object.fromEntries(
    faults.flatMap((fault) => {
      const durations = durationsOf(recoveries.filter((r) => r.fault === fault).map(({ ms }) => ms));
      return durations === undefined ? [] : [[fault, durations]];
    }),
  );
}

export function formatSummary(summary: StressSummary): string {
  const { counts, recovery, memory } = summary;
  const durations = ({ count, medianMs, p99Ms, maxMs }: Durations): string =>
    `median ${medianMs} ms, p99 ${p99Ms} ms, max ${maxMs} ms (${count})`;
  const gaps = Object.entries(summary.longestGapMs).map(
    ([group, ms]) => `group ${group}: ${Math.round(ms)} ms`,
  );
  const rows: [string, string | number][] = [
    ["seed", summary.seed],
    ["time", `${summary.seconds.toFixed(1)} s`],
    [
      "peers",
      `${summary.peers} in ${summary.groups} group(s), ${summary.connectionsPerPeer} connection(s) each`,
    ],
    ["reduces committed", `${summary.reducesCommitted} (${summary.retriedOps} attempts made again)`],
    ["joins / leaves", `${counts.joins} / ${counts.leaves}`],
    ["kills", counts.kills],
    ["stops", counts.stops],
    ["cuts of peers / pairs", `${counts.blackHoles} / ${counts.pairCuts}`],
    ["resets", counts.resets],
    ["removed for a fault", counts.removals],
    ["coordinator restarts", counts.coordinatorRestarts],
    ["longest gap", gaps.join(", ") || "no reduce was committed"],
    ["recovery", recovery === undefined ? "no fault" : durations(recovery)],
    ...Object.entries(summary.recoveryByFault).map(([fault, of]): [string, string] => [
      `  ${fault}`,
      durations(of),
    ]),
    ...memory.map(({ process, fromMiB, toMiB, seconds }): [string, string] => [
      "memory",
      `${process}: ${fromMiB.toFixed(0)} → ${toMiB.toFixed(0)} MiB in ${seconds.toFixed(0)} s`,
    ]),
    ["divergences", summary.divergences.length],
    ["hangs", summary.hangs.length],
    ["leaks", summary.leaks.length],
    ["other problems", summary.problems.length],
  ];
  const details = [...summary.divergences, ...summary.hangs, ...summary.leaks, ...summary.problems];
  const lines = [
    ...rows.map(([name, value]) => `${name.padEnd(22)}${value}`),
    ...details.map((text) => `  ! ${text}`),
    ...summary.log.map((text) => `    ${text}`),
    summary.ok ? "ok" : "FAILED",
  ];
  return `${lines.join("\n")}\n`;
}
