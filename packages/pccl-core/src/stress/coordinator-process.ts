/** The coordinator of a stress run: a `pccl coordinator` as users run it, which can be killed and started again. */
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { pcclError } from "../base/errors.js";
import { endsWithin, kill, start } from "../process/child.js";

const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 10_000;
const LINES_KEPT = 60;
/** Lines of its log that no fault explains. */
const ALARMING: ReadonlySet<string> = new Set(["contradiction", "bug"]);

export interface CoordinatorProcessOptions {
  /** The file of the `pccl` program. */
  readonly program: string;
  /** HOST, or HOST:PORT. */
  readonly listen: string;
  readonly leaseMs: number;
  readonly minPeers: number;
  readonly stateDirectory: string | undefined;
  readonly namespace: string | undefined;
  /** Something that must not happen: it ended by itself, or its log says that it broke its own rules. */
  readonly onProblem: (problem: string) => void;
}

export class CoordinatorProcess {
  readonly #options: CoordinatorProcessOptions;
  /** The last lines of its log, over all its lives. */
  readonly lines: string[] = [];
  #child: ChildProcess | undefined;
  #address = "";
  #ending = true;

  constructor(options: CoordinatorProcessOptions) {
    this.#options = options;
  }

  get address(): string {
    return this.#address;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Not killed, or back again. */
  get running(): boolean {
    return !this.#ending;
  }

  /** Starts it, the first time or again on the same address, and waits until it listens. */
  async start(): Promise<void> {
    const { program, listen, leaseMs, minPeers, stateDirectory, namespace, onProblem } = this.#options;
    const address = this.#address || listen;
    const child = start(
      program,
      [
        ...["coordinator", "--json", "--listen", address],
        ...["--lease-ms", String(leaseMs), "--min-peers", String(minPeers)],
        ...(stateDirectory === undefined ? [] : ["--state", stateDirectory]),
      ],
      { namespace, preload: new URL("./lifeline.js", import.meta.url), detached: true, piped: true },
    );
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      const fail = (how: string): void =>
        reject(pcclError("ERR_PCCL_INTERNAL", `stress: the coordinator at ${address} ${how}.`));
      const timer = setTimeout(() => fail(`doesn't listen after ${START_TIMEOUT_MS} ms`), START_TIMEOUT_MS);
      child.on("error", (error) => fail(error.message));
      child.on("exit", (code, signal) => {
        clearTimeout(timer);
        fail(`ended with ${signal ?? `code ${code}`} before it listened`);
        if (!this.#ending) onProblem(`the coordinator ended by itself: ${signal ?? `exit code ${code}`}`);
      });
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
        const { event, address: bound } = this.#read(line);
        if (event !== "listening") return;
        this.#address = String(bound);
        this.#ending = false;
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #read(line: string): { event?: unknown; address?: unknown } {
    const entry = JSON.parse(line) as { time: string; event: string; message: string; address?: string };
    this.lines.push(`${entry.time} ${entry.message}`);
    if (this.lines.length > LINES_KEPT) this.lines.shift();
    if (ALARMING.has(entry.event)) this.#options.onProblem(`the coordinator: ${entry.message}`);
    return entry;
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    this.#ending = true;
    if (this.#child !== undefined) await kill(this.#child);
  }

  /** SIGTERM; returns whether it ended by itself in time. */
  async stop(): Promise<boolean> {
    this.#ending = true;
    if (this.#child === undefined) return true;
    this.#child.kill("SIGTERM");
    const ended = await endsWithin(this.#child, STOP_TIMEOUT_MS);
    await kill(this.#child);
    return ended;
  }
}
