/** Goal: one content on all peers, verified. Method: real processes offering equal, differing and stale states. */
import { describe, expect, it, vi } from "vitest";
import { connect, SharedState } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { Cluster, RemoteError } from "./cluster.js";

interface Synced {
  readonly revision: number;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly changedKeys: string[];
  readonly sources: number[];
  readonly hashes: Record<string, string>;
  readonly digest: string;
}

async function offer(
  cluster: Cluster,
  salts: readonly number[],
  args: Record<string, unknown> = {},
): Promise<void> {
  await Promise.all(
    cluster.peers.map((peer, i) => peer.call("state", { name: "s", salt: salts[i], ...args })),
  );
}

describe("syncSharedState", () => {
  it("takes tensors without elements", async () => {
    await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0" });
    await using comm = await connect(coordinator.address);
    const state = new SharedState({ none: new Float32Array(0), one: Int32Array.of(1) }, { revision: 0 });
    const { hashes } = await comm.syncSharedState(state);
    // XXH3-128 of no bytes, as its specification gives it.
    expect(hashes["none"]).toBe("99aa06d3014798d86001c324468d497f");
  });

  it("gives a differing peer the popular content", async () => {
    await using cluster = await Cluster.start(3);
    await offer(cluster, [7, 9, 7], { count: 1_000_000 });
    const results = await cluster.all<Synced>("sync", { name: "s" });
    expect(new Set(results.map(({ digest }) => digest)).size).toBe(1);
    expect(results.map(({ changedKeys }) => changedKeys)).toEqual([[], ["weights", "steps"], []]);
    expect(results[1]?.rxBytes).toBeGreaterThanOrEqual(4_000_000);
    for (const source of results[1]?.sources ?? []) expect([1, 3]).toContain(source);
    expect((results[0]?.txBytes ?? 0) + (results[2]?.txBytes ?? 0)).toBeGreaterThanOrEqual(4_000_000);
  });

  it("brings a newcomer to the group's revision, even one with the same number", async () => {
    await using cluster = await Cluster.start(1);
    await offer(cluster, [5]);
    await cluster.all("sync", { name: "s" });
    const newcomer = cluster.spawn();
    const joined = cluster.connect(newcomer);
    await newcomer.pending;
    await cluster.peers[0]?.call("updateTopology");
    await joined;
    await newcomer.call("state", { name: "s", salt: 6 });
    const [holder, received] = await cluster.all<Synced>("sync", { name: "s" });
    expect(received?.digest).toBe(holder?.digest);
    expect(received?.sources).toEqual([1]);
    // One step on, both advance by one.
    const next = await cluster.all<Synced>("sync", { name: "s", revision: 1 });
    expect(next.map(({ revision }) => revision)).toEqual([1, 1]);
  });

  it("refuses states of different layout", async () => {
    await using cluster = await Cluster.start(2);
    const [a, b] = cluster.peers;
    await a?.call("state", { name: "s", salt: 1, count: 10 });
    await b?.call("state", { name: "s", salt: 1, count: 11 });
    const calls = await Promise.allSettled(cluster.peers.map((peer) => peer.call("sync", { name: "s" })));
    for (const call of calls) {
      expect(call).toMatchObject({
        status: "rejected",
        reason: { details: { code: "ERR_PCCL_STATE_MISMATCH" } },
      });
    }
  });

  it("goes on without a peer that dies before it offers", async () => {
    await using cluster = await Cluster.start(3);
    const [victim, ...survivors] = cluster.peers;
    await offer(cluster, [1, 2, 2]);
    const syncing = cluster.all<Synced>("sync", { name: "s" }, survivors);
    await victim?.kill();
    const results = await syncing;
    expect(results.map(({ changedKeys }) => changedKeys)).toEqual([[], []]);
  });

  it("fails retryably when the source dies while serving, with the receiver's tensors unchanged", async () => {
    await using cluster = await Cluster.start(3);
    const [source, ...receivers] = cluster.peers;
    await offer(cluster, [1, 2, 2], { count: 1_000_000 });
    const before = await cluster.all("digest", { name: "s" }, receivers);
    // Only the source may send. It is stopped once it has offered, so that it dies with the fetches under way.
    const offered = source
      ?.call("sync", { name: "s", strategy: "send-only" })
      .catch((error: unknown) => error);
    await vi.waitUntil(() => cluster.coordinator.peers()[0]?.waitsIn === "syncSharedState", 10_000);
    source?.process.kill("SIGSTOP");
    const syncing = receivers.map((peer) =>
      peer.call<Synced>("sync", { name: "s", strategy: "receive-only" }).catch((error: RemoteError) => error),
    );
    // The plan goes out with the last offer.
    const allOffered = (): boolean =>
      cluster.coordinator.peers().every(({ waitsIn }) => waitsIn === "syncSharedState");
    await vi.waitUntil(allOffered, 10_000);
    await source?.kill();
    await offered;
    for (const outcome of await Promise.all(syncing)) {
      expect(outcome).toBeInstanceOf(RemoteError);
      expect((outcome as RemoteError).details.retryable).toBe(true);
    }
    expect(await cluster.all("digest", { name: "s" }, receivers)).toEqual(before);
  });
});
