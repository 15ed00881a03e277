/**
 * The simulator beside the LLEP paper's measured speed-ups: fits the runtime's two times for each model family to
 * figure 4, prints what they were fitted to and what was held back, and each bar with the numbers that ship.
 *
 *   node bench/dist/simulator-fit.js
 */
import { readFileSync } from "node:fs";
import {
  generateCounts,
  modelLayer,
  PAPER_RUNTIMES,
  parseCluster,
  type Runtime,
  type SimulateOptions,
  simulate,
} from "@pccl/moe-ep";
import { medianOf } from "./statistics.js";

interface Bar {
  readonly name: string;
  readonly speedup: number;
  readonly step: Pick<SimulateOptions, "shape" | "batches">;
}
interface PaperBars {
  readonly bars: readonly { readonly model: string; readonly scenario: string; readonly speedup: number }[];
  readonly heldOut: readonly {
    readonly figure: string;
    readonly experts: number;
    readonly tokens: number;
    readonly scenario: string;
    readonly speedup: number;
  }[];
}
interface Times {
  readonly expertSeconds: number;
  readonly lendSeconds: number;
}

const cluster = parseCluster("8xH200");
const fixture = new URL("../../packages/moe-ep/test/fixtures/paper-bars.json", import.meta.url);
const paper = JSON.parse(readFileSync(fixture, "utf8")) as PaperBars;
/** Errors well above this weigh little. */
const USUAL_ERROR = 0.05;

const figure4 = paper.bars.map(({ model, scenario, speedup }) => {
  const { experts, topK, hiddenSize, ffnSize, tokensPerRank: tokens, family } = modelLayer(model);
  const batches = [generateCounts({ scenario, experts, topK, tokens, ranks: 8 })];
  const shape = { hiddenSize, ffnSize, elementBytes: 2 };
  return { family, name: `${model} ${scenario}`, speedup, step: { shape, batches } };
});
const heldOut = paper.heldOut.map(({ figure, experts, tokens, scenario, speedup }) => {
  const batches = [generateCounts({ scenario, experts, topK: 4, tokens, ranks: 8 })];
  const shape = { hiddenSize: 2048, ffnSize: 2048, elementBytes: 2 };
  return { figure, experts, name: `${experts} experts, ${tokens} tokens`, speedup, step: { shape, batches } };
});

/** As the paper's planner plans, by the simulator. */
function predict({ step }: Bar, times: Times): number {
  const runtime: Runtime = { ...PAPER_RUNTIMES["gpt-oss"], ...times };
  const { forecasts } = simulate({ ...step, cluster, runtime });
  return forecasts.find(({ strictReference }) => strictReference)?.speedupOverEp ?? Number.NaN;
}

const errorOf = (bar: Bar, times: Times): number => predict(bar, times) / bar.speedup - 1;

function loss(bars: readonly Bar[], times: Times): number {
  return bars.reduce(
    (sum, bar) => sum + Math.hypot(1, Math.log(predict(bar, times) / bar.speedup) / USUAL_ERROR) - 1,
    0,
  );
}

/** Of a coarse grid's best point the best neighbour, on ever finer grids. */
function fit(bars: readonly Bar[]): Times {
  let [best, least]: [Times | undefined, number] = [undefined, Number.POSITIVE_INFINITY];
  const consider = (expertSeconds: number, lendSeconds: number): void => {
    const times = { expertSeconds: Math.max(1e-6, expertSeconds), lendSeconds: Math.max(0, lendSeconds) };
    const value = loss(bars, times);
    if (value < least) [best, least] = [times, value];
  };
  for (let i = 0; i < 10; i++) for (let j = 0; j < 10; j++) consider(i * 20e-6, j * 2e-3);
  for (let width = 1; width > 0.02; width *= 0.8) {
    const { expertSeconds, lendSeconds } = best as unknown as Times;
    for (let i = -2; i <= 2; i++) {
      for (let j = -2; j <= 2; j++)
        consider(expertSeconds + i * width * 10e-6, lendSeconds + j * width * 1e-3);
    }
  }
  return best as unknown as Times;
}

function summarize(bars: readonly Bar[], times: Times): string {
  const errors = bars.map((bar) => Math.abs(errorOf(bar, times)));
  const percent = (error: number): string => `${(error * 100).toFixed(1)} %`;
  return `${bars.length} bars, median error ${percent(medianOf(errors))}, largest ${percent(Math.max(...errors))}`;
}

const describe = ({ expertSeconds, lendSeconds }: Times): string =>
  `${(expertSeconds * 1e6).toFixed(0)} µs per expert, ${(lendSeconds * 1e3).toFixed(1)} ms per lending step`;

for (const family of ["gpt-oss", "deepseek"] as const) {
  const bars = figure4.filter((bar) => bar.family === family);
  const shipped = PAPER_RUNTIMES[family];
  process.stdout.write(`\n${family}: ships ${describe(shipped)}: ${summarize(bars, shipped)}\n`);
  process.stdout.write(`  fitted now: ${describe(fit(bars))}\n`);
  for (const bar of bars) {
    const error = (errorOf(bar, shipped) * 100).toFixed(0);
    process.stdout.write(
      `  ${bar.name.padEnd(24)} ${predict(bar, shipped).toFixed(2)}  paper ${bar.speedup.toFixed(2)}  ${error.padStart(3)} %\n`,
    );
  }
}
const shipped = PAPER_RUNTIMES["gpt-oss"];
const single = fit(figure4);
process.stdout.write(`\none pair for all: ${describe(single)}: ${summarize(figure4, single)}\n`);
process.stdout.write("held back, with gpt-oss's numbers:\n");
const of = (figure: string, expertsMin = 0): readonly Bar[] =>
  heldOut.filter((bar) => bar.figure === figure && bar.experts >= expertsMin);
process.stdout.write(`  figure 6a (tokens per GPU): ${summarize(of("6a"), shipped)}\n`);
process.stdout.write(
  `  figure 9 (experts), from 64 on: ${summarize(of("9", 64), shipped)}; all: ${summarize(of("9"), shipped)}\n`,
);
