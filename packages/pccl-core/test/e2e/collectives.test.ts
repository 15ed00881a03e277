/**
 * Goal: every collective gives what it says on every peer, or fails on all of them with the same reason, whoever dies
 * and whatever the others call. Method: real processes; each peer checks every element of what it got by itself.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { Cluster, type PeerProcess } from "./cluster.js";

interface Outcome {
  readonly info?: {
    readonly worldSize: number;
    readonly epoch: number;
    readonly txBytes: number;
    readonly rxBytes: number;
    readonly seconds: number;
    readonly algorithm: string;
    readonly transport: string;
  };
  readonly wrong?: string;
  readonly attempts: number;
  readonly error?: { readonly name: string; readonly code?: string; readonly message: string };
}

type Args = Readonly<Record<string, unknown>>;

const KINDS = [
  "allReduce",
  "reduceScatter",
  "allGather",
  "broadcast",
  "allToAll",
  "gather",
  "scatter",
  "barrier",
  "sendAndRecv",
] as const;
const VIEW_BOUND = ["reduceScatter", "allGather", "allToAll", "gather", "scatter"] as const;
/** Takes a while even between processes of one host. */
const LARGE = 4 * 2 ** 20;

/** Different arguments for each peer: those of all, and its own. */
async function each(peers: readonly PeerProcess[], all: Args, own: readonly Args[] = []): Promise<Outcome[]> {
  return await Promise.all(peers.map((peer, i) => peer.call<Outcome>("collective", { ...all, ...own[i] })));
}

async function begin(peers: readonly PeerProcess[], args: Args): Promise<void> {
  await Promise.all(peers.map((peer) => peer.call("startCollective", args)));
}

async function finish(peers: readonly PeerProcess[], name: string): Promise<Outcome[]> {
  return await Promise.all(peers.map((peer) => peer.call<Outcome>("finish", { name })));
}

function expectAllRight(outcomes: readonly Outcome[], worldSize: number): void {
  for (const { info, wrong, error } of outcomes) {
    expect({ error, wrong }).toEqual({ error: undefined, wrong: undefined });
    expect(info).toMatchObject({ worldSize });
  }
}

describe.each([1, 2, 3, 5])("%d peers", (size) => {
  it("get the right elements of every collective, of few elements and of many", {
    timeout: 240_000,
  }, async () => {
    await using cluster = await Cluster.start(size);
    const { peers } = cluster;
    for (const kind of KINDS) {
      for (const count of [1, 1000, 300_001]) {
        const outcomes = await each(peers, { kind, count, rootRank: count % size });
        expectAllRight(outcomes, size);
        for (const { info } of outcomes) {
          expect(info?.transport, kind).toMatch(size === 1 ? /^none$/ : /^(tcp|shm)$/);
          if (size === 1) expect(info?.algorithm).toBe("alone");
        }
      }
    }
    expectAllRight(await each(peers, { kind: "allGather", count: 5000, inPlace: true }), size);
    for (const count of [3, 100_000]) {
      expectAllRight(await each(peers, { kind: "allToAll", count, uneven: true }), size);
    }
  });

  it("run different collectives at the same time under different tags", async () => {
    await using cluster = await Cluster.start(size);
    const { peers } = cluster;
    const kinds = KINDS.filter((kind) => kind !== "sendAndRecv");
    // Each peer begins them in an order of its own.
    for (const [index, peer] of peers.entries()) {
      const order = kinds.map((_, i) => (i * 3 + index) % kinds.length);
      for (const i of order) {
        const kind = kinds[i] as string;
        await peer.call("startCollective", { name: kind, kind, tag: i, count: 50_000 });
      }
    }
    for (const kind of kinds) expectAllRight(await finish(peers, kind), size);
  });
});

describe("over TCP alone", () => {
  it("all collectives are right, too", async () => {
    await using cluster = await Cluster.start(3, { connect: { transport: "tcp", connectionsPerPeer: 2 } });
    for (const kind of KINDS) {
      const outcomes = await each(cluster.peers, { kind, count: 100_001 });
      expectAllRight(outcomes, 3);
      if (kind !== "barrier") expect(outcomes[1]?.info?.transport).toBe("tcp");
    }
  });
});

