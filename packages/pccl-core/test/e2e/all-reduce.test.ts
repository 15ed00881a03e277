/** Goal: every peer gets the right, and the same, bits. Method: real processes; sums that are exact in all dtypes. */
import { describe, expect, it } from "vitest";
import { Cluster, RemoteError } from "./cluster.js";

interface Reduced {
  readonly info: { worldSize: number; txBytes: number; rxBytes: number; seconds: number };
  readonly digest: string;
  readonly head: number[];
  readonly error?: { code: string; message: string; retryable: boolean; peerId?: number };
  readonly inputKept?: boolean;
}

const contribution = (salt: number, i: number): number => ((i * 7 + salt * 13) % 101) - 50;

function expected(op: string, salts: readonly number[], i: number, isInteger: boolean): number {
  const values = salts.map((salt) => contribution(salt, i));
  if (op === "max") return Math.max(...values);
  if (op === "min") return Math.min(...values);
  const sum = values.reduce((a, b) => a + b, 0);
  if (op === "sum") return sum;
  // Adding 0 turns -0, which Math.trunc gives and an Int32Array can't hold, into 0.
  return isInteger ? Math.trunc(sum / salts.length) + 0 : sum / salts.length;
}

describe("allReduce between processes", () => {
  it("combines every dtype with every operation, in place and out of place", async () => {
    await using cluster = await Cluster.start(4);
    for (const dtype of ["f32", "f64", "i32"]) {
      for (const op of ["sum", "avg", "max", "min"]) {
        for (const inPlace of [false, true]) {
          const results = await cluster.all<Reduced>("reduce", { dtype, op, inPlace, count: 1001 });
          expect(new Set(results.map(({ digest }) => digest)).size).toBe(1);
          expect(results.map(({ info }) => info.worldSize)).toEqual([4, 4, 4, 4]);
          const want = Array.from({ length: 8 }, (_, i) => expected(op, [1, 2, 3, 4], i, dtype === "i32"));
          expect(results[0]?.head, `${dtype} ${op}`).toEqual(want);
        }
      }
    }
  });

  it("handles fewer elements than peers, and many chunks", async () => {
    await using cluster = await Cluster.start(3);
    for (const count of [1, 2, 3, 5, 3_000_001]) {
      const results = await cluster.all<Reduced>("reduce", { count });
      expect(new Set(results.map(({ digest }) => digest)).size, `count ${count}`).toBe(1);
      expect(results[0]?.head[0]).toBe(expected("sum", [1, 2, 3], 0, false));
      if (count > 1_000) {
        // A ring sends 2(N−1)/N of the bytes; framing is far below 1 %.
        const ideal = (count * 4 * 2 * 2) / 3;
        expect(results[0]?.info.txBytes).toBeGreaterThanOrEqual(ideal * 0.99);
        expect(results[0]?.info.txBytes).toBeLessThan(ideal * 1.01);
      }
    }
  });

  it("runs concurrent ops by tag, whatever order they are started in", async () => {
    await using cluster = await Cluster.start(3);
    const tags = [5, 1, 9, 3];
    await Promise.all(
      cluster.peers.map(async (peer, index) => {
        const order = [...tags.slice(index), ...tags.slice(0, index)];
        for (const tag of order)
          await peer.call("start", { name: `op ${tag}`, tag, salt: tag, count: 50_000 });
      }),
    );
    for (const tag of tags) {
      const results = await cluster.all<Reduced>("finish", { name: `op ${tag}` });
      expect(results[0]?.head[0]).toBe(3 * contribution(tag, 0));
      expect(new Set(results.map(({ digest }) => digest)).size).toBe(1);
    }
  });

  it("spreads over several connections per peer, also when peers want different numbers of them", async () => {
    await using cluster = await Cluster.start(2, { connect: { connectionsPerPeer: 4 } });
    const newcomer = await cluster.newcomer({ connectionsPerPeer: 7 });
    await cluster.all("updateTopology", {}, cluster.peers.slice(0, 2));
    await newcomer.admitted;
    const calls = { ops: 5, count: 1_000_003, maxInFlight: 5 };
    const all = await cluster.all<{ digests: string[] }>("reduceAll", calls);
    for (const { digests } of all) expect(digests).toEqual(all[0]?.digests);
    const running = cluster.all<{ digests: string[]; worldSizes: number[] }>(
      "reduceAll",
      { ...calls, inPlace: true },
      cluster.peers.slice(0, 2),
    );
    const doomed = newcomer.peer.call("reduceAll", { ...calls, inPlace: true }).catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await newcomer.peer.kill();
    await doomed;
    const [a, b] = await running;
    expect(a).toMatchObject({ digests: b?.digests, worldSizes: b?.worldSizes });
  });

  it("is a copy in a world of one", async () => {
    await using cluster = await Cluster.start(1);
    const [result] = await cluster.all<Reduced>("reduce", { op: "avg" });
    expect(result?.info.worldSize).toBe(1);
    expect(result?.head[0]).toBe(contribution(1, 0));
  });

  it("keeps groups apart", async () => {
    await using cluster = await Cluster.start(0);
    const first = cluster.spawn();
    await cluster.connect(first, { group: 1 });
    const others = [cluster.spawn(), cluster.spawn()];
    const joins = others.map((peer) => cluster.connect(peer, { group: 2 }));
    await Promise.all(others.map((peer) => peer.pending));
    await first.call("updateTopology");
    await Promise.all(joins);
    expect(await first.call("view")).toMatchObject({ worldSize: 3, groupWorldSize: 1, rank: 0 });
    const results = await cluster.all<Reduced>("reduce", {}, others);
    expect(results.map(({ info }) => info.worldSize)).toEqual([2, 2]);
    expect(results[0]?.head[0]).toBe(expected("sum", [2, 3], 0, false));
  });
});

