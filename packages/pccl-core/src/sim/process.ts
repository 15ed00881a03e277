/**
 * A simulated process: its life, its threads and its clock. What comes for a thread while it can't run waits in
 * order; what comes after the process's end is lost.
 */
import type { Clock } from "./clock.js";
import type { Random } from "./random.js";

/** How a process's own clock runs against virtual time. */
export interface ClockError {
  readonly offsetMs: number;
  /** 1.0001 is 100 ppm fast. */
  readonly rate: number;
}

export class Process {
  state: "running" | "stopped" | "dead" = "running";
  /** While above 0, each thing that a thread does takes up to this long. */
  slowMs = 0;
  readonly clock: Clock;
  readonly random: Random;
  readonly #clockError: ClockError;
  readonly #threads: Thread[] = [];
  /** Called when the process is stopped, goes on, or dies. */
  readonly #onChange: () => void;

  constructor(clock: Clock, random: Random, clockError: ClockError, onChange: () => void = () => {}) {
    this.clock = clock;
    this.random = random;
    this.#clockError = clockError;
    this.#onChange = onChange;
  }

  get nowMs(): number {
    return this.#clockError.offsetMs + this.clock.nowMs * this.#clockError.rate;
  }

  thread(): Thread {
    const thread = new Thread(this);
    this.#threads.push(thread);
    return thread;
  }

  stop(): void {
    if (this.state !== "running") return;
    this.state = "stopped";
    this.#onChange();
  }

  resume(): void {
    if (this.state !== "stopped") return;
    this.state = "running";
    this.#onChange();
    for (const thread of this.#threads) thread.runWaiting();
  }

  die(): void {
    if (this.state === "dead") return;
    this.state = "dead";
    this.#onChange();
  }

  /** Virtual time that passes while this process's clock advances by `localMs`. */
  virtualMs(localMs: number): number {
    return localMs / this.#clockError.rate;
  }
}

export class Thread {
  readonly process: Process;
  #blocked = false;
  #busyUntilMs = 0;
  readonly #waiting: (() => void)[] = [];
  /** As in Node's event loop, timers that are due run before what came from outside is looked at. */
  readonly #due: (() => void)[] = [];

  constructor(process: Process) {
    this.process = process;
  }

  /** Runs `action` now, when this thread gets to it, or never. */
  deliver(action: () => void): void {
    if (this.process.state === "dead") return;
    if (this.#canRun() && this.#waiting.length === 0) this.#run(action);
    else this.#waiting.push(action);
  }

  /** Runs `action` on this thread after a time on the process's own clock. */
  after(delayMs: number, action: () => void): void {
    this.process.clock.after(this.process.virtualMs(delayMs), () => {
      if (this.process.state === "dead") return;
      if (this.#canRun()) this.#run(action);
      else this.#due.push(action);
    });
  }

  /** The thread is kept from its events, as by a long computation, while the process's others go on. */
  block(): void {
    this.#blocked = true;
  }

  unblock(): void {
    this.#blocked = false;
    this.runWaiting();
  }

  runWaiting(): void {
    while (this.#canRun()) {
      const next = this.#due.shift() ?? this.#waiting.shift();
      if (next === undefined) return;
      this.#run(next);
    }
  }

  #canRun(): boolean {
    const { state, clock } = this.process;
    return state === "running" && !this.#blocked && clock.nowMs >= this.#busyUntilMs;
  }

  #run(action: () => void): void {
    action();
    const { slowMs, clock, random } = this.process;
    if (slowMs === 0) return;
    const tookMs = random.between(0, slowMs);
    this.#busyUntilMs = clock.nowMs + tookMs;
    clock.after(tookMs, () => this.runWaiting());
  }
}
