/**
 * A peer's part of a benchmark of shared state. The first `holders` ranks have the content. Before each timed sync the
 * others spoil the leaves that are to differ, spread evenly, and all meet at a barrier.
 */
import { pcclError } from "../../base/errors.js";
import type { Communicator } from "../../peer/communicator.js";
import { connect } from "../../peer/connect.js";
import { SharedState } from "../../peer/shared-state.js";
import type { Progress } from "../job.js";
import { join, maxOverAll, median } from "../group.js";
import { formatSize } from "../size.js";
import type { StateJob, StateMeasurement } from "./job.js";

const LEAF_BYTES = 65_536;

export interface StateHooks {
  readonly joinTimeoutMs: number;
  readonly onProgress: (progress: Progress) => void;
  /** On rank 0 only. */
  readonly onMeasurement: (measurement: StateMeasurement) => void;
}

/** Takes part to the end. */
export async function measureState(coordinator: string, job: StateJob, hooks: StateHooks): Promise<void> {
  hooks.onProgress({ phase: "joining", bytes: 0 });
  await using comm = await connect(coordinator, { transport: job.transport, timeoutMs: hooks.joinTimeoutMs });
  await join(comm, job, hooks.joinTimeoutMs);
  let revision = 0;
  for (const bytes of job.sizesBytes) {
    const subject = new Subject(comm, job, bytes, revision);
    hooks.onProgress({ phase: "checking", bytes });
    // Brings everybody into one revision of this size's tensors.
    await subject.sync(job.changed);
    const verified = subject.check();
    const wrong = Uint8Array.of(verified === undefined ? 0 : 1);
    await maxOverAll(comm, job, wrong);
    if (wrong[0] !== 0) {
      throw pcclError(
        "ERR_PCCL_INTERNAL",
        `bench state: ${formatSize(bytes)}: ${verified ?? "another peer's bytes are wrong"}`,
      );
    }
    hooks.onProgress({ phase: "measuring", bytes });
    const unchanged = await series(job, () => subject.sync(0));
    const seconds = await series(job, () => subject.sync(job.changed));
    if (comm.rank === 0) hooks.onMeasurement(describe(job, bytes, unchanged, seconds, subject.rxBytes));
    revision = subject.revision;
  }
}

async function series(job: StateJob, run: () => Promise<number>): Promise<number[]> {
  const seconds: number[] = [];
  for (let i = 0; i < job.iterations; i++) seconds.push(await run());
  return seconds.sort((a, b) => a - b);
}

class Subject {
  readonly #comm: Communicator;
  readonly #job: StateJob;
  readonly #tensors: readonly Uint8Array[];
  readonly #state: SharedState;
  /** Of the receiver that got most in the last sync. */
  rxBytes = 0;

  constructor(comm: Communicator, job: StateJob, bytes: number, revision: number) {
    this.#comm = comm;
    this.#job = job;
    const each = Math.floor(bytes / job.tensors);
    this.#tensors = Array.from({ length: job.tensors }, (_, i) => {
      const tensor = job.memory === "alloc" ? comm.alloc(each, "u8") : new Uint8Array(each);
      fill(tensor, i);
      return tensor;
    });
    const named = this.#tensors.map((tensor, i): [string, Uint8Array] => [`tensor ${i}`, tensor]);
    this.#state = new SharedState(Object.fromEntries(named), { revision });
  }

  get revision(): number {
    return this.#state.revision;
  }

  /** One sync after the receivers have spoiled that share of their leaves; the seconds of who took longest. */
  async sync(changed: number): Promise<number> {
    if (this.#comm.rank >= this.#job.holders && changed > 0) {
      for (const tensor of this.#tensors) spoil(tensor, changed);
      // What is behind can't be elected.
    } else this.#state.revision++;
    await this.#comm.barrier();
    const startMs = performance.now();
    const { rxBytes } = await this.#comm.syncSharedState(this.#state);
    const numbers = Float64Array.of((performance.now() - startMs) / 1_000, rxBytes);
    await maxOverAll(this.#comm, this.#job, numbers);
    this.rxBytes = numbers[1] as number;
    return numbers[0] as number;
  }

  /** What is wrong; undefined: nothing. */
  check(): string | undefined {
    for (const [i, tensor] of this.#tensors.entries()) {
      const expected = new Uint8Array(tensor.byteLength);
      fill(expected, i);
      if (Buffer.compare(tensor, expected) !== 0) return `tensor ${i} of rank ${this.#comm.rank} is wrong`;
    }
    return undefined;
  }
}

/** Words that all differ, since a leaf in the wrong place must be seen. */
function fill(tensor: Uint8Array, seed: number): void {
  const words = new Uint32Array(tensor.buffer, tensor.byteOffset, tensor.byteLength >> 2);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + seed, 0x9e3779b1);
}

function spoil(tensor: Uint8Array, changed: number): void {
  const leaves = Math.ceil(tensor.byteLength / LEAF_BYTES);
  const some = Math.max(1, Math.round(leaves * changed));
  for (let i = 0; i < some; i++) {
    const at = Math.floor((i * leaves) / some) * LEAF_BYTES;
    tensor[at] = (tensor[at] as number) ^ 0xff;
  }
}

function describe(
  { holders, receivers, changed, transport, tensors }: StateJob,
  bytes: number,
  unchanged: readonly number[],
  seconds: readonly number[],
  rxBytes: number,
): StateMeasurement {
  const unchangedSeconds = median(unchanged);
  const medianSeconds = median(seconds);
  const longer = medianSeconds - unchangedSeconds;
  return {
    holders,
    receivers,
    bytes,
    tensors,
    changed,
    transport,
    unchangedSeconds,
    medianSeconds,
    minSeconds: seconds[0] as number,
    rxBytes,
    movedShare: rxBytes / bytes,
    transferGBps: longer > 0 ? (bytes * changed) / longer / 1e9 : null,
    verified: true,
  };
}
