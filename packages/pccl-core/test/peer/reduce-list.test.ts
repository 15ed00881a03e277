/**
 * Goal: allReduceAll ends on every peer, with all ops committed or with the reason, and says when nobody else was
 * left. Method: several communicators in this process, lists of small ops, leavers and withdrawals in between.
 */
import { type AllReduceAllResult, type Communicator, type PcclError } from "@pccl/core";
import { describe, expect, it } from "vitest";
import { until, world } from "./world.js";

const COUNT = 1_000;

/** A list of `ops` arrays that all hold `value`. */
function list(ops: number, value: number): { send: Float32Array; recv: Float32Array }[] {
  return Array.from({ length: ops }, () => ({
    send: new Float32Array(COUNT).fill(value),
    recv: new Float32Array(COUNT),
  }));
}

describe("allReduceAll", () => {
  it("tells with whom each op was committed, whatever number of them each peer has in flight", async () => {
    const { peers } = await world(3, { maxOpsInFlight: 100 });
    const lists = peers.map((_, i) => list(120, 1 << i));
    const slots = [1, 100, 7];
    const results = await Promise.all(
      peers.map((peer, i) =>
        peer.allReduceAll(lists[i] as (typeof lists)[0], { maxInFlight: slots[i] as number }),
      ),
    );
    for (const { outcome, results: each, retriedOps } of results) {
      expect({ outcome, retriedOps, length: each.length }).toEqual({
        outcome: "committed",
        retriedOps: 0,
        length: 120,
      });
      for (const result of each) expect(result).toMatchObject({ worldSize: 3, epoch: 1 });
    }
    for (const { recv } of lists.flat()) expect(recv.every((value) => value === 7)).toBe(true);
  });

  it("says when this peer was the last one", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const calls = list(20, 5);
    const all = a.allReduceAll(calls, { maxInFlight: 3 });
    await b.close();
    const { outcome, results, retriedOps } = await all;
    expect(outcome).toBe("alone");
    expect(retriedOps).toBe(3);
    for (const result of results) expect(result).toMatchObject({ worldSize: 1, epoch: a.epoch });
    for (const { recv } of calls) expect(recv[COUNT - 1]).toBe(5);
  });

  it("gives the survivors of leavers the same results", async () => {
    const { peers } = await world(5);
    const lists = peers.map((_, i) => list(300, 1 << i));
    const all = peers.map((peer, i) => {
      const calls = lists[i] as (typeof lists)[0];
      const leaves = i >= 3;
      return peer.allReduceAll(calls, { maxInFlight: 1 + 3 * i }).catch((error: PcclError) => {
        if (!leaves) throw error;
      });
    });
    const committed = (i: number): number => (lists[i] ?? []).filter(({ recv }) => recv[0] !== 0).length;
    await until(() => committed(0) > 50);
    await peers[4]?.close();
    await until(() => committed(0) > 150);
    await peers[3]?.close();
    const survivors = (await Promise.all(all.slice(0, 3))) as AllReduceAllResult[];
    for (let op = 0; op < 300; op++) {
      const [first, ...others] = survivors.map(({ results }) => results[op]);
      const sum = [0, 7, 15, 31][Math.max(0, (first?.worldSize ?? 0) - 2)];
      for (const other of others) {
        expect(other).toMatchObject({ worldSize: first?.worldSize, epoch: first?.epoch });
      }
      for (const i of [0, 1, 2]) expect(lists[i]?.[op]?.recv[0]).toBe(sum);
    }
    expect(new Set(survivors[0]?.results.map(({ worldSize }) => worldSize))).toContain(3);
  });

  it("can be called again at once on all peers when one has withdrawn in the middle", async () => {
    const { peers } = await world(3);
    const slots = [2, 16, 5];
    for (let round = 0; round < 12; round++) {
      const lists = peers.map((_, i) => list(60, 1 << i));
      const stop = new AbortController();
      const first = peers.map((peer, i) =>
        peer.allReduceAll(lists[i] as (typeof lists)[0], {
          maxInFlight: slots[i] as number,
          ...(i === round % 3 ? { signal: stop.signal } : {}),
        }),
      );
      const own = lists[round % 3] as (typeof lists)[0];
      await until(() => own.filter(({ recv }) => recv[0] !== 0).length >= 4 * round);
      stop.abort(new Error("enough"));
      await Promise.allSettled(first);
      const again = await Promise.all(
        peers.map((peer, i) => peer.allReduceAll(list(60, 1 << i), { maxInFlight: slots[i] as number })),
      );
      expect(again.map(({ retriedOps }) => retriedOps)).toEqual([0, 0, 0]);
    }
  });

  it("isn't made again when the other peer waits in another call", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const outcomes = await Promise.allSettled([a.allReduceAll(list(3, 1)), b.updateTopology()]);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ reason: { name: "CallMismatchError", epoch: 1 } });
    }
  });

  it("excludes topology and sync calls also between an op's failure and its repetition", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const call = new Promise<unknown>((resolve) => {
      // Settled promises are seen in the order in which they settled: this is seen after the op's, and before that
      // of the slot which makes the op again.
      a.on("peerLost", () => void Promise.resolve().then(() => a.updateTopology().then(resolve, resolve)));
    });
    const all = a.allReduceAll(list(3, 1), { maxInFlight: 1 });
    await b.close();
    expect(await call).toMatchObject({ code: "ERR_PCCL_OPS_IN_FLIGHT" });
    expect(await all).toMatchObject({ outcome: "alone", retriedOps: 1 });
    expect(await a.updateTopology()).toBe(false);
  });

  it("takes no more in flight than the communicator does", async () => {
    const { peers } = await world(1, { maxOpsInFlight: 4 });
    const [a] = peers as [Communicator];
    await expect(a.allReduceAll(list(8, 1), { maxInFlight: 5 })).rejects.toMatchObject({
      code: "ERR_PCCL_INVALID_ARGUMENT",
      message: expect.stringContaining("maxInFlight must be an integer from 1 to 4"),
    });
    expect((await a.allReduceAll(list(8, 1))).results.length).toBe(8);
    await expect(a.allReduceAll(list(4_097, 1))).rejects.toThrow(
      /number of calls must be an integer from 0 to 4096/,
    );
    expect(await a.allReduceAll([])).toEqual({ outcome: "committed", results: [], retriedOps: 0 });
  });
});
