/**
 * Goal: whatever step of the protocol a peer dies in, the survivors agree, nobody waits for it, and they go on.
 * Method: real processes and SIGKILL. Moments of the control protocol are hit by holding up what they wait for: a
 * stopped peer, or the coordinator's own thread, which is this one. Moments of the data plane are hit by time, at
 * several fractions of an op's duration.
 */
import { setImmediate as immediate, setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { Cluster, type Newcomer, type PeerProcess } from "./cluster.js";

interface Reduced {
  readonly info?: { readonly seconds: number };
  readonly digest?: string;
  readonly error?: { readonly code: string; readonly retryable: boolean };
  readonly inputKept?: boolean;
}

interface ViewOfPeer {
  readonly epoch: number;
  readonly worldSize: number;
}

/** Holds up this thread, and with it the coordinator: what peers send meanwhile waits in its sockets. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe("a peer killed while the membership changes", () => {
  const SIZE = 4;
  let cluster: Cluster;
  let members: PeerProcess[];

  beforeAll(async () => {
    cluster = await Cluster.start(SIZE, { leaseMs: 2_000 });
    members = [...cluster.peers];
  });

  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  async function kill(victim: PeerProcess): Promise<void> {
    members = members.filter((member) => member !== victim);
    await victim.kill();
  }

  /** The survivors have one view and one result; then newcomers take the places of the dead. */
  async function checkAndRefill(): Promise<void> {
    // The last one that died may not be out of the view yet: a reduce with it is made again.
    const reduced = await cluster.all<{ worldSizes: number[]; digests: string[] }>(
      "reduceAll",
      { ops: 2, count: 10_000 },
      members,
    );
    expect(new Set(reduced.map((result) => JSON.stringify(result.digests))).size).toBe(1);
    expect(reduced.map(({ worldSizes }) => worldSizes.at(-1))).toEqual(members.map(() => members.length));
    const views = await cluster.all<ViewOfPeer>("view", {}, members);
    expect(new Set(views.map(({ epoch }) => epoch)).size).toBe(1);
    const newcomers: Newcomer[] = [];
    while (members.length + newcomers.length < SIZE) newcomers.push(await cluster.newcomer());
    if (newcomers.length === 0) return;
    expect(await cluster.all("updateTopology", {}, members)).toEqual(members.map(() => true));
    await Promise.all(newcomers.map(({ admitted }) => admitted));
    members.push(...newcomers.map(({ peer }) => peer));
  }

  it("as a newcomer that waits for consent", async () => {
    const { peer } = await cluster.newcomer();
    expect(await cluster.all("hasPendingPeers", {}, members)).toEqual(members.map(() => true));
    const removed = cluster.logged("removed");
    await kill(peer);
    await removed;
    expect(await cluster.all("hasPendingPeers", {}, members)).toEqual(members.map(() => false));
    await checkAndRefill();
  });

  it("as a newcomer in the middle of a Prepare", async () => {
    const { peer } = await cluster.newcomer();
    // Stopped, it can't become ready, so the others are in the Prepare when it dies.
    peer.process.kill("SIGSTOP");
    const preparing = cluster.logged("preparing");
    const votes = cluster.all<boolean>("updateTopology", {}, members);
    await preparing;
    await kill(peer);
    expect(new Set(await votes).size).toBe(1);
    await checkAndRefill();
  });

  it("as a member in the middle of a Prepare that admits a newcomer", async () => {
    const { peer, admitted } = await cluster.newcomer();
    const [victim, ...others] = members as [PeerProcess, ...PeerProcess[]];
    const votes = cluster.all<boolean>("updateTopology", {}, others);
    const preparing = cluster.logged("preparing", () => victim.process.kill("SIGSTOP"));
    const own = victim.call("updateTopology").catch((error: unknown) => error);
    await preparing;
    await kill(victim);
    await own;
    expect(await votes).toEqual(others.map(() => true));
    await admitted;
    members.push(peer);
    await checkAndRefill();
  });

  it.each(["a member", "the newcomer"])("as %s that is ready, before the Install", async (who) => {
    const { peer, admitted } = await cluster.newcomer();
    const victim = who === "the newcomer" ? peer : (members[1] as PeerProcess);
    const others = members.filter((member) => member !== victim);
    let killed = Promise.resolve();
    const preparing = cluster.logged("preparing", () => {
      killed = immediate()
        .then(() => immediate())
        .then(() => {
          // The Prepare is out. The answers to it come while nobody reads them, and then the end of a stream.
          block(100);
          victim.process.kill("SIGKILL");
          block(50);
        });
    });
    const votes = cluster.all<boolean>("updateTopology", {}, others);
    const own = victim.call("updateTopology").catch((error: unknown) => error);
    await preparing;
    await killed;
    await kill(victim);
    await own;
    expect(new Set(await votes).size).toBe(1);
    if (victim !== peer) {
      await admitted;
      members.push(peer);
    }
    await checkAndRefill();
  });

  it("as a member, while the others vote", async () => {
    const { peer, admitted } = await cluster.newcomer();
    const [victim, ...others] = members as [PeerProcess, ...PeerProcess[]];
    const votes = cluster.all<boolean>("updateTopology", {}, others);
    await vi.waitUntil(
      () => cluster.coordinator.peers().filter(({ waitsIn }) => waitsIn === "updateTopology").length >= 3,
      10_000,
    );
    await kill(victim);
    expect(await votes).toEqual(others.map(() => true));
    await admitted;
    members.push(peer);
    await checkAndRefill();
  });
});

