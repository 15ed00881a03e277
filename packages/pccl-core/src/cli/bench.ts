/** `pccl bench`: how long collectives take, between processes of its own or as one peer of many machines. */
import { parseArgs } from "node:util";
import { COLLECTIVE_NAMES, COLLECTIVES } from "../bench/collectives.js";
import { REDUCE_OPS } from "../bench/contributions.js";
import { type BenchJob, type Measurement, type Progress, WARM_UP_SECONDS_DEFAULT } from "../bench/job.js";
import { measure } from "../bench/measure.js";
import { DTYPES } from "../bench/pattern.js";
import { QUANTIZED_FORMATS } from "../bench/quantized-error.js";
import { formatHeader, formatRow } from "../bench/report.js";
import { type BenchHooks, runBench } from "../bench/run.js";
import { formatSize, parseSizes } from "../bench/size.js";
import { usableBytes } from "../bench/work.js";
import { checkInteger, checkNumber, checkOneOf } from "../base/check.js";
import { CONNECTIONS_PER_PEER_MAX, OPS_IN_FLIGHT_MAX } from "../base/limits.js";
import { runStateBenchCommand } from "./bench-state.js";
import { runWanBenchCommand } from "./bench-wan.js";
import { StatusLine } from "./status-line.js";
import { UsageError } from "./usage.js";

const WORLD_MAX = 64;
const WORLD_DEFAULT = 2;
const SIZES_DEFAULT = "4KiB,256KiB,4MiB,16MiB,64MiB,256MiB";
const ITERATIONS_MAX = 1_000_000;
/** Of a group whose peers are started by hand. */
const JOIN_TIMEOUT_MS = 600_000;

const BYTES_HELP = COLLECTIVE_NAMES.map((name) => `  ${name.padEnd(16)} ${COLLECTIVES[name].bytes}`).join(
  "\n",
);

export const BENCH_USAGE: string = `Usage: pccl bench COLLECTIVE [options]
       pccl bench state [options]                 (shared state; see pccl bench state --help)
       pccl bench wan SCENARIO.json [options]     (over emulated links; see pccl bench wan --help)

Measures a collective through the public API: starts a coordinator and N peers as processes of
this machine, or joins a run as one of N peers. For each size, every element of a result is
checked on every peer first. One iteration's time is that of the peer that it took longest.

Collectives, and what their size is:
${BYTES_HELP}

Options:
  --world N            Peers, 1 to ${WORLD_MAX} (default ${WORLD_DEFAULT})
  --sizes A,B,…        Sizes like 4KiB or 64MiB, rounded down to whole blocks of whole elements
                       (default ${SIZES_DEFAULT})
  --transport KIND     auto, tcp or shm (default auto)
  --dtype TYPE         ${DTYPES.join(" ")} (default f32)
  --op OP              ${REDUCE_OPS.join(" ")} (default sum)
  --quantize FORMAT    ${QUANTIZED_FORMATS.join(" ")}: what the elements, f32, of an
                       all-reduce or reduce-scatter are sent as (default: as they are)
  --connections C      TCP connections between two peers (default: what connect() takes)
  --congestion-control NAME
                       Of the TCP connections, as the kernel names it (default: the system's)
  --iterations K       Timed runs of each size (default: as many as take about a second)
  --in-place           The result takes the place of what was sent (all-reduce: the default;
  --out-of-place       all-gather), or goes elsewhere
  --skew S             all-to-all with counts: the share S of each peer's data, from 1/N to 1,
                       goes to rank 0, and the rest to the others in equal parts
  --alloc              Tensors from Communicator.alloc, in huge pages, instead of ordinary arrays
  --concurrency K      K ops at once, each of a K-th of the size (default 1)
  --coordinator HOST:PORT
                       Join the run there: a coordinator that nobody else uses, and N times
                       this command, with the same options. Rank 0 prints
  --json               Print one JSON object: {"results":[{"collective","world","bytes","dtype",
                       "op","quantize","transport","medianSeconds","minSeconds","maxSeconds","algbwGBps",
                       "busbwGBps","verified":true}]}
  -h, --help           Show this help

algbw is the size by the median. busbw is what each link had to carry at the least, by the
median, as nccl-tests defines it: algbw times 2(N-1)/N for all-reduce, (N-1)/N for
reduce-scatter, all-gather, all-to-all, gather and scatter, 1 for broadcast and send-recv; for
all-to-all with --skew (N-1)S, which is what rank 0 receives.

The status goes to stderr. SIGINT or SIGTERM ends the run, and cleans up.

Exit codes: 0 all sizes were measured; 1 a peer failed, or a result was wrong; 2 wrong usage;
130 ended by a signal
`;

interface BenchArguments {
  readonly json: boolean;
  readonly coordinator: string | undefined;
  readonly job: BenchJob;
}

