/** `pccl bench wan`: a scenario of links, measured between hosts that wanem emulates. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { plotScenario } from "../bench/wan/plots.js";
import { formatGoals, formatWanRow, WAN_HEADER } from "../bench/wan/report.js";
import { runScenario, type WanMeasurement } from "../bench/wan/run.js";
import { parseScenario } from "../bench/wan/scenario.js";
import { pcclError } from "../base/errors.js";
import { StatusLine } from "./status-line.js";
import { UsageError } from "./usage.js";

export const WAN_USAGE: string = `Usage: pccl bench wan SCENARIO.json --wanem PATH [options]

Measures a collective between emulated hosts: the program wanem makes a network namespace for
each host and links with delays, rates and loss between them, which needs root. Every result is
checked, as pccl bench does.

Options:
  --wanem PATH         The emulator
  --plots DIR          Write plots (SVG) of throughput over connections and over round trips
                       there; needs the package echarts
  --json               Print one JSON object: {"title","results":[…]}
  -h, --help           Show this help

A scenario has the keys
  title, hosts         and
  network              of every link: rate ("250mbit"), rtt or delay ("100ms"; delay is one way),
                       loss ("1%"), queue, jitter. A list: the run is repeated for each value
  links                [{"from":0,"to":1,"both":true, …}] that differ, with the same keys
  sizes                ["64MiB"], of pccl bench
  connections          ["auto",1,8] per link; auto (default): the library finds out
  congestionControl    ["default","bbr"]
  collective, dtypes   as in pccl bench (default all-reduce and f32)
  quantize             ["none","u8"]: what f32 elements are sent as, as in pccl bench
  iterations           timed runs (default: as many as take a second, at least 7)
  warmUpSeconds        before them (default 4)
  goals                [{"of":{"connections":"auto"},"efficiencyMin":0.9}]; others are
                       roundTripsMax, and ratioMin with "over", another choice

The bound is that of the best ring: its bytes over the slowest link at 0.957 of the rate, which is
what headers leave of it, and 2(N-1) one-way delays. A goal that is missed is printed as such, and
is no error.

Exit codes: 0 all was measured; 1 a peer failed, or a result was wrong; 2 wrong usage;
130 ended by a signal
`;

/** Runs to the end, or until a signal; returns the exit code. Throws UsageError or PcclError. */
export async function runWanBenchCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      wanem: { type: "string" },
      plots: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(WAN_USAGE);
    return 0;
  }
  const [file, extra] = positionals;
  if (file === undefined || extra !== undefined) throw new UsageError("bench wan needs one scenario file");
  const { wanem, plots, json } = values;
  if (wanem === undefined) throw new UsageError("bench wan needs --wanem, the path of the emulator");
  const scenario = parseScenario(await read(file));
  const interrupted = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => interrupted.abort(new Error(name));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  let status = "";
  const line = new StatusLine(() => `${scenario.title}: ${status}`);
  const results: WanMeasurement[] = [];
  if (!json) process.stdout.write(`${scenario.title}\n${WAN_HEADER}`);
  try {
    await runScenario(scenario, wanem, {
      signal: interrupted.signal,
      onStatus: (latest) => {
        status = latest;
      },
      onMeasurement: (measurement) => {
        line.clear();
        if (!json) process.stdout.write(formatWanRow(measurement));
        results.push(measurement);
      },
    });
    line.clear();
    process.stdout.write(
      json ? `${JSON.stringify({ title: scenario.title, results })}\n` : formatGoals(scenario, results),
    );
    if (plots !== undefined) {
      await mkdir(plots, { recursive: true });
      for (const { name, svg } of await plotScenario(scenario.title, results)) {
        await writeFile(join(plots, name), svg);
      }
    }
    return 0;
  } catch (error) {
    if (interrupted.signal.aborted) return 130;
    throw error;
  } finally {
    line.end();
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `bench wan: ${file} can't be read: ${(error as Error).message}.`,
    );
  }
}
