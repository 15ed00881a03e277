/** Real peers in processes of their own, and a coordinator in this one; everything ends with the test. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Coordinator } from "@pccl/core/coordinator";

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

  constructor() {
    this.process = fork(FIXTURE, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
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

export class Cluster implements AsyncDisposable {
  readonly coordinator: Coordinator;
  readonly peers: PeerProcess[] = [];

  private constructor(coordinator: Coordinator) {
    this.coordinator = coordinator;
  }

  /** A coordinator and `size` admitted peers, in ring order. */
  static async start(size: number, options: { leaseMs?: number } = {}): Promise<Cluster> {
    const cluster = new Cluster(
      await Coordinator.start({ listen: "127.0.0.1:0", minPeers: Math.max(1, size), ...options }),
    );
    const peers = Array.from({ length: size }, () => cluster.spawn());
    const joins: Promise<unknown>[] = [];
    // One after the other, so that the k-th peer has id k; admission comes with the last one.
    for (const peer of peers) {
      joins.push(cluster.connect(peer));
      await Promise.race([peer.pending, joins.at(-1)]);
    }
    await Promise.all(joins);
    return cluster;
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
