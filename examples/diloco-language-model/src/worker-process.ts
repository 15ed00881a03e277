/** A child process of the demo: a peer, or the lone peer of the comparison. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** A child that is told to end leaves the world first; longer than its own limit for that. */
const END_MS = 4_000;

export interface WorkerHooks<Message> {
  onMessage(message: Message): void;
  /** The process ended without having been killed or told to end. */
  onCrash(how: string): void;
}

export class WorkerProcess<Message> {
  readonly #process: ChildProcess;
  #ending = false;

  constructor(program: URL, config: object, hooks: WorkerHooks<Message>) {
    // The report is alone on stdout: whatever a child prints goes to stderr.
    this.#process = fork(fileURLToPath(program), [JSON.stringify(config)], {
      stdio: ["ignore", 2, 2, "ipc"],
    });
    this.#process.on("message", (message) => hooks.onMessage(message as Message));
    this.#process.on("error", (error) => hooks.onCrash(error.message));
    this.#process.on("exit", (code, signal) => {
      if (!this.#ending) hooks.onCrash(signal === null ? `exit code ${code}` : `signal ${signal}`);
    });
  }

  send(command: object): void {
    if (this.#process.connected) this.#process.send(command, () => undefined);
  }

  /** SIGKILL, as if its machine had lost power. */
  kill(): void {
    this.#ending = true;
    this.#process.kill("SIGKILL");
  }

  /** Lets the process leave the world and end; kills it if it doesn't. */
  async end(): Promise<void> {
    this.#ending = true;
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    if (this.#process.connected) this.#process.disconnect();
    const timer = new AbortController();
    await Promise.race([exited, delay(END_MS, undefined, { signal: timer.signal })]);
    timer.abort();
    this.kill();
    await exited;
  }
}