describe("a peer killed in an all-reduce", () => {
  it("at any moment of its course: one outcome on all of up to eight peers, and a right retry", async () => {
    await using cluster = await Cluster.start(8, { leaseMs: 2_000 });
    let members = [...cluster.peers];
    const args = { name: "op", count: 2_000_000, inPlace: true };
    /** All have posted the op when it resolves; the victim, whom the others wait for, only now. */
    const start = async (victim: PeerProcess): Promise<void> => {
      await cluster.all(
        "start",
        args,
        members.filter((member) => member !== victim),
      );
      await victim.call("start", args);
    };
    await start(members[0] as PeerProcess);
    const healthy = await cluster.all<Reduced>("finish", args, members);
    // Who posts last waits for nobody.
    const wholeMs = 1_000 * Math.min(...healthy.map(({ info }) => info?.seconds ?? Number.NaN));
    // Reduce-scatter is the first half, all-gather the second; at the end come done and commit.
    for (const fraction of [0.1, 0.3, 0.5, 0.7, 0.9, 1]) {
      const victim = members[members.length >> 1] as PeerProcess;
      const others = members.filter((member) => member !== victim);
      await start(victim);
      await delay(wholeMs * fraction);
      await victim.kill();
      members = others;
      const outcomes = await cluster.all<Reduced>("finish", args, members);
      const committed = outcomes.filter(({ error }) => error === undefined);
      if (committed.length > 0) {
        expect(committed.length, `at ${fraction}`).toBe(members.length);
        expect(new Set(outcomes.map(({ digest }) => digest)).size).toBe(1);
      } else {
        for (const { error, inputKept } of outcomes) {
          expect(error).toMatchObject({ code: "ERR_PCCL_PEER_LOST", retryable: true });
          expect(inputKept).toBe(true);
        }
      }
      // A committed op may have had the victim's contribution, a retry can't.
      const again = await cluster.all<{ worldSizes: number[]; digests: string[] }>(
        "reduceAll",
        { ops: 1, count: args.count },
        members,
      );
      expect(again.map(({ worldSizes }) => worldSizes)).toEqual(members.map(() => [members.length]));
      expect(new Set(again.map(({ digests }) => digests[0])).size).toBe(1);
    }
  });
});

describe("a peer killed in a sync", () => {
  it("as a receiver: the others go on", async () => {
    await using cluster = await Cluster.start(3);
    const [source, victim, other] = cluster.peers as [PeerProcess, PeerProcess, PeerProcess];
    await Promise.all(
      cluster.peers.map((peer, i) =>
        peer.call("state", { name: "s", salt: i === 0 ? 1 : 2, count: 1_000_000 }),
      ),
    );
    const waiting = (): number =>
      cluster.coordinator.peers().filter(({ waitsIn }) => waitsIn === "syncSharedState").length;
    const sync = (peer: PeerProcess, strategy: string): Promise<{ digest: string; changedKeys: string[] }> =>
      peer.call("sync", { name: "s", strategy });
    // Stopped once it has offered, the source serves nobody: the receivers are in their fetches.
    const sent = sync(source, "send-only");
    await vi.waitUntil(() => waiting() === 1, 10_000);
    source.process.kill("SIGSTOP");
    const received = sync(other, "receive-only");
    const killed = sync(victim, "receive-only").catch((error: unknown) => error);
    await vi.waitUntil(() => waiting() === 3, 10_000);
    await victim.kill();
    expect(await killed).toMatchObject({ message: "the peer exited: SIGKILL" });
    source.process.kill("SIGCONT");
    const { digest } = await sent;
    expect(await received).toMatchObject({ digest, changedKeys: ["weights", "steps"] });
  });
});
