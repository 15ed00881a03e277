/** `pccl coordinator` as users run it: the built program in a process of its own, and its output line by line. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../bin/pccl.js", import.meta.url));
const children = new Set<ChildProcessWithoutNullStreams>();

export function pccl(...args: string[]): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [bin, ...args]);
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

/** For afterEach: ends what a test has left. */
export function killAll(): void {
  for (const child of children) child.kill("SIGKILL");
}

export class RunningCoordinator {
  readonly child: ChildProcessWithoutNullStreams;
  readonly lines: string[] = [];
  stderr = "";
  #wake: () => void = () => {};

  /** Listens on a free port, unless the arguments say where. */
  constructor(...args: string[]) {
    const listen = args.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
    this.child = pccl("coordinator", ...listen, ...args);
    this.child.stderr.on("data", (text) => (this.stderr += text));
    this.child.once("close", () => this.#wake());
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      this.lines.push(line);
      this.#wake();
    });
  }

  /** Waits for a line; fails when the program ends without one. */
  async line(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      for (const line of this.lines) {
        const match = pattern.exec(line);
        if (match !== null) return match;
      }
      const { exitCode, signalCode } = this.child;
      if (exitCode !== null || signalCode !== null) {
        throw new Error(`pccl ended (${exitCode ?? signalCode}) without ${pattern}: ${this.stderr}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async exit(): Promise<{ code: number | null; signal: string | null }> {
    const { child } = this;
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    return { code: child.exitCode, signal: child.signalCode };
  }

  /** Without a word, as a crash would. */
  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.exit();
  }
}

/**
 * An address of loopback that stays free while nobody listens on it: ports from which the system dials would
 * sooner or later be taken by a peer that dials this very port.
 */
export async function lastingAddress(): Promise<string> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return `127.0.0.1:${port}`;
  }
}