/** Undefined: the help was asked for. */
function parseBenchArguments(args: readonly string[]): BenchArguments | undefined {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      world: { type: "string", default: String(WORLD_DEFAULT) },
      sizes: { type: "string" },
      transport: { type: "string", default: "auto" },
      dtype: { type: "string", default: "f32" },
      op: { type: "string" },
      quantize: { type: "string" },
      connections: { type: "string" },
      "congestion-control": { type: "string" },
      iterations: { type: "string" },
      "in-place": { type: "boolean", default: false },
      "out-of-place": { type: "boolean", default: false },
      skew: { type: "string" },
      alloc: { type: "boolean", default: false },
      concurrency: { type: "string", default: "1" },
      coordinator: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const [name, extra] = positionals;
  if (name === undefined || extra !== undefined) {
    throw new UsageError(`one collective is needed, of ${COLLECTIVE_NAMES.join(", ")}`);
  }
  const integer = (option: string, text: string, min: number, max: number): number =>
    checkInteger("bench", `--${option}`, /^\d+$/.test(text) ? Number(text) : text, min, max);
  const { connections, iterations, skew, op, quantize, sizes } = values;
  const collective = checkOneOf("bench", "the collective", name, COLLECTIVE_NAMES);
  const { reduces, places } = COLLECTIVES[collective];
  const refuse = (option: string, why: string): never => {
    throw new UsageError(`--${option} doesn't go with ${collective}, ${why}`);
  };
  if (op !== undefined && !reduces) refuse("op", "which reduces nothing");
  if (quantize !== undefined && !reduces) refuse("quantize", "which reduces nothing");
  if (quantize !== undefined && values.dtype !== "f32") throw new UsageError("--quantize is for f32");
  if (quantize !== undefined && op === "prod") throw new UsageError("--quantize doesn't go with --op prod");
  if (skew !== undefined && collective !== "all-to-all") refuse("skew", "whose blocks are all of one length");
  if (sizes !== undefined && collective === "barrier") refuse("sizes", "which moves nothing");
  if (values["in-place"] && values["out-of-place"])
    throw new UsageError("--in-place or --out-of-place, not both");
  if (values["in-place"] && !places.includes("in")) refuse("in-place", "which needs two buffers");
  if (values["out-of-place"] && !places.includes("out")) refuse("out-of-place", "which has no second buffer");
  const world = integer("world", values.world, collective === "send-recv" ? 2 : 1, WORLD_MAX);
  const job: BenchJob = {
    collective,
    world,
    sizesBytes: collective === "barrier" ? [0] : parseSizes("--sizes", sizes ?? SIZES_DEFAULT),
    dtype: checkOneOf("bench", "--dtype", values.dtype, DTYPES),
    op: checkOneOf("bench", "--op", op ?? "sum", REDUCE_OPS),
    quantize:
      quantize === undefined ? undefined : checkOneOf("bench", "--quantize", quantize, QUANTIZED_FORMATS),
    place: values["in-place"] ? "in" : values["out-of-place"] ? "out" : (places[0] as "in" | "out"),
    transport: checkOneOf("bench", "--transport", values.transport, ["auto", "tcp", "shm"]),
    connectionsPerPeer:
      connections === undefined
        ? undefined
        : integer("connections", connections, 1, CONNECTIONS_PER_PEER_MAX),
    congestionControl: values["congestion-control"],
    warmUpSeconds: WARM_UP_SECONDS_DEFAULT,
    iterations: iterations === undefined ? undefined : integer("iterations", iterations, 1, ITERATIONS_MAX),
    skew: skew === undefined ? undefined : checkSkew(skew, world),
    // send-recv has two ops in flight for each.
    memory: values.alloc ? "alloc" : "array",
    concurrency: integer("concurrency", values.concurrency, 1, OPS_IN_FLIGHT_MAX / 2),
  };
  const small = job.sizesBytes.find((bytes) => collective !== "barrier" && usableBytes(job, bytes) === 0);
  if (small !== undefined) {
    throw new UsageError(`--sizes: ${formatSize(small)} has no element for each block and each op at once`);
  }
  return { json: values.json, coordinator: values.coordinator, job };
}

function checkSkew(text: string, world: number): number {
  if (world < 2) throw new UsageError("--skew needs a --world of 2 or more");
  return checkNumber("bench", "--skew", /^[\d.]+$/.test(text) ? Number(text) : text, 1 / world, 1);
}

/** Runs to the end, or until a signal; returns the exit code. Throws UsageError or PcclError. */
export async function runBenchCommand(args: readonly string[]): Promise<number> {
  if (args[0] === "wan") return await runWanBenchCommand(args.slice(1));
  if (args[0] === "state") return await runStateBenchCommand(args.slice(1));
  const parsed = parseBenchArguments(args);
  if (parsed === undefined) {
    process.stdout.write(BENCH_USAGE);
    return 0;
  }
  const { json, coordinator, job } = parsed;
  const interrupted = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => interrupted.abort(new Error(name));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  const startedAtMs = performance.now();
  let progress: Progress = { phase: "joining", bytes: 0 };
  const line = new StatusLine(() => formatStatus(job, progress, performance.now() - startedAtMs));
  const results: Measurement[] = [];
  const hooks: BenchHooks = {
    signal: interrupted.signal,
    onProgress: (latest) => {
      progress = latest;
    },
    onMeasurement: (measurement) => {
      line.clear();
      if (!json)
        process.stdout.write((results.length === 0 ? formatHeader(job) : "") + formatRow(measurement));
      results.push(measurement);
    },
  };
  try {
    if (coordinator === undefined) await runBench(job, hooks);
    else {
      const rank = await measure(coordinator, job, { ...hooks, joinTimeoutMs: JOIN_TIMEOUT_MS });
      if (rank !== 0)
        process.stderr.write(`done; rank 0 prints the results, and this peer had rank ${rank}\n`);
    }
    if (json && results.length > 0) process.stdout.write(`${JSON.stringify({ results })}\n`);
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

function formatStatus(
  { collective, world }: BenchJob,
  { phase, bytes }: Progress,
  elapsedMs: number,
): string {
  const what = phase === "joining" ? `${world} peers join` : `${phase} ${formatSize(bytes)}`;
  return `${collective}: ${what}, ${(elapsedMs / 1_000).toFixed(0)} s`;
}
