/** `npm run demo`: parses the options, runs the group and the comparison, prints the report. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bigramLoss } from "./bigram.js";
import { GroupRun } from "./group-run.js";
import { runAlone } from "./lone-run.js";
import { HELP, type Options, parseOptions, UsageError } from "./options.js";
import { bar, Progress } from "./progress.js";
import { renderReport, type Summary, summarize, writeChart } from "./report.js";
import { collectText, splitText } from "./text.js";
import { heldOutPositions } from "./trainer.js";
import { Watchdog } from "./watchdog.js";

/** A run in which nothing at all is reported for this long hangs. */
const WATCHDOG_SECONDS = 60;

class Interrupted extends Error {}

async function demo(options: Options, signal: AbortSignal, fail: (error: Error) => void): Promise<Summary> {
  const start = performance.now();
  const { outerSteps, innerSteps } = options;
  const progress = new Progress(process.stderr);
  const bytes = collectText(options.text);
  const description = `${options.text ?? "this repository's docs and sources"} (${Math.round(bytes.length / 1000)} kB)`;
  // Before anything is started: a run must not end in a folder that can't be written.
  mkdirSync(options.out, { recursive: true });
  const textFile = join(options.out, "text.txt");
  writeFileSync(textFile, bytes);
  const text = splitText(bytes);
  const lossBigram = bigramLoss(text.train, text.heldOut, heldOutPositions(text));
  progress.line(
    `${options.peers} peers, ${outerSteps} × ${innerSteps} steps on ${description}; bigram model: ${lossBigram.toFixed(3)} nats per byte`,
  );
  const watchdog = new Watchdog(WATCHDOG_SECONDS, () =>
    fail(new Error(`Nothing has happened for ${WATCHDOG_SECONDS} s.\n${run.describe()}`)),
  );
  const run = new GroupRun(
    options,
    textFile,
    {
      event: (what) => progress.line(what),
      step: (record) => progress.step(record, outerSteps),
      inner: (index, done) => {
        const part = (index * innerSteps + done) / (outerSteps * innerSteps);
        progress.status(
          `${bar(part)} outer step ${index + 1}/${outerSteps}, inner step ${done}/${innerSteps}`,
        );
      },
    },
    watchdog,
  );
  try {
    progress.status("starting the peers");
    const group = await run.run(signal);
    progress.line(`done in ${group.seconds.toFixed(1)} s; for comparison, one peer alone with as many steps`);
    const onStep = (outer: number): void =>
      progress.status(
        `${bar(outer / outerSteps)} alone, step ${outer * innerSteps}/${outerSteps * innerSteps}`,
      );
    const lone = await runAlone(options, textFile, onStep, watchdog, signal);
    progress.status("");
    const seconds = (performance.now() - start) / 1000;
    const summary = summarize(options, group, lone, lossBigram, seconds);
    const chart = writeChart(options, group, lone, lossBigram, description);
    process.stdout.write(renderReport(options, group, lone, summary, chart));
    return summary;
  } finally {
    progress.status("");
    watchdog.stop();
  }
}

/** Runs the demo until its end or the first signal; the exit status. */
async function runUntilSignal(options: Options): Promise<number> {
  const stop = new AbortController();
  let interrupts = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      // The children see the channel close and end by themselves.
      if (++interrupts > 1) process.exit(130);
      process.stderr.write(`\n${signal}: the peers leave\n`);
      stop.abort(new Interrupted(signal));
    });
  }
  let summary: Pick<Summary, "ok" | "problems">;
  try {
    summary = await demo(options, stop.signal, (error) => stop.abort(error));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    summary = { ok: false, problems: [(error as Error).message] };
    if (!(error instanceof Interrupted)) process.stderr.write(`${(error as Error).stack}\n`);
  }
  if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  if (interrupts > 0) return 130;
  return summary.ok ? 0 : 1;
}

async function main(): Promise<number> {
  try {
    const options = parseOptions(process.argv.slice(2));
    if (options !== undefined) return await runUntilSignal(options);
    process.stdout.write(HELP);
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`${error.message} See --help.\n`);
    return 2;
  }
}

process.exitCode = await main();
