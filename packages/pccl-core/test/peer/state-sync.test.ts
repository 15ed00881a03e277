/**
 * Goal: a sync goes on for those who can go on, and ends at once for who gives up, whose tensors are as they were.
 * Method: a source that is stopped by a signal, so that a fetch from it goes on for as long as the test likes.
 */
import { readFileSync } from "node:fs";
import { type Communicator, connect, SharedState, type SyncResult } from "@pccl/core";
import { beforeEach, describe, expect, it } from "vitest";
import { Cluster, type PeerProcess } from "../e2e/cluster.js";
import { closing, until, waiting } from "./world.js";

const COUNT = 10_000;

/** A source in a process of its own, and two peers of this process that offer `values`. */
interface Trio {
  readonly cluster: Cluster;
  readonly source: PeerProcess;
  readonly peers: readonly [Communicator, Communicator];
  readonly states: readonly [SharedState, SharedState];
}

let trio: Trio;

beforeEach(async () => {
  const cluster = await Cluster.start(1, { leaseMs: 60_000 });
  closing({ close: async () => await cluster[Symbol.asyncDispose]() });
  const [source] = cluster.peers as [PeerProcess];
  const join = async (): Promise<Communicator> => {
    let registered!: () => void;
    const pending = new Promise<void>((resolve) => {
      registered = resolve;
    });
    const joining = connect(cluster.coordinator.address, { onPending: registered });
    await pending;
    return closing(await Promise.all([joining, source.call("updateTopology")]).then(([peer]) => peer));
  };
  const first = await join();
  let second!: Communicator;
  const registered = new Promise<void>((resolve) => {
    void connect(cluster.coordinator.address, { onPending: () => resolve() }).then((peer) => {
      second = closing(peer);
    });
  });
  await registered;
  await Promise.all([source.call("updateTopology"), first.updateTopology()]);
  await expect.poll(() => second).toBeDefined();
  await source.call("state", { name: "s", salt: 1, count: COUNT });
  const state = (value: number): SharedState => {
    const weights = new Float32Array(COUNT).fill(value);
    return new SharedState({ weights, steps: new Int32Array(3) }, { revision: 0 });
  };
  trio = { cluster, source, peers: [first, second], states: [state(8), state(9)] };
});

/** Established ones over TCP, from this machine; links between peers of one host are none. */
function connectionsTo(port: number): number {
  const remote = `:${port.toString(16).toUpperCase().padStart(4, "0")} 01 `;
  return readFileSync("/proc/net/tcp", "utf8").split(remote).length - 1;
}

const weights = (state: SharedState): unknown => state.tensors.get("weights");

describe("a peer that fetches from one that doesn't answer", () => {
  let served: Promise<unknown>;

  /** Both peers fetch from the source, which is stopped. The first one's call takes `options`. */
  async function fetching(options: {
    signal?: AbortSignal;
    timeoutMs?: number;
  }): Promise<Promise<SyncResult>[]> {
    const { cluster, source, peers, states } = trio;
    served = source.call("sync", { name: "s", strategy: "send-only" }).catch((error: unknown) => error);
    await waiting(cluster.coordinator, 1);
    source.process.kill("SIGSTOP");
    const strategy = "receive-only";
    const syncs = [
      peers[0].syncSharedState(states[0], { strategy, ...options }),
      peers[1].syncSharedState(states[1], { strategy }),
    ];
    for (const sync of syncs) sync.catch(() => {});
    // All three have called, the plans have come, and both fetches have got to the source's port.
    await waiting(cluster.coordinator, 2);
    await waiting(cluster.coordinator, 3);
    const port = cluster.coordinator.peers().find(({ peerId }) => peerId === 1)?.endpoint.port as number;
    await until(() => connectionsTo(port) === 2);
    return syncs;
  }

  it("gets it all when the source goes on, although another one is gone meanwhile", async () => {
    const [, second] = await fetching({});
    await trio.peers[0].close();
    trio.source.process.kill("SIGCONT");
    expect(await second).toMatchObject({ changedKeys: ["weights", "steps"], sources: [1] });
    expect(await served).toMatchObject({ changedKeys: [] });
  });

  it("gives up when its caller does; the others go on, and all can sync again", async () => {
    const stop = new AbortController();
    const syncs = await fetching({ signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(syncs[0]).rejects.toThrow("enough");
    expect(weights(trio.states[0])).toEqual(new Float32Array(COUNT).fill(8));
    expect(trio.states[0].revision).toBe(0);
    trio.source.process.kill("SIGCONT");
    expect(await syncs[1]).toMatchObject({ changedKeys: ["weights", "steps"] });
    await served;
    const again = await Promise.all([
      trio.source.call<SyncResult>("sync", { name: "s" }),
      trio.peers[0].syncSharedState(trio.states[0]),
      trio.peers[1].syncSharedState(trio.states[1]),
    ]);
    for (const { hashes } of again) expect(hashes).toEqual(again[0].hashes);
    expect(weights(trio.states[0])).toEqual(weights(trio.states[1]));
    expect(again.map(({ changedKeys }) => changedKeys)).toEqual([[], ["weights", "steps"], []]);
  });
});

describe("a sync in the background", () => {
  it("lets holders go on while a newcomer fetches, and keeps the tensors from being written", async () => {
    const { cluster, source: newcomer, peers } = trio;
    const make = (): SharedState =>
      new SharedState(
        { weights: new Float32Array(COUNT).fill(8), steps: new Int32Array(3) },
        { revision: 1 },
      );
    const states = [make(), make()] as const;
    const joined = newcomer.call<SyncResult & { digest: string }>("sync", { name: "s" });
    await waiting(cluster.coordinator, 1);
    newcomer.process.kill("SIGSTOP");
    const results = await Promise.all(
      peers.map((peer, i) => peer.syncSharedState(states[i] as SharedState, { background: true })),
    );
    expect(results).toMatchObject([
      { revision: 1, changedKeys: [] },
      { revision: 1, changedKeys: [] },
    ]);
    // They are free, but for the tensors that the newcomer is still to have.
    const shared = states[0].tensors.get("weights") as Float32Array;
    await expect(peers[0].allReduce(shared)).rejects.toMatchObject({ code: "ERR_PCCL_BUFFER_IN_USE" });
    const message = Float32Array.of(1, 2, 3);
    const received = new Float32Array(3);
    await Promise.all([
      peers[0].send(message, { to: peers[1].peerId }),
      peers[1].recv(received, { from: peers[0].peerId }),
    ]);
    expect(received).toEqual(message);
    newcomer.process.kill("SIGCONT");
    expect((await joined).changedKeys).toEqual(["weights", "steps"]);
    const served = await Promise.all(results.map((result) => result.served));
    expect(served.reduce((sum, { txBytes }) => sum + txBytes, 0)).toBeGreaterThanOrEqual(4 * COUNT);
    // Now all of them reduce, and the tensors are free.
    const counts = newcomer.call("reduce", { count: COUNT });
    const both = peers.map((peer, i) =>
      peer.allReduce((states[i] as SharedState).tensors.get("weights") as Float32Array),
    );
    await Promise.all([counts, ...both]);
  });
});
