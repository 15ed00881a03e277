/** What the run came to: whether it is ok, the report for people, the summary for programs, the loss curve. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { renderChart } from "./chart.js";
import type { GroupResult } from "./group-run.js";
import type { LoneResult } from "./lone-run.js";
import { DEFAULTS, type Options } from "./options.js";
import { formatBytes } from "./progress.js";
import { heldOutLoss } from "./step-log.js";

/** The line that --json prints. Losses in nats per byte of held-out text. */
export interface Summary {
  readonly ok: boolean;
  readonly outerSteps: number;
  /** Peers whose work was in each outer step. */
  readonly worldSizes: readonly number[];
  readonly killed: number;
  readonly joined: number;
  readonly retriedOps: number;
  readonly lossInitial: number;
  readonly lossFinal: number;
  readonly lossBigram: number;
  /** One peer alone with the same number of inner steps. */
  readonly lossAlone: number;
  readonly hashesEqual: boolean;
  readonly seconds: number;
  /** Why it isn't ok; empty if it is. */
  readonly problems: readonly string[];
}

/** What the final loss may be at most, as a part of the bigram model's. */
const LOSS_PART_MAX = 0.9;

export function summarize(
  options: Options,
  group: GroupResult,
  lone: LoneResult,
  lossBigram: number,
  seconds: number,
): Summary {
  const records = group.records.slice(1);
  const losses = group.records.map(heldOutLoss);
  const lossInitial = losses[0] ?? Number.NaN;
  const lossFinal = losses.at(-1) ?? Number.NaN;
  const lossAlone = lone.curve.at(-1)?.[1] ?? Number.NaN;
  const hashesEqual = new Set(group.finalStates.map(({ digest }) => digest)).size === 1;
  const isFull =
    options.text === undefined &&
    options.outerSteps >= DEFAULTS.outerSteps &&
    options.innerSteps >= DEFAULTS.innerSteps;
  const checks: [boolean, string][] = [
    [hashesEqual, "the peers' parameters differ"],
    [
      group.finalStates.every(({ index }) => index === options.outerSteps),
      "a peer didn't make all outer steps",
    ],
    [records.length === options.outerSteps, "the number of outer steps is wrong"],
    [group.killed === (options.peers > 1 ? 1 : 0), "no peer was killed"],
    [group.joined === 1, "no peer joined"],
    [[...losses, lossAlone, lossBigram].every(Number.isFinite), "a loss is not finite"],
    [
      !isFull || lossFinal <= LOSS_PART_MAX * lossBigram,
      `the final loss is more than ${LOSS_PART_MAX} times the bigram model's`,
    ],
  ];
  const problems = checks.filter(([holds]) => !holds).map(([, problem]) => problem);
  return {
    ok: problems.length === 0,
    outerSteps: records.length,
    worldSizes: records.map(({ worldSize }) => worldSize),
    killed: group.killed,
    joined: group.joined,
    retriedOps: records.reduce((sum, { retriedOps }) => sum + retriedOps, 0),
    lossInitial,
    lossFinal,
    lossBigram,
    lossAlone,
    hashesEqual,
    seconds: Number(seconds.toFixed(1)),
    problems,
  };
}

/** Writes the chart and gives its path. */
export function writeChart(
  options: Options,
  group: GroupResult,
  lone: LoneResult,
  lossBigram: number,
  description: string,
): string {
  const { innerSteps } = options;
  const last = options.outerSteps * innerSteps;
  const records = group.records;
  const svg = renderChart({
    title: `Byte-level language model on ${description}`,
    xLabel: "inner steps per peer",
    yLabel: "loss on held-out text, nats per byte",
    series: [
      {
        label: `DiLoCo, ${options.peers} peers`,
        color: "#1f6feb",
        points: records.map((record) => [record.index * innerSteps, heldOutLoss(record)]),
      },
      { label: "one peer alone", color: "#d9730d", points: lone.curve },
      {
        label: "bigram model",
        color: "#7b8794",
        dashed: true,
        points: [
          [0, lossBigram],
          [last, lossBigram],
        ],
      },
    ],
    marks: records.flatMap(({ index, events }) =>
      events
        .filter((event) => /killed|joined/.test(event))
        // In the course of the step that led to the record.
        .map((event) => ({ x: (index - 0.5) * innerSteps, label: event.replace(/,.*/, "") })),
    ),
  });
  const path = join(options.out, "loss.svg");
  writeFileSync(path, svg);
  return path;
}

export function renderReport(
  options: Options,
  group: GroupResult,
  lone: LoneResult,
  summary: Summary,
  chartPath: string,
): string {
  const rows = group.records.map((record) => [
    String(record.index),
    String(record.worldSize),
    String(record.epoch),
    record.loss?.toFixed(3) ?? "",
    heldOutLoss(record).toFixed(3),
    record.index === 0 ? "" : formatBytes(record.txBytes),
    record.index === 0 ? "" : record.computing.toFixed(2),
    record.index === 0 ? "" : record.waiting.toFixed(2),
    [...record.events, ...(record.retriedOps > 0 ? ["reduction retried"] : [])].join("; "),
  ]);
  const header = [
    "step",
    "peers",
    "epoch",
    "train loss",
    "held-out",
    "sent",
    "computing s",
    "waiting s",
    "in this step",
  ];
  const states = group.finalStates.map(({ name, index, digest }) => `  ${name}: step ${index}, ${digest}`);
  const steps = options.outerSteps * options.innerSteps;
  return `
${table([header, ...rows])}

Held-out loss, nats per byte
  at the beginning                         ${summary.lossInitial.toFixed(3)}
  bigram model (the reference)             ${summary.lossBigram.toFixed(3)}
  one peer alone, ${pad(`${steps} steps`, 24)} ${summary.lossAlone.toFixed(3)}   in ${lone.seconds.toFixed(1)} s, after the group's run, not beside it
  ${pad(`${options.peers} peers, ${steps} steps each`, 40)} ${summary.lossFinal.toFixed(3)}   in ${group.seconds.toFixed(1)} s, all on this machine

The model writes
${group.sample
  .split("\n")
  .map((one) => `  | ${one}`)
  .join("\n")}

Hash of parameters and momentum on every live peer: ${summary.hashesEqual ? "equal" : "DIFFERENT"}
${states.join("\n")}

Loss curve: ${chartPath}
${summary.ok ? "ok" : `not ok: ${summary.problems.join("; ")}`}: ${summary.outerSteps} outer steps, ${summary.killed} killed, ${summary.joined} joined, ${summary.retriedOps} retried, ${summary.seconds} s
`;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padStart(widths[column] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function pad(text: string, width: number): string {
  return text.padEnd(width);
}
