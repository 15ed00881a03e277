/** Real peers in processes of their own, and a coordinator in this one; everything ends with the test. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Coordinator } from "@pccl/core/coordinator";
import { start } from "../../src/process/child.js";

const FIXTURE = fileURLToPath(new URL("./fixtures/peer.mjs", import.meta.url));

export interface PeerError {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
  readonly peerId?: number;
}

export class RemoteError extends Error {
  readonly details: PeerError;

  constructor(details: PeerError) {
    super(`${details.code}: ${details.message}`);
    this.details = details;
  }
}

interface Reply {
  readonly id?: number;
  readonly value?: unknown;
  readonly error?: PeerError;
  readonly pending?: number;
}

export class PeerProcess {
  readonly process: ChildProcess;
  /** Resolves when the peer is registered and waits for admission. */
  readonly pending: Promise<number>;
  readonly #open = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #nextId = 1;

  /** `namespace`: the network namespace to run in. */
  constructor(namespace?: string) {
    this.process =
      namespace === undefined
        ? fork(FIXTURE, { stdio: ["ignore", "inherit", "inherit", "ipc"] })
        : start(FIXTURE, [], { namespace });
    let onPending!: (peerId: number) => void;
    this.pending = new Promise((resolve) => {
      onPending = resolve;
    });
    this.process.on("message", (reply: Reply) => {
      if (reply.pending !== undefined) onPending(reply.pending);
      if (reply.id === undefined) return;
      const call = this.#open.get(reply.id);
      this.#open.delete(reply.id);
      if (reply.error !== undefined) call?.reject(new RemoteError(reply.error));
      else call?.resolve(reply.value);
    });
    this.process.on("exit", (code, signal) => {
      for (const call of this.#open.values()) call.reject(new Error(`the peer exited: ${signal ?? code}`));
      this.#open.clear();
    });
  }

  // biome-ignore format: one signature
  async call<T = unknown>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    const id = this.#nextId++;
    const reply = new Promise<unknown>((resolve, reject) => this.#open.set(id, { resolve, reject }));
    this.process.send({ id, command, args });
    return (await reply) as T;
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = once(this.process, "exit");
    this.process.kill(signal);
    await exited;
  }
}

export interface ClusterOptions {
  readonly leaseMs?: number;
  /** Group of the k-th peer; 0 without. */
  readonly groupOf?: (index: number) => number;
  /** Further options of every peer's connect. */
  readonly connect?: Record<string, unknown>;
}

export interface Newcomer {
  readonly peer: PeerProcess;
  readonly admitted: Promise<unknown>;
}

/** A CoordinatorLog, as a logger gets it. */
interface LogFields {
  readonly event: string;
  readonly reason?: string;
}

type LogListeners = Set<(fields: LogFields) => void>;

export class Cluster implements AsyncDisposable {
  readonly coordinator: Coordinator;
  readonly peers: PeerProcess[] = [];
  readonly #listeners: LogListeners;

  private constructor(coordinator: Coordinator, listeners: LogListeners) {
    this.coordinator = coordinator;
    this.#listeners = listeners;
  }

  /** A coordinator and `size` admitted peers, in ring order; the k-th has id k + 1. */
  static async start(size: number, options: ClusterOptions = {}): Promise<Cluster> {
    const { leaseMs, groupOf, connect = {} } = options;
    const listeners: LogListeners = new Set();
    const onLog = (fields: object): void => {
      for (const listener of listeners) listener(fields as LogFields);
    };
    const coordinator = await Coordinator.start({
      listen: "127.0.0.1:0",
      minPeers: Math.max(1, size),
      ...(leaseMs !== undefined && { leaseMs }),
      logger: { info: onLog, warn: onLog },
    });
    const cluster = new Cluster(coordinator, listeners);
    const peers = Array.from({ length: size }, () => cluster.spawn());
    const joins: Promise<unknown>[] = [];
    // One after the other, for the ids' sake; admission comes with the last one.
    for (const [index, peer] of peers.entries()) {
      joins.push(cluster.connect(peer, { group: groupOf?.(index) ?? 0, ...connect }));
      await Promise.race([peer.pending, joins.at(-1)]);
    }
    await Promise.all(joins);
    return cluster;
  }

  /** Resolves with the coordinator's next log of this kind; `at`: called within that very step. */
  async logged(event: string, at: () => void = () => undefined): Promise<LogFields> {
    return await new Promise((resolve) => {
      const listener = (fields: LogFields): void => {
        if (fields.event !== event) return;
        this.#listeners.delete(listener);
        at();
        resolve(fields);
      };
      this.#listeners.add(listener);
    });
  }

  /** A process that has connected and waits for consent; `admitted` when it has it. */
  async newcomer(options: Record<string, unknown> = {}): Promise<Newcomer> {
    const peer = this.spawn();
    const admitted = this.connect(peer, options);
    // Whoever kills the newcomer need not wait for the error of its connect.
    admitted.catch(() => undefined);
    await peer.pending;
    return { peer, admitted };
  }

  spawn(): PeerProcess {
    const peer = new PeerProcess();
    this.peers.push(peer);
    return peer;
  }

  async connect(peer: PeerProcess, options: Record<string, unknown> = {}): Promise<unknown> {
    return await peer.call("connect", { address: this.coordinator.address, options });
  }

  /** The same command on several peers at once. */
  async all<T>(command: string, args: Record<string, unknown> = {}, peers = this.peers): Promise<T[]> {
    return await Promise.all(peers.map((peer) => peer.call<T>(command, args)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.peers.map((peer) => peer.kill()));
    await this.coordinator.close();
  }
}
