/** Goal: peers join by consent, leave and die, and the rest goes on. Method: real processes, real kills. */
import { describe, expect, it } from "vitest";
import { Cluster, type PeerProcess } from "./cluster.js";

interface Reduced {
  readonly worldSizes: readonly number[];
}

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

  it("keeps a peer whose main thread is blocked for six leases, and holds nobody else up", async () => {
    // The first two are one group, the others another one.
    await using cluster = await Cluster.start(5, { leaseMs: 2_000, groupOf: (index) => (index < 2 ? 0 : 1) });
    const [busy, friend, victim, ...others] = cluster.peers as [PeerProcess, PeerProcess, ...PeerProcess[]];
    let isFree = false;
    const blocked = busy.call("block", { ms: 12_000 }).then(() => {
      isFree = true;
    });
    const { admitted } = await cluster.newcomer();
    const together = await cluster.all<Reduced>("reduceAll", { ops: 10 }, [victim as PeerProcess, ...others]);
    expect(together.map(({ worldSizes }) => worldSizes[9])).toEqual([3, 3, 3]);
    // A death makes a new view; the vote of the blocked peer isn't needed for that.
    const running = cluster.all<Reduced>("reduceAll", { ops: 10 }, others);
    await victim?.kill();
    expect((await running).map(({ worldSizes }) => worldSizes[9])).toEqual([2, 2]);
    const votes = cluster.all("updateTopology", {}, [friend, ...others]);
    expect(isFree).toBe(false);
    await blocked;
    // Which of the messages that came meanwhile it reads first is its own affair.
    await expect
      .poll(async () => await busy.call("view"), { timeout: 10_000 })
      .toMatchObject({ worldSize: 4, groupWorldSize: 2 });
    await busy.call("updateTopology");
    expect(await votes).toEqual([true, true, true]);
    await admitted;
    expect(await busy.call("view")).toMatchObject({ worldSize: 5, groupWorldSize: 3 });
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
    // What its program sees of the view comes with an event, which may still be on its way.
    await expect.poll(() => busy?.call("view"), { timeout: 20_000 }).toMatchObject({ worldSize: 2 });
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
    await expect(stopped?.call("updateTopology")).rejects.toThrow(/^ERR_PCCL_REMOVED: .*2\d\d\d ms/);
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
