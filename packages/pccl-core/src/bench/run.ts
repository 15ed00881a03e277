/**
 * A benchmark whose peers are processes of this one's: starts the peers, and a coordinator unless there is one, takes in
 * what they say, and leaves nothing running, however it ends.
 */
import type { ChildProcess } from "node:child_process";
import { isPcclErrorCode, type PcclError, pcclError } from "../base/errors.js";
import { Coordinator } from "../control/index.js";
import { endsWithin, kill, start } from "../process/child.js";
import type { BenchJob, Measurement, Progress } from "./job.js";
import type { PeerConfig, PeerMessage } from "./messages.js";
import { formatSize } from "./size.js";
import type { StateMeasurement } from "./state/job.js";

/** When peers have lost one of them: how long the process of that one may take to be seen to have ended. */
const CAUSE_TIMEOUT_MS = 2_000;
const END_TIMEOUT_MS = 20_000;

export interface RunHooks<M> {
  /** Ends the run: it rejects with the signal's reason. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
  readonly onMeasurement: (measurement: M) => void;
}

export type BenchHooks = RunHooks<Measurement>;

/** Where the peers are: each in a network namespace, and a coordinator that all of them reach. */
export interface BenchPlace {
  readonly coordinator: string;
  readonly namespaceOf: (peer: number) => string | undefined;
}

/**
 * Measures all sizes between processes on loopback. Rejects with the error of the peer that failed, or
 * ERR_PCCL_PEER_LOST if its process ended without one.
 */
export async function runBench(job: BenchJob, hooks: BenchHooks): Promise<void> {
  hooks.signal.throwIfAborted();
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: job.world });
  await runBenchAt({ coordinator: coordinator.address, namespaceOf: () => undefined }, job, hooks);
}

/** Likewise, elsewhere. */
export async function runBenchAt(place: BenchPlace, job: BenchJob, hooks: BenchHooks): Promise<void> {
  await runPeers(place, { job }, job.world, hooks);
}

/** Runs `world` peers with the same job. Rejects as runBench does. */
export async function runPeers<M extends Measurement | StateMeasurement>(
  place: BenchPlace,
  job: Omit<PeerConfig, "coordinator">,
  world: number,
  hooks: RunHooks<M>,
): Promise<void> {
  hooks.signal.throwIfAborted();
  const run = new Run(place, job, world, hooks);
  try {
    await run.done;
  } finally {
    await run.close();
  }
}

class Run<M extends Measurement | StateMeasurement> {
  /** Resolves when all peers are done and have ended. */
  readonly done: Promise<void>;
  readonly #hooks: RunHooks<M>;
  readonly #children: readonly ChildProcess[];
  readonly #world: number;
  #ended = 0;
  #progress: Progress = { phase: "joining", bytes: 0 };
  #causeTimer: NodeJS.Timeout | undefined;
  #resolve!: () => void;
  #reject!: (reason: unknown) => void;
  readonly #onAbort = (): void => this.#reject(this.#hooks.signal.reason);

  constructor(
    { coordinator, namespaceOf }: BenchPlace,
    job: Omit<PeerConfig, "coordinator">,
    world: number,
    hooks: RunHooks<M>,
  ) {
    this.#hooks = hooks;
    this.#world = world;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    hooks.signal.addEventListener("abort", this.#onAbort, { once: true });
    const config: PeerConfig = { coordinator, ...job };
    this.#children = Array.from({ length: world }, (_, index) => {
      const child = start(new URL("./peer.js", import.meta.url), [JSON.stringify(config)], {
        namespace: namespaceOf(index),
      });
      this.#listen(child, index + 1);
      return child;
    });
  }

  async close(): Promise<void> {
    this.#hooks.signal.removeEventListener("abort", this.#onAbort);
    clearTimeout(this.#causeTimer);
    await Promise.all(this.#children.map(kill));
  }

  #listen(child: ChildProcess, number: number): void {
    let last: PeerMessage["kind"] | undefined;
    child.on("message", (message: PeerMessage) => {
      last = message.kind;
      switch (message.kind) {
        case "progress":
          this.#progress = message.progress;
          this.#hooks.onProgress(message.progress);
          break;
        case "measurement":
          this.#hooks.onMeasurement(message.measurement as M);
          break;
        case "done":
          void this.#expectEnd(child, number);
          break;
        case "failed":
          this.#onFailed(number, message.code, message.reason);
          break;
      }
    });
    child.on("error", (error) => this.#reject(lost(number, `can't be started: ${error.message}`, error)));
    child.on("exit", (code, signal) => {
      const onEnd = (): void => {
        if (last === "done") {
          this.#ended++;
          if (this.#ended === this.#world) this.#resolve();
        } else if (last !== "failed") {
          this.#reject(lost(number, `ended with ${signal ?? `exit code ${code}`} ${this.#when()}`));
        }
      };
      // What it said last may still be unread.
      if (child.connected) child.once("disconnect", onEnd);
      else onEnd();
    });
  }

  /** A peer that has lost another one isn't the cause: that is told by the end of the other's process. */
  #onFailed(number: number, code: string, reason: string): void {
    const error = isPcclErrorCode(code)
      ? pcclError(code, `${reason.replace(/\.$/, "")} (peer process ${number})`)
      : pcclError("ERR_PCCL_INTERNAL", `bench: peer process ${number} failed ${this.#when()}: ${reason}`);
    if (code === "ERR_PCCL_PEER_LOST") {
      this.#causeTimer ??= setTimeout(() => this.#reject(error), CAUSE_TIMEOUT_MS);
    } else {
      this.#reject(error);
    }
  }

  async #expectEnd(child: ChildProcess, number: number): Promise<void> {
    if (await endsWithin(child, END_TIMEOUT_MS)) return;
    this.#reject(
      pcclError("ERR_PCCL_INTERNAL", `bench: peer process ${number} was done, but didn't end by itself`),
    );
  }

  #when(): string {
    const { phase, bytes } = this.#progress;
    return phase === "joining" ? "while joining" : `while ${phase} ${formatSize(bytes)}`;
  }
}

function lost(number: number, how: string, cause?: Error): PcclError {
  return pcclError("ERR_PCCL_PEER_LOST", `bench: peer process ${number} ${how}`, { cause });
}
