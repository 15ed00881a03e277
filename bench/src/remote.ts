/** A peer in a process of its own, told by benchmarks what to do. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Topology } from "@pccl/core";

/** On the clock that all processes of the machine share. */
export interface OpOutcome {
  readonly startMs: number;
  /** When the last loss was told, if there was one. */
  readonly errorMs: number | undefined;
  readonly endMs: number;
  readonly worldSize: number;
  /** Each element of the result, if it is uniform. */
  readonly value: number;
  readonly uniform: boolean;
}

export interface VoteTimes {
  readonly callMs: number;
  readonly doneMs: number;
  readonly changed: boolean;
}

export type Transport = "auto" | "tcp" | "shm";

/** Bytes beyond what was in use before the op, its buffers included. */
export interface MemoryUse {
  readonly peakBytes: number;
  readonly keptBytes: number;
}

export interface Commands {
  coordinator(args: { listen: string; minPeers: number; leaseMs: number }): string;
  connect(args: { address: string; connectionsPerPeer?: number; transport?: Transport }): {
    peerId: number;
    admittedMs: number;
  };
  /** Elements of the tensors; each is filled with the peer's id. */
  allocate(args: { count: number }): void;
  reduce(args: object): OpOutcome;
  vote(args: object): VoteTimes;
  idleVotes(args: { times: number }): number[];
  /** One all-reduce of f32, and the process's memory around it. */
  reduceMemory(args: { bytes: number; inPlace: boolean }): MemoryUse;
  /** Bytes of memory in use. */
  resident(args: object): number;
  /** Starts an all-reduce of f32 that isn't awaited. */
  startReduce(args: { bytes: number }): void;
  /** Awaits it. */
  endReduce(args: object): void;
  /** CPU seconds that the process has used so far. */
  cpuSeconds(args: object): number;
  /** Whether the ring has changed. */
  optimize(args: object): boolean;
  topology(args: { bytes: number }): Topology;
  close(args: object): void;
}

interface Reply {
  readonly id?: number;
  readonly value?: unknown;
  readonly error?: string;
  readonly pending?: boolean;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export class RemotePeer {
  readonly process: ChildProcess;
  peerId = 0;
  /** Resolves when it is registered. */
  pending: Promise<void>;
  #onPending!: () => void;
  readonly #open = new Map<number, Waiting>();
  #nextId = 1;

  /** In a network namespace, or in this process's. */
  constructor(namespace?: string) {
    this.process = fork(fileURLToPath(new URL("./remote-peer.js", import.meta.url)), {
      stdio: "inherit",
      ...(namespace !== undefined && {
        execPath: "ip",
        execArgv: ["netns", "exec", namespace, process.execPath],
      }),
    });
    this.pending = this.#nextPending();
    this.process.on("message", ({ id = 0, value, error, pending }: Reply) => {
      if (pending === true) return this.#onPending();
      const call = this.#open.get(id);
      this.#open.delete(id);
      if (error === undefined) call?.resolve(value);
      else call?.reject(new Error(error));
    });
    this.process.on("exit", (code, signal) => {
      for (const { reject } of this.#open.values()) reject(new Error(`the peer ended: ${signal ?? code}`));
      this.#open.clear();
    });
  }

  async call<Name extends keyof Commands>(
    command: Name,
    args: Parameters<Commands[Name]>[0],
  ): Promise<ReturnType<Commands[Name]>> {
    const id = this.#nextId++;
    const reply = new Promise<unknown>((resolve, reject) => this.#open.set(id, { resolve, reject }));
    this.process.send({ id, command, args });
    return (await reply) as ReturnType<Commands[Name]>;
  }

  #nextPending(): Promise<void> {
    return new Promise((resolve) => {
      this.#onPending = resolve;
    });
  }

  /** Registers, again after a `close`; resolves when admitted. */
  async connect(
    address: string,
    options: { readonly connectionsPerPeer?: number; readonly transport?: Transport } = {},
  ): Promise<{ admittedMs: number }> {
    if (this.peerId !== 0) this.pending = this.#nextPending();
    const { peerId, admittedMs } = await this.call("connect", { address, ...options });
    this.peerId = peerId;
    return { admittedMs };
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await exited;
  }
}

/** The first `count` peers of a world whose coordinator waits for as many. */
export async function firstPeers(
  address: string,
  count: number,
  connectionsPerPeer = 1,
  namespaceOf: (index: number) => string | undefined = () => undefined,
): Promise<RemotePeer[]> {
  const peers = Array.from({ length: count }, (_, index) => new RemotePeer(namespaceOf(index)));
  await Promise.all(peers.map((peer) => peer.connect(address, { connectionsPerPeer })));
  return peers;
}

export interface Join {
  /** From the last member's call of updateTopology until all members and the newcomer have the new view. */
  readonly ms: number;
}

/** Lets a newcomer that is pending in. */
export async function join(
  members: readonly RemotePeer[],
  admitted: Promise<{ admittedMs: number }>,
): Promise<Join> {
  const votes = await Promise.all(members.map((member) => member.call("vote", {})));
  const { admittedMs } = await admitted;
  if (!votes.every(({ changed }) => changed)) throw new Error("a vote didn't let the newcomer in");
  const votedMs = Math.max(...votes.map(({ callMs }) => callMs));
  return { ms: Math.max(admittedMs, ...votes.map(({ doneMs }) => doneMs)) - votedMs };
}
