/**
 * A peer's part of a benchmark: joins, checks and measures. Every op of this library ends with the agreement of all its
 * members that it is done, so that an op is the barrier before the next one, and needs no other. An iteration's time is
 * that of the peer that it took longest. All that the peers have to agree on they agree on by all-reduces.
 */
import { pcclError } from "../base/errors.js";
import { OPS_IN_FLIGHT_DEFAULT } from "../base/limits.js";
import type { Communicator } from "../peer/communicator.js";
import { connect } from "../peer/connect.js";
import { COLLECTIVES } from "./collectives.js";
import { isSame, join, maxOverAll, median } from "./group.js";
import type { BenchJob, Measurement, Progress } from "./job.js";
import { formatSize } from "./size.js";
import { makeWork, usableBytes, type Work } from "./work.js";

const ESTIMATE_RUNS = 2;
const WARM_UP_MAX = 500;
const TARGET_SECONDS = 1;
const ITERATIONS_MIN = 7;
const ITERATIONS_MAX = 2_000;

export interface MeasureHooks {
  /** How long the other peers may take to come. */
  readonly joinTimeoutMs: number;
  /** Its abort closes the communicator: measure() then rejects with ERR_PCCL_CLOSED, or ERR_PCCL_CANCELLED before. */
  readonly signal?: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
  /** On rank 0 only. */
  readonly onMeasurement: (measurement: Measurement) => void;
}

/** Takes part to the end. Resolves to this peer's rank. */
export async function measure(coordinator: string, job: BenchJob, hooks: MeasureHooks): Promise<number> {
  const { signal } = hooks;
  hooks.onProgress({ phase: "joining", bytes: 0 });
  await using comm = await connect(coordinator, {
    transport: job.transport,
    maxOpsInFlight: Math.max(OPS_IN_FLIGHT_DEFAULT, 2 * job.concurrency),
    ...(job.connectionsPerPeer !== undefined && { connectionsPerPeer: job.connectionsPerPeer }),
    ...(job.congestionControl !== undefined && { congestionControl: job.congestionControl }),
    timeoutMs: hooks.joinTimeoutMs,
    ...(signal !== undefined && { signal }),
  });
  const onAbort = (): void => void comm.close();
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  await join(comm, job, hooks.joinTimeoutMs);
  for (const size of job.sizesBytes) {
    const bytes = usableBytes(job, size);
    const measurement = await measureSize(comm, job, bytes, hooks);
    if (comm.rank === 0) hooks.onMeasurement(measurement);
  }
  signal?.removeEventListener("abort", onAbort);
  return comm.rank;
}

async function measureSize(
  comm: Communicator,
  job: BenchJob,
  bytes: number,
  { onProgress }: MeasureHooks,
): Promise<Measurement> {
  onProgress({ phase: "checking", bytes });
  const works = Array.from({ length: job.concurrency }, (_, tag) =>
    makeWork(comm, job, bytes / job.concurrency, tag),
  );
  const transport = await verify(comm, job, bytes, works);
  for (const work of works) work.rest?.();
  const [only] = works as [Work, ...Work[]];
  const run = works.length === 1 ? only.run : () => Promise.all(works.map((work) => work.run()));

  const estimate = await slowest(comm, job, await time(run, ESTIMATE_RUNS));
  const estimateSeconds = Math.min(...estimate);
  await time(run, Math.ceil(Math.min(WARM_UP_MAX, job.warmUpSeconds / estimateSeconds)));
  const wanted = Math.round(TARGET_SECONDS / estimateSeconds);
  const iterations = job.iterations ?? Math.min(ITERATIONS_MAX, Math.max(ITERATIONS_MIN, wanted));
  onProgress({ phase: "measuring", bytes });
  const seconds = await slowest(comm, job, await time(run, iterations));
  return describeTimes(job, bytes, transport, seconds.sort());
}

/** Runs the ops once on data that shows every error. Throws on all peers if any of them found one. */
async function verify(
  comm: Communicator,
  job: BenchJob,
  bytes: number,
  works: readonly Work[],
): Promise<Measurement["transport"]> {
  for (const work of works) work.fill();
  const results = await Promise.all(works.map((work) => work.run()));
  let wrong = works.map((work) => work.check()).find((found) => found !== undefined);
  for (const { digest } of works) {
    if (digest !== undefined && !(await isSame(comm, job, digest())))
      wrong ??= "peers have different results";
  }
  const uses = (kind: "tcp" | "shm"): boolean =>
    results.some(({ transport }) => transport === kind || transport === "mixed");
  const flags = Uint8Array.of(wrong === undefined ? 0 : 1, uses("tcp") ? 1 : 0, uses("shm") ? 1 : 0);
  await maxOverAll(comm, job, flags);
  const [anyWrong, anyTcp, anyShm] = flags;
  if (anyWrong) {
    const where = wrong ?? "another peer's result is wrong";
    throw pcclError(
      "ERR_PCCL_INTERNAL",
      `bench: ${job.collective} of ${formatSize(bytes)} on rank ${comm.rank}: ${where}`,
    );
  }
  if (anyTcp && anyShm) return "mixed";
  if (anyShm) return "shm";
  return anyTcp ? "tcp" : "none";
}

/** Nothing else happens between two iterations. */
async function time(run: () => Promise<unknown>, iterations: number): Promise<Float64Array> {
  const seconds = new Float64Array(iterations);
  for (let i = 0; i < iterations; i++) {
    const startMs = performance.now();
    await run();
    seconds[i] = (performance.now() - startMs) / 1_000;
  }
  return seconds;
}

/** Each iteration's largest time over the peers, on all of them. */
async function slowest(comm: Communicator, job: BenchJob, seconds: Float64Array): Promise<Float64Array> {
  await maxOverAll(comm, job, seconds);
  return seconds;
}

function describeTimes(
  { collective, world, dtype, op, quantize, skew }: BenchJob,
  bytes: number,
  transport: Measurement["transport"],
  sorted: Float64Array,
): Measurement {
  const { reduces, busFactor } = COLLECTIVES[collective];
  const at = (index: number): number => sorted[index] as number;
  const medianSeconds = median(sorted);
  const algbwGBps = bytes / medianSeconds / 1e9;
  return {
    collective,
    world,
    bytes,
    dtype: collective === "barrier" ? "none" : dtype,
    op: reduces ? op : "none",
    quantize: quantize ?? "none",
    transport,
    medianSeconds,
    minSeconds: at(0),
    maxSeconds: at(sorted.length - 1),
    algbwGBps,
    busbwGBps: algbwGBps * busFactor(world, skew ?? 1 / world),
    verified: true,
  };
}