describe("failures of an op", () => {
  it("gives every member a descriptor mismatch, and the communicator stays usable", async () => {
    await using cluster = await Cluster.start(3);
    const counts = [1000, 1000, 999];
    const results = await Promise.all(
      cluster.peers.map((peer, i) => peer.call<Reduced>("reduce", { count: counts[i], inPlace: true })),
    );
    for (const result of results) {
      expect(result.error?.code).toBe("ERR_PCCL_DESCRIPTOR_MISMATCH");
      expect(result.inputKept).toBe(true);
    }
    const again = await cluster.all<Reduced>("reduce", { count: 10 });
    expect(again.every(({ error }) => error === undefined)).toBe(true);
  });

  it("withdraws an op by AbortSignal on all members", async () => {
    await using cluster = await Cluster.start(3);
    const [a, b, c] = cluster.peers;
    // The third peer doesn't call, so that the op can't be done when the signal fires.
    await b?.call("start", { name: "op", inPlace: true });
    const aborted = await a?.call<Reduced>("reduce", { inPlace: true, abortAfterMs: 100 });
    expect(aborted?.error).toMatchObject({ name: "TimeoutError" });
    expect(aborted?.inputKept).toBe(true);
    const cancelled = await b?.call<Reduced>("finish", { name: "op" });
    expect(cancelled?.error).toMatchObject({ code: "ERR_PCCL_CANCELLED", peerId: 1 });
    expect(cancelled?.inputKept).toBe(true);
    // Also for who calls it only now.
    expect((await c?.call<Reduced>("reduce"))?.error?.code).toBe("ERR_PCCL_CANCELLED");
    const again = await cluster.all<Reduced>("reduce");
    expect(again.every(({ error }) => error === undefined)).toBe(true);
  });

  it("restores in-place input when a member dies, and the retry succeeds on the survivors", async () => {
    await using cluster = await Cluster.start(3);
    const [victim, ...survivors] = cluster.peers;
    // The victim never calls, so the op is in flight on the survivors when it dies.
    await cluster.all("start", { name: "op", inPlace: true, count: 1_000_000 }, survivors);
    await victim?.kill();
    for (const result of await cluster.all<Reduced>("finish", { name: "op" }, survivors)) {
      expect(result.error).toMatchObject({ code: "ERR_PCCL_PEER_LOST", retryable: true, peerId: 1 });
      expect(result.inputKept).toBe(true);
    }
    const views = await cluster.all<{ worldSize: number }>("view", {}, survivors);
    expect(views.map(({ worldSize }) => worldSize)).toEqual([2, 2]);
    const retried = await cluster.all<Reduced>("reduce", { count: 1_000_000 }, survivors);
    expect(retried[0]?.head[0]).toBe(expected("sum", [2, 3], 0, false));
    expect(new Set(retried.map(({ digest }) => digest)).size).toBe(1);
  });

  it("survives kills at random moments of running ops with equal results", async () => {
    // The kill lands before, in or after the data phase, by chance; whatever happens, verdicts and bytes agree.
    await using cluster = await Cluster.start(7);
    let members = [...cluster.peers];
    for (let round = 0; round < 4; round++) {
      const [victim, ...survivors] = members;
      const args = { ops: 6, count: 2_000_000, maxInFlight: 3, inPlace: round % 2 === 0 };
      const running = cluster.all<{ digests: string[]; worldSizes: number[] }>("reduceAll", args, survivors);
      const doomed = victim?.call("reduceAll", args).catch((error: unknown) => error);
      await new Promise((resolve) => setTimeout(resolve, 15 + 40 * round));
      await victim?.kill();
      await doomed;
      const results = await running;
      for (const result of results) {
        expect(result.digests).toEqual(results[0]?.digests);
        expect(result.worldSizes).toEqual(results[0]?.worldSizes);
      }
      members = survivors;
      const next = await cluster.all<{ worldSizes: number[] }>("reduceAll", { ops: 1 }, members);
      expect(next.map(({ worldSizes }) => worldSizes)).toEqual(members.map(() => [members.length]));
    }
  });

  it("keeps going when all but one are gone", async () => {
    await using cluster = await Cluster.start(3);
    const [last, ...others] = cluster.peers;
    const running = last?.call<{ worldSizes: number[]; retriedOps: number }>("reduceAll", { ops: 2 });
    for (const peer of others) await peer.kill();
    const result = await running;
    expect(result?.worldSizes).toEqual([1, 1]);
    expect(result?.retriedOps).toBeGreaterThanOrEqual(1);
  });

  it("fails ops in flight when the communicator is closed", async () => {
    await using cluster = await Cluster.start(2);
    const [a, b] = cluster.peers;
    await a?.call("start", { name: "op", inPlace: true });
    await a?.call("close");
    const result = await a?.call<Reduced>("finish", { name: "op" });
    expect(result?.error?.code).toBe("ERR_PCCL_CLOSED");
    expect(result?.inputKept).toBe(true);
    expect((await b?.call<Reduced>("reduce"))?.info.worldSize).toBe(1);
    await expect(a?.call("updateTopology")).rejects.toThrow(RemoteError);
  });
});
