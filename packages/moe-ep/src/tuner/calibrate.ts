/** Measures this machine as a runtime of expert parallelism would use it: several processes that compute and talk. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { availableParallelism, cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { type Communicator, connect } from "@pccl/core";
import { checkInteger, checkNumber, checkOneOf, checkOptions, pcclError } from "@pccl/core/base";
import { Coordinator } from "@pccl/core/coordinator";
import type { ExpertFormat } from "../experts/experts.js";
import type { Sample } from "../planner/cost-model.js";
import type { Calibration } from "./calibration.js";
import { ExpertPasses, typical } from "./expert-passes.js";
import type { NeighbourJob, NeighbourNews } from "./neighbour.js";

export interface CalibrateOptions {
  readonly hiddenSize: number;
  readonly ffnSize: number;
  readonly dtype: "f32" | "bf16";
  /** How long each number of rows is timed, at least. Default 0.5. */
  readonly seconds?: number | undefined;
  /** Called with what is being measured. */
  readonly onProgress?: ((what: string) => void) | undefined;
}

const ROWS = [1, 8, 32, 128, 512];
/** Bytes, and how often there and back. */
const MESSAGES = [
  { bytes: 4 * 2 ** 10, times: 30 },
  { bytes: 64 * 2 ** 10, times: 30 },
  { bytes: 2 ** 20, times: 15 },
  { bytes: 16 * 2 ** 20, times: 7 },
];
/** Numbers in one of an expert's matrices. */
const MATRIX_MAX = 2 ** 28;
const MEMORY_BYTES = 128 * 2 ** 20;
const MEMORY_ROUNDS = 5;
/** For each step that waits for the other process. */
const TIMEOUT_MS = 60_000;

/**
 * Takes a few seconds. Starts a second process for the time; it is gone when this returns. Throws
 * ERR_PCCL_INVALID_ARGUMENT, or what went wrong between the processes.
 */
export async function calibrate(options: CalibrateOptions): Promise<Calibration> {
  const call = "calibrate";
  checkOptions(call, options, ["hiddenSize", "ffnSize", "dtype", "seconds", "onProgress"]);
  const format: ExpertFormat = {
    kind: "swiglu",
    dtype: checkOneOf(call, "dtype", options.dtype, ["f32", "bf16"]),
    hiddenSize: checkInteger(call, "hiddenSize", options.hiddenSize, 1, 2 ** 20),
    ffnSize: checkInteger(call, "ffnSize", options.ffnSize, 1, 2 ** 20),
  };
  checkInteger(call, "hiddenSize × ffnSize", format.hiddenSize * format.ffnSize, 1, MATRIX_MAX);
  const seconds = checkNumber(call, "seconds", options.seconds ?? 0.5, 0, 3600);
  const { onProgress } = options;
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 2 });
  const messages = MESSAGES.flatMap(({ bytes, times }) => new Array<number>(times).fill(bytes));
  await using neighbour = new Neighbour({
    coordinator: coordinator.address,
    format,
    messages,
    timeoutMs: TIMEOUT_MS,
  });

  const passes = await ExpertPasses.create(format);
  const expert: Sample[] = [];
  await neighbour.until("computing");
  for (const rows of ROWS) {
    onProgress?.(`experts with ${rows} rows`);
    expert.push(await passes.measure(rows, seconds));
  }
  neighbour.stop();
  await neighbour.until("idle");
  onProgress?.("messages between processes");
  const link = await neighbour.orFailure(measureLink(coordinator.address));
  onProgress?.("memory");
  return {
    machine: `${cpus()[0]?.model.trim() ?? "CPU"}, ${availableParallelism()} threads`,
    dtype: format.dtype,
    hiddenSize: format.hiddenSize,
    ffnSize: format.ffnSize,
    expert,
    link,
    memoryBytesPerSecond: measureMemory(),
  };
}

async function measureLink(coordinator: string): Promise<Sample[]> {
  await using communicator = await connect(coordinator, { timeoutMs: TIMEOUT_MS });
  const samples: Sample[] = [];
  for (const { bytes, times } of MESSAGES) {
    const seconds: number[] = [];
    for (let i = 0; i < times; i++) seconds.push(await thereAndBack(communicator, bytes));
    samples.push({ size: bytes, seconds: typical(seconds) / 2 });
  }
  return samples;
}

async function thereAndBack(communicator: Communicator, bytes: number): Promise<number> {
  const buffer = communicator.alloc(bytes, "u8");
  const other = communicator.peers[1 - communicator.rank] as number;
  const begin = performance.now();
  await communicator.send(buffer, { to: other, timeoutMs: TIMEOUT_MS });
  await communicator.recv(buffer, { from: other, timeoutMs: TIMEOUT_MS });
  return (performance.now() - begin) / 1e3;
}

function measureMemory(): number {
  const [source, target] = [new Uint8Array(MEMORY_BYTES).fill(1), new Uint8Array(MEMORY_BYTES).fill(2)];
  const seconds: number[] = [];
  for (let round = 0; round < MEMORY_ROUNDS; round++) {
    const begin = performance.now();
    target.set(source);
    seconds.push((performance.now() - begin) / 1e3);
  }
  return MEMORY_BYTES / typical(seconds);
}

/** The other process, and what it has said. */
class Neighbour {
  readonly #child: ChildProcess;
  readonly #news = new Set<string>();
  readonly #waiting = new Map<string, () => void>();
  /** Rejects once it can't do its part. */
  readonly #failure: Promise<never>;

  constructor(job: NeighbourJob) {
    this.#child = fork(fileURLToPath(new URL("./neighbour.js", import.meta.url)), [JSON.stringify(job)], {
      stdio: ["ignore", 2, 2, "ipc"],
    });
    this.#failure = new Promise<never>((_, reject) => {
      const fail = (reason: string): void =>
        reject(pcclError("ERR_PCCL_INTERNAL", `calibrate: the second process ${reason}`));
      this.#child.on("message", (news: NeighbourNews) => {
        if (typeof news === "object") fail(`couldn't go on: ${news.failed}`);
        else this.#hear(news);
      });
      this.#child.on("error", (error) => fail(`couldn't be started: ${error.message}`));
      // With status 0 it has done all that it was to do, and may be gone before the last message is looked at.
      this.#child.on("exit", (code, signal) => {
        if (code !== 0) fail(`ended (${signal ?? `status ${code}`})`);
      });
    });
    this.#failure.catch(() => undefined);
  }

  #hear(news: string): void {
    this.#news.add(news);
    this.#waiting.get(news)?.();
  }

  async until(news: Exclude<NeighbourNews, object>): Promise<void> {
    if (this.#news.has(news)) return;
    let timer: NodeJS.Timeout | undefined;
    const told = new Promise<void>((resolve, reject) => {
      this.#waiting.set(news, resolve);
      const late = pcclError("ERR_PCCL_TIMEOUT", `calibrate: the second process wasn't ${news} in time`);
      timer = setTimeout(() => reject(late), TIMEOUT_MS);
    });
    await this.orFailure(told).finally(() => clearTimeout(timer));
  }

  async orFailure<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.#failure]);
  }

  stop(): void {
    this.#child.send("stop", () => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}
