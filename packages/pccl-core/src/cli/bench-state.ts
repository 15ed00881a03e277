/** `pccl bench state`: how long syncs of shared state take, from how many holders to how many receivers. */
import { parseArgs } from "node:util";
import { checkInteger, checkNumber, checkOneOf } from "../base/check.js";
import { formatSize, parseSizes } from "../bench/size.js";
import type { StateJob, StateMeasurement } from "../bench/state/job.js";
import { runStateBench, runStateBenchOver } from "../bench/state/run.js";
import { StatusLine } from "./status-line.js";
import { UsageError } from "./usage.js";

const PEERS_MAX = 64;
const TENSORS_MAX = 65_536;

export const STATE_USAGE: string = `Usage: pccl bench state [options]

Measures syncSharedState through the public API, between processes of this machine: some peers
hold the content, the others have leaves (pieces of 64 KiB) that differ. What the receivers have
afterwards is compared byte by byte first.

Options:
  --holders N          Peers that have the content (default 1)
  --receivers N        Peers that fetch what differs (default 1)
  --sizes A,B,…        Sizes of the state like 64MiB or 1GiB (default 64MiB,1GiB)
  --changed SHARE      The share of the leaves that differ, up to 1 (default 1)
  --tensors N          The state is in N tensors of equal size (default 1)
  --transport KIND     auto, tcp or shm (default auto)
  --alloc              Tensors from Communicator.alloc instead of ordinary arrays
  --iterations K       Timed syncs of each kind (default 5)
  --wanem PATH         Put each peer on an emulated host; needs root. With
  --up RATE            what a host may send in total (default 200mbit),
  --down RATE          what each link carries (default 1gbit), and
  --rtt TIME           the round trip (default 20ms)
  --json               Print one JSON object: {"results":[{"holders","receivers","bytes",
                       "tensors","changed","transport","unchangedSeconds","medianSeconds",
                       "minSeconds","rxBytes","movedShare","transferGBps","verified":true}]}
  -h, --help           Show this help

unchanged is a sync of equal states: all of it is hashed, and nothing moves. transfer is the
bytes that differ by how much longer the whole sync takes than that, which includes copying them
into place. The status goes to stderr.

Exit codes: 0 all sizes were measured; 1 a peer failed, or a byte was wrong; 2 wrong usage;
130 ended by a signal
`;

const HEADER = `${["size", "changed", "unchanged", "median", "min", "moved", "transfer"]
  .map((title) => title.padStart(11))
  .join("")}\n`;

function formatRow(row: StateMeasurement): string {
  const cells = [
    formatSize(row.bytes),
    `${(row.changed * 100).toFixed(1)} %`,
    `${(row.unchangedSeconds * 1_000).toFixed(1)} ms`,
    `${(row.medianSeconds * 1_000).toFixed(1)} ms`,
    `${(row.minSeconds * 1_000).toFixed(1)} ms`,
    `${(row.movedShare * 100).toFixed(2)} %`,
    row.transferGBps === null ? "-" : `${row.transferGBps.toFixed(2)} GB/s`,
  ];
  return `${cells.map((cell) => cell.padStart(11)).join("")}\n`;
}

/** Runs to the end, or until a signal; returns the exit code. Throws UsageError or PcclError. */
export async function runStateBenchCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      holders: { type: "string", default: "1" },
      receivers: { type: "string", default: "1" },
      sizes: { type: "string", default: "64MiB,1GiB" },
      changed: { type: "string", default: "1" },
      tensors: { type: "string", default: "1" },
      transport: { type: "string", default: "auto" },
      alloc: { type: "boolean", default: false },
      iterations: { type: "string", default: "5" },
      wanem: { type: "string" },
      up: { type: "string", default: "200mbit" },
      down: { type: "string", default: "1gbit" },
      rtt: { type: "string", default: "20ms" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(STATE_USAGE);
    return 0;
  }
  if (positionals.length > 0) throw new UsageError("bench state takes options only");
  const integer = (option: "holders" | "receivers" | "tensors" | "iterations", max: number): number => {
    const text = values[option];
    return checkInteger("bench state", `--${option}`, /^\d+$/.test(text) ? Number(text) : text, 1, max);
  };
  const holders = integer("holders", PEERS_MAX);
  const receivers = integer("receivers", PEERS_MAX);
  const { changed, wanem, up, down, rtt, json } = values;
  const job: StateJob = {
    holders,
    receivers,
    world: holders + receivers,
    sizesBytes: parseSizes("--sizes", values.sizes),
    changed: checkNumber("bench state", "--changed", Number(changed), 1e-6, 1),
    tensors: integer("tensors", TENSORS_MAX),
    transport: checkOneOf("bench state", "--transport", values.transport, ["auto", "tcp", "shm"]),
    memory: values.alloc ? "alloc" : "array",
    iterations: integer("iterations", 1_000),
  };
  const small = job.sizesBytes.find((bytes) => bytes < job.tensors * 4);
  if (small !== undefined)
    throw new UsageError(`--sizes: ${formatSize(small)} is too little for the tensors`);
  return await run(job, wanem === undefined ? undefined : { wanem, up, down, rtt }, json);
}

async function run(
  job: StateJob,
  network: Parameters<typeof runStateBenchOver>[0] | undefined,
  json: boolean,
): Promise<number> {
  const interrupted = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => interrupted.abort(new Error(name));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  let status = "the peers join";
  const line = new StatusLine(() => `state: ${status}`);
  const results: StateMeasurement[] = [];
  const hooks = {
    signal: interrupted.signal,
    onProgress: ({ phase, bytes }: { phase: string; bytes: number }) => {
      if (phase !== "joining") status = `${phase} ${formatSize(bytes)}`;
    },
    onMeasurement: (measurement: StateMeasurement) => {
      line.clear();
      if (!json) process.stdout.write((results.length === 0 ? HEADER : "") + formatRow(measurement));
      results.push(measurement);
    },
  };
  try {
    if (network === undefined) await runStateBench(job, hooks);
    else await runStateBenchOver(network, job, hooks);
    if (json) process.stdout.write(`${JSON.stringify({ results })}\n`);
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