describe("a lost peer", () => {
  it.each(KINDS)("ends %s on all others alike, and they go on without it", async (kind) => {
    await using cluster = await Cluster.start(4, { leaseMs: 2_000 });
    const [first, second, ...others] = cluster.peers as [PeerProcess, PeerProcess, ...PeerProcess[]];
    // One that never called: nobody can have a result.
    const survivors = [second, ...others];
    await begin(survivors, { name: "without", kind });
    await first.kill();
    for (const { error, wrong } of await finish(survivors, "without")) {
      expect(error).toMatchObject({ code: "ERR_PCCL_PEER_LOST", retryable: true });
      expect(wrong).toBeUndefined();
    }
    expectAllRight(await each(survivors, { kind, retry: true }), 3);
    // One in the middle: all have the result, or nobody has.
    await begin(survivors, { name: "large", kind, count: LARGE });
    await delay(5);
    await second.kill();
    const outcomes = await finish(others, "large");
    // Sends are agreed on by two each.
    if (kind !== "sendAndRecv") expect(new Set(outcomes.map(({ error }) => error?.code)).size).toBe(1);
    for (const { error, wrong } of outcomes) {
      expect([undefined, "ERR_PCCL_PEER_LOST"]).toContain(error?.code);
      expect(wrong).toBeUndefined();
    }
    expectAllRight(await each(others, { kind, retry: true, count: LARGE }), 2);
  });

  it.each(VIEW_BOUND)("keeps %s that was shaped with it from beginning without it", async (kind) => {
    await using cluster = await Cluster.start(4, { leaseMs: 2_000 });
    const [first, second, ...others] = cluster.peers as [PeerProcess, PeerProcess, ...PeerProcess[]];
    // The view without the first one can't be installed while the second is stopped.
    const preparing = cluster.logged("preparing", () => second.process.kill("SIGSTOP"));
    await first.kill();
    await preparing;
    await begin(others, { name: "early", kind });
    second.process.kill("SIGCONT");
    for (const { error } of await finish(others, "early")) {
      expect(error).toMatchObject({ code: "ERR_PCCL_PEER_LOST", retryable: true });
    }
    expectAllRight(await each([second, ...others], { kind, retry: true }), 3);
  });
});

describe("a barrier", () => {
  it("holds until the last one has come to it", async () => {
    await using cluster = await Cluster.start(3);
    const [last, ...early] = cluster.peers as [PeerProcess, ...PeerProcess[]];
    await begin(early, { name: "barrier", kind: "barrier", tag: 5 });
    const isSettled = async (): Promise<boolean[]> =>
      await Promise.all(early.map((peer) => peer.call<boolean>("isSettled", { name: "barrier" })));
    // All three go through others meanwhile.
    for (let i = 0; i < 20; i++) {
      expectAllRight(await each(cluster.peers, { kind: "barrier", tag: 6 }), 3);
      expect(await isSettled()).toEqual([false, false]);
    }
    expectAllRight(await each([last], { kind: "barrier", tag: 5 }), 3);
    expectAllRight(await finish(early, "barrier"), 3);
  });
});

describe("members that don't agree", () => {
  it("get the same error, which names a peer that differs", async () => {
    await using cluster = await Cluster.start(3);
    const { peers } = cluster;
    const cases: [string, Args, Args[]][] = [
      ["lengths", { kind: "allGather" }, [{ count: 10 }, { count: 11 }, { count: 10 }]],
      ["lengths", { kind: "reduceScatter" }, [{ count: 10 }, { count: 11 }, { count: 10 }]],
      ["roots", { kind: "broadcast" }, [{ rootRank: 0 }, { rootRank: 1 }, { rootRank: 0 }]],
      ["roots", { kind: "gather" }, [{ rootRank: 0 }, { rootRank: 0 }, { rootRank: 2 }]],
      ["blocks", { kind: "allToAll", uneven: true }, [{ count: 9 }, { count: 9 }, { count: 12 }]],
      ["kinds", {}, [{ kind: "barrier" }, { kind: "allReduce" }, { kind: "barrier" }]],
      ["kinds", { count: 9 }, [{ kind: "scatter" }, { kind: "scatter" }, { kind: "gather" }]],
      ["lengths", { kind: "sendAndRecv" }, [{ count: 4 }, { count: 4 }, { count: 5 }]],
    ];
    for (const [what, all, own] of cases) {
      const outcomes = await each(peers, all, own);
      const name = `different ${what} of ${JSON.stringify(all)}: ${JSON.stringify(outcomes)}`;
      expect(
        outcomes.map(({ error }) => error?.code),
        name,
      ).toEqual(peers.map(() => "ERR_PCCL_DESCRIPTOR_MISMATCH"));
      for (const { error, wrong } of outcomes) {
        expect(error?.message, name).toMatch(/peer \d/);
        expect(wrong, name).toBeUndefined();
      }
    }
    for (const kind of KINDS) expectAllRight(await each(peers, { kind }), 3);
  });
});

describe("a withdrawn call", () => {
  it.each(KINDS)("of %s ends on all members, and the next one works", async (kind) => {
    await using cluster = await Cluster.start(3);
    const [absent, withdrawn, waits] = cluster.peers as [PeerProcess, PeerProcess, PeerProcess];
    await begin([waits], { name: "waits", kind });
    const withdrawing = await withdrawn.call<Outcome>("collective", { kind, abortAfterMs: 50 });
    expect(withdrawing.error).toMatchObject({ name: "TimeoutError" });
    const late = await absent.call<Outcome>("collective", { kind });
    const [waiting] = await finish([waits], "waits");
    expect(late.error).toMatchObject({ code: "ERR_PCCL_CANCELLED" });
    // Its sends to and from the one that withdrew may have been through before that.
    if (kind !== "sendAndRecv") expect(waiting?.error).toMatchObject({ code: "ERR_PCCL_CANCELLED" });
    for (const outcome of [withdrawing, waiting, late]) expect(outcome?.wrong).toBeUndefined();
    expectAllRight(await each(cluster.peers, { kind }), 3);
  });
});
