/** Goal: peers join by consent, leave and die, and the rest goes on. Method: real processes, real kills. */
import { describe, expect, it } from "vitest";
import { Cluster } from "./cluster.js";

interface ViewOfPeer {
  readonly peerId: number;
  readonly rank: number;
  readonly worldSize: number;
  readonly epoch: number;
}

describe("membership", () => {
  it("admits a newcomer only after every member's vote", async () => {
    await using cluster = await Cluster.start(2);
    const members = [...cluster.peers];
    expect(await cluster.all("hasPendingPeers", {}, members)).toEqual([false, false]);
    const newcomer = cluster.spawn();
    const joined = cluster.connect(newcomer);
    await newcomer.pending;
    expect(await cluster.all("hasPendingPeers", {}, members)).toEqual([true, true]);
    const [first, second] = members;
    const vote = first?.call("updateTopology");
    const views = await cluster.all<ViewOfPeer>("view", {}, members);
    expect(views.map(({ worldSize }) => worldSize)).toEqual([2, 2]);
    expect(await second?.call("updateTopology")).toBe(true);
    expect(await vote).toBe(true);
    await joined;
    const after = await cluster.all<ViewOfPeer>("view");
    expect(after.map(({ worldSize }) => worldSize)).toEqual([3, 3, 3]);
    expect(new Set(after.map(({ epoch }) => epoch)).size).toBe(1);
    expect(after.map(({ rank }) => rank).sort((a, b) => a - b)).toEqual([0, 1, 2]);
    await cluster.all("reduce");
  });

  it("answers a topology vote at once when nobody is pending", async () => {
    await using cluster = await Cluster.start(2);
    expect(await cluster.all("updateTopology")).toEqual([false, false]);
  });

  it("goes on with the votes of the others when a voter dies", async () => {
    await using cluster = await Cluster.start(3);
    const [victim, ...survivors] = cluster.peers;
    const newcomer = cluster.spawn();
    const joined = cluster.connect(newcomer);
    await newcomer.pending;
    const votes = cluster.all("updateTopology", {}, survivors);
    await victim?.kill();
    expect(await votes).toEqual([true, true]);
    await joined;
    const views = await cluster.all<ViewOfPeer>("view", {}, [...survivors, newcomer]);
    expect(views.map(({ worldSize }) => worldSize)).toEqual([3, 3, 3]);
  });

  it("keeps a peer whose main thread is blocked for longer than its lease", async () => {
    await using cluster = await Cluster.start(3, { leaseMs: 2_000 });
    const [busy, ...others] = cluster.peers;
    const blocked = busy?.call("block", { ms: 5_000 });
    const newcomer = cluster.spawn();
    const joined = cluster.connect(newcomer);
    await newcomer.pending;
    const votes = cluster.all("updateTopology", {}, others);
    await blocked;
    await busy?.call("updateTopology");
    expect(await votes).toEqual([true, true]);
    await joined;
    expect(await busy?.call("view")).toMatchObject({ worldSize: 4 });
  });

  it("changes the view under a blocked main thread", async () => {
    await using cluster = await Cluster.start(3);
    const [busy, victim, other] = cluster.peers;
    const blocked = busy?.call("block", { ms: 1_500 });
    const op = other?.call<{ error?: { code: string } }>("reduce");
    await victim?.kill();
    // The op is aborted, which needs the blocked peer's report, long before that peer's main thread is free.
    expect((await op)?.error?.code).toBe("ERR_PCCL_PEER_LOST");
    let free = false;
    void blocked?.then(() => {
      free = true;
    });
    expect(free).toBe(false);
    await blocked;
    expect(await busy?.call("view")).toMatchObject({ worldSize: 2 });
  });

  it("removes a stopped peer when its lease ends", async () => {
    await using cluster = await Cluster.start(3, { leaseMs: 2_000 });
    const [stopped, ...others] = cluster.peers;
    stopped?.process.kill("SIGSTOP");
    const results = await cluster.all<{ error?: { code: string; peerId: number } }>("reduce", {}, others);
    expect(results.map(({ error }) => error)).toMatchObject([
      { code: "ERR_PCCL_PEER_LOST", peerId: 1 },
      { code: "ERR_PCCL_PEER_LOST", peerId: 1 },
    ]);
    await cluster.all("reduce", {}, others);
    stopped?.process.kill("SIGCONT");
    // Back again, it learns that it is out, and why.
    await expect(stopped?.call("updateTopology")).rejects.toThrow(/ERR_PCCL_(REMOVED|COORDINATOR_LOST)/);
  });

  it("tells every peer when the coordinator is gone", async () => {
    await using cluster = await Cluster.start(2);
    const op = cluster.peers[0]?.call<{ error?: { code: string } }>("reduce");
    await cluster.coordinator.close();
    expect((await op)?.error?.code).toMatch(/ERR_PCCL_(REMOVED|COORDINATOR_LOST)/);
    await expect(cluster.peers[1]?.call("updateTopology")).rejects.toThrow(
      /ERR_PCCL_(REMOVED|COORDINATOR_LOST)/,
    );
  });

  it("names calls that can never return", async () => {
    await using cluster = await Cluster.start(2);
    const [a, b] = cluster.peers;
    await a?.call("state", { name: "s", salt: 1 });
    const calls = await Promise.allSettled([a?.call("sync", { name: "s" }), b?.call("updateTopology")]);
    for (const call of calls) {
      expect(call).toMatchObject({
        status: "rejected",
        reason: { details: { code: "ERR_PCCL_CALL_MISMATCH" } },
      });
    }
  });
});
