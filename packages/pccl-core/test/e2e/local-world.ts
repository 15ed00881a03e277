/** A coordinator and peers in this process, for what needs no process of its own; everything ends with the test. */
import { type Communicator, connect, type ConnectOptions, SharedState, type SyncResult } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";

export class LocalWorld implements AsyncDisposable {
  readonly coordinator: Coordinator;
  /** In the order of their ids, which begin with 1. */
  readonly peers: Communicator[] = [];

  private constructor(coordinator: Coordinator) {
    this.coordinator = coordinator;
  }

  /** `groups`: how many peers each group has, from group 0 on. */
  static async start(...groups: readonly number[]): Promise<LocalWorld> {
    const size = groups.reduce((sum, count) => sum + count, 0);
    const world = new LocalWorld(await Coordinator.start({ listen: "127.0.0.1:0", minPeers: size }));
    const joins: Promise<Communicator>[] = [];
    for (const [group, count] of groups.entries()) {
      for (let i = 0; i < count; i++) joins.push((await world.register({ group })).admitted);
    }
    await Promise.all(joins);
    world.peers.sort((a, b) => a.peerId - b.peerId);
    return world;
  }

  /** Resolves once the newcomer waits for consent; `admitted` when it has it. */
  async register(options: ConnectOptions = {}): Promise<{ readonly admitted: Promise<Communicator> }> {
    let onPending!: () => void;
    const pending = new Promise<void>((resolve) => {
      onPending = resolve;
    });
    const admitted = connect(this.coordinator.address, { ...options, onPending }).then((peer) => {
      this.peers.push(peer);
      return peer;
    });
    await Promise.race([pending, admitted]);
    return { admitted };
  }

  /** The peers of the k-th group given to `start`. */
  group(k: number, ...groups: readonly number[]): Communicator[] {
    const before = groups.slice(0, k).reduce((sum, count) => sum + count, 0);
    return this.peers.slice(before, before + (groups[k] ?? 0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.peers.map((peer) => peer.close()));
    await this.coordinator.close();
  }
}

/** 1 KiB of f32, of a content with a number. */
export const VALUE_BYTES = 1_024;

export function value(content: number): Float32Array {
  return Float32Array.from({ length: VALUE_BYTES / 4 }, (_, i) => content * 1_000 + i);
}

export function stateOf(contents: Readonly<Record<string, number>>, revision = 0): SharedState {
  const tensors = Object.entries(contents).map(([name, content]) => [name, value(content)] as const);
  return new SharedState(Object.fromEntries(tensors), { revision });
}

/** The bytes of a key. */
export function valueOf(state: SharedState, key: string): Float32Array {
  return state.tensors.get(key) as Float32Array;
}

export async function syncAll(
  peers: readonly Communicator[],
  states: readonly SharedState[],
): Promise<SyncResult[]> {
  return await Promise.all(peers.map((peer, i) => peer.syncSharedState(states[i] as SharedState)));
}

/** Codes of calls that must all fail. */
export async function codesOf(calls: readonly Promise<unknown>[]): Promise<unknown[]> {
  const outcomes = await Promise.allSettled(calls);
  return outcomes.map((outcome) =>
    outcome.status === "rejected" ? (outcome.reason as { code?: unknown }).code : "resolved",
  );
}
