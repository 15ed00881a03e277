/**
 * The processes of a group on this host, with a coordinator in this one: each finds the others by the environment, and
 * when one fails the rest are ended. No process but these is ever sent a signal.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { pcclError } from "@pccl/core/base";
import { Coordinator } from "@pccl/core/coordinator";

export interface RankProgram {
  /** What Node runs in each process: its own options, the script and the script's arguments. */
  readonly args: readonly string[];
  readonly ranks: number;
  /** "ranks": lines go to this process's outputs with their rank before them. "errors": both to its error output. */
  readonly output: "ranks" | "errors";
  /** What a process sends by process.send. With it processes have a channel, and can end when this one does. */
  readonly onMessage?: ((rank: number, message: unknown) => void) | undefined;
}

/** How the first process that failed ended. */
export interface RankFailure {
  readonly rank: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** How long processes have to end after SIGTERM. */
const END_TIMEOUT_MS = 10_000;

export class RankProcesses {
  /** Resolves when all have ended, with the first failure if there was one. Never rejects. */
  readonly ended: Promise<RankFailure | undefined>;
  readonly #children: readonly ChildProcess[];
  readonly #killTimer = new AbortController();
  #failure: RankFailure | undefined;
  #isEnding = false;

  private constructor(children: readonly ChildProcess[], coordinator: Coordinator) {
    this.#children = children;
    this.ended = this.#watch(coordinator);
  }

  /** Rejects with ERR_PCCL_INVALID_ARGUMENT if the processes can't be started. */
  static async start(program: RankProgram): Promise<RankProcesses> {
    const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: program.ranks });
    const children = Array.from({ length: program.ranks }, (_, rank) =>
      startRank(program, rank, coordinator.address),
    );
    const processes = new RankProcesses(children, coordinator);
    const started = children.map(async (child) => {
      if (child.pid === undefined) throw (await once(child, "error"))[0];
    });
    try {
      await Promise.all(started);
    } catch (error) {
      await processes.end();
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `a process can't be started: ${String(error)}`, {
        cause: error,
      });
    }
    return processes;
  }

  /** Sends a signal to all that haven't ended. */
  signal(signal: NodeJS.Signals): void {
    for (const child of this.#children) {
      if (!hasEnded(child)) child.kill(signal);
    }
  }

  /** Ends those that haven't: first with SIGTERM, later with SIGKILL. */
  async end(): Promise<void> {
    void this.#end();
    await this.ended;
  }

  async #end(): Promise<void> {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.signal("SIGTERM");
    await delay(END_TIMEOUT_MS, undefined, { signal: this.#killTimer.signal }).catch(() => undefined);
    this.signal("SIGKILL");
  }

  async #watch(coordinator: Coordinator): Promise<RankFailure | undefined> {
    await Promise.all(
      this.#children.map(async (child, rank) => {
        const [code, signal] = await ending(child);
        if (code === 0) return;
        this.#failure ??= { rank, code, signal };
        void this.#end();
      }),
    );
    this.#killTimer.abort();
    await coordinator.close();
    return this.#failure;
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

/** All that it wrote has been read then. */
async function ending(child: ChildProcess): Promise<[number | null, NodeJS.Signals | null]> {
  return await new Promise((resolve) => {
    child.once("close", (code, signal) => resolve([code, signal]));
    child.once("error", () => {
      if (child.pid === undefined) resolve([1, null]);
    });
  });
}

function startRank(program: RankProgram, rank: number, address: string): ChildProcess {
  const { ranks, output, onMessage, args } = program;
  const [host = "", port = ""] = address.split(/:(?=\d+$)/);
  const isPrefixed = output === "ranks";
  const child = spawn(process.execPath, args, {
    // Messages hold arrays.
    serialization: "advanced",
    // Ctrl-C in a terminal is for this process to pass on, once.
    detached: true,
    stdio: [
      "ignore",
      isPrefixed ? "pipe" : 2,
      isPrefixed ? "pipe" : 2,
      ...(onMessage === undefined ? [] : (["ipc"] as const)),
    ],
    env: {
      ...process.env,
      RANK: String(rank),
      LOCAL_RANK: String(rank),
      WORLD_SIZE: String(ranks),
      LOCAL_WORLD_SIZE: String(ranks),
      MASTER_ADDR: host,
      MASTER_PORT: port,
    },
  });
  if (isPrefixed) {
    prefixLines(child.stdout, process.stdout, `[${rank}] `);
    prefixLines(child.stderr, process.stderr, `[${rank}] `);
  }
  if (onMessage !== undefined) child.on("message", (message) => onMessage(rank, message));
  return child;
}

/** Whole lines, so that those of several processes don't mix. */
function prefixLines(from: NodeJS.ReadableStream | null, into: NodeJS.WritableStream, prefix: string): void {
  let rest = "";
  from?.setEncoding("utf8");
  from?.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() as string;
    if (lines.length > 0) into.write(lines.map((line) => `${prefix}${line}\n`).join(""));
  });
  from?.on("end", () => {
    if (rest !== "") into.write(`${prefix}${rest}\n`);
  });
}
