/** Goal: each kind of call reaches native code as it was meant, and what can't be meant is refused. Three engines. */
import type { CollectiveCall, DType, OpEvent, Tensor } from "@pccl/bindings";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { install, Peer, until, within } from "./fixtures/peer.mjs";

const TAG = 9n;
const f32 = (...values: number[]): Float32Array => Float32Array.from(values);

let peers: Peer[];
beforeEach(async () => {
  peers = [1, 2, 3].map((peerId) => new Peer(peerId));
  await install(1, peers);
});
afterEach(() => {
  for (const peer of peers) peer.close();
});

const start = (rank: number, call: CollectiveCall): Promise<OpEvent> =>
  (peers[rank] as Peer).start((engine) => engine.start(call)).ended;

async function run(call: (rank: number) => CollectiveCall): Promise<OpEvent[]> {
  return await within("the op", Promise.all(peers.map((_, rank) => start(rank, call(rank)))));
}

describe("three engines", () => {
  it("say who the members are", () => {
    expect(peers.map((peer) => peer.engine.view()?.members)).toEqual([1, 2, 3].map(() => [1, 2, 3]));
  });

  it("reduce and scatter", async () => {
    const recvs = peers.map(() => f32(0, 0));
    const events = await run((rank) => {
      const send = f32(1, 2, 3, 4, 5, 6).map((value) => value * (rank + 1));
      return { kind: "reduce-scatter", send, recv: recvs[rank] as Tensor, op: "sum", tag: TAG };
    });
    expect(recvs).toEqual([f32(6, 12), f32(18, 24), f32(30, 36)]);
    for (const event of events) {
      expect(event).toMatchObject({ type: "op-done", worldSize: 3, algorithm: "one-shot", transport: "tcp" });
    }
  });

  it("gather for all, in place too", async () => {
    const recvs = peers.map(() => new Int32Array(3));
    await run((rank) => ({
      kind: "all-gather",
      send: Int32Array.of(rank),
      recv: recvs[rank] as Tensor,
      tag: TAG,
    }));
    expect(recvs).toEqual(peers.map(() => Int32Array.of(0, 1, 2)));
    const own = peers.map((_, rank) => Int32Array.of(-1, -1, -1).fill(rank + 7, rank, rank + 1));
    await run((rank) => {
      const recv = own[rank] as Int32Array;
      return { kind: "all-gather", send: recv.subarray(rank, rank + 1), recv, tag: TAG };
    });
    expect(own).toEqual(peers.map(() => Int32Array.of(7, 8, 9)));
  });

  it("broadcast, gather and scatter", async () => {
    const data = peers.map((_, rank) => f32(rank, rank));
    await run((rank) => ({ kind: "broadcast", data: data[rank] as Tensor, root: 2, tag: TAG }));
    expect(data).toEqual(peers.map(() => f32(1, 1)));

    const all = f32(0, 0, 0);
    await run((rank) => ({
      kind: "gather",
      send: f32(rank * 2),
      ...(rank === 2 && { recv: all }),
      root: 3,
      tag: TAG,
    }));
    expect(all).toEqual(f32(0, 2, 4));

    const own = peers.map(() => f32(0));
    await run((rank) => {
      return {
        kind: "scatter",
        ...(rank === 0 && { send: all }),
        recv: own[rank] as Tensor,
        root: 1,
        tag: TAG,
      };
    });
    expect(own).toEqual([f32(0), f32(2), f32(4)]);
  });

  it("exchange blocks, of equal length and of any", async () => {
    const recvs = peers.map(() => new BigInt64Array(3));
    await run((rank) => {
      const send = BigInt64Array.from([0n, 1n, 2n], (to) => BigInt(rank) * 10n + to);
      return { kind: "all-to-all", send, recv: recvs[rank] as Tensor, tag: TAG };
    });
    expect(recvs[1]).toEqual(BigInt64Array.of(1n, 11n, 21n));

    // Rank r sends as many to rank t as t has: 0, 1 and 2.
    const uneven = peers.map((_, rank) => new Float32Array(3 * rank));
    await run((rank) => ({
      kind: "all-to-all",
      send: f32(rank + 1, rank + 1, rank + 1),
      recv: uneven[rank] as Tensor,
      sendCounts: [0, 1, 2],
      recvCounts: [rank, rank, rank],
      tag: TAG,
    }));
    expect(uneven).toEqual([f32(), f32(1, 2, 3), f32(1, 1, 2, 2, 3, 3)]);
  });

  it("wait for each other, and send to each other under one tag", async () => {
    const early = start(0, { kind: "barrier", tag: TAG });
    const sends = [f32(1), f32(2), f32(3)].map((data) => start(0, { kind: "send", data, to: 3, tag: TAG }));
    const received = [f32(0), f32(0), f32(0)];
    const recvs = received.map((data) => start(2, { kind: "recv", data, from: 1, tag: TAG }));
    const back = f32(0);
    const answer = [
      start(2, { kind: "send", data: f32(7), to: 1, tag: TAG }),
      start(0, { kind: "recv", data: back, from: 3, tag: TAG }),
    ];
    for (const { type } of await within("the messages", Promise.all([...sends, ...recvs, ...answer]))) {
      expect(type).toBe("op-done");
    }
    expect([...received, back]).toEqual([f32(1), f32(2), f32(3), f32(7)]);
    const late = [1, 2].map((rank) => start(rank, { kind: "barrier", tag: TAG }));
    for (const { type } of await within("the barrier", Promise.all([early, ...late])))
      expect(type).toBe("op-done");
  });

  it("name an op of two by its two members, everywhere", async () => {
    const ended = start(0, { kind: "send", data: f32(1), to: 3, tag: TAG });
    const [first] = peers as [Peer];
    await until("the stall", () => first.stalled.length > 0);
    const op = { tag: TAG, seq: 0, from: 1, to: 3 };
    expect(first.stalled).toEqual([{ type: "stalled", epoch: 1, ...op, missing: [3] }]);
    expect(first.control.abortIfMissing(1, { tag: TAG, seq: 0 }, 3)).toBe(false);
    expect(first.control.abortIfMissing(1, op, 3)).toBe(true);
    expect(await within("the end", ended)).toMatchObject({
      error: { code: "ERR_PCCL_CALL_MISMATCH", peerId: 3 },
    });

    const next = start(0, { kind: "send", data: f32(1), to: 2, tag: TAG });
    const ring = peers.map((peer) => peer.member);
    const prepared = peers.map((peer) => peer.prepare(2, ring));
    expect(prepared[0]?.reports).toContainEqual({ ...op, to: 2, state: "not-done" });
    await within("preparing", Promise.all(prepared.map((step) => step.prepared)));
    for (const peer of peers) peer.control.install(2, [{ ...op, to: 2, commit: false }]);
    expect(await within("the end", next)).toMatchObject({ error: { code: "ERR_PCCL_PEER_LOST" } });
  });
});

describe("start refuses", () => {
  const any = (value: unknown): never => value as never;
  const calls: [string, CollectiveCall][] = [
    ["nothing", any(undefined)],
    ["an unknown kind", any({ kind: "all-reduce-scatter", tag: TAG })],
    [
      "a reduce-scatter without its blocks",
      { kind: "reduce-scatter", send: f32(1, 2), recv: f32(1), op: "sum", tag: TAG },
    ],
    [
      "a reduce-scatter without op",
      any({ kind: "reduce-scatter", send: f32(1, 2, 3), recv: f32(1), tag: TAG }),
    ],
    ["an all-gather that is too long", { kind: "all-gather", send: f32(1), recv: f32(1, 2, 3, 4), tag: TAG }],
    ["types that differ", { kind: "all-gather", send: f32(1), recv: new Int32Array(3), tag: TAG }],
    ["a root that is no member", { kind: "broadcast", data: f32(1), root: 4, tag: TAG }],
    ["a root that is no number", { kind: "broadcast", data: f32(1), root: any("2"), tag: TAG }],
    ["a broadcast of nothing", { kind: "broadcast", data: f32(), root: 1, tag: TAG }],
    ["a gather without the root's buffer", { kind: "gather", send: f32(1), root: 1, tag: TAG }],
    [
      "a gather with a buffer elsewhere",
      { kind: "gather", send: f32(1), recv: f32(1, 2, 3), root: 2, tag: TAG },
    ],
    ["a scatter without the root's buffer", { kind: "scatter", recv: f32(1), root: 1, tag: TAG }],
    ["blocks that don't divide", { kind: "all-to-all", send: f32(1, 2), recv: f32(1, 2), tag: TAG }],
    [
      "only half of the counts",
      { kind: "all-to-all", send: f32(1), recv: f32(1), sendCounts: [1, 0, 0], tag: TAG },
    ],
    [
      "counts of another sum",
      {
        kind: "all-to-all",
        send: f32(1),
        recv: f32(1),
        sendCounts: [0, 0, 2],
        recvCounts: [0, 0, 1],
        tag: TAG,
      },
    ],
    [
      "a count below 0",
      {
        kind: "all-to-all",
        send: f32(1),
        recv: f32(1),
        sendCounts: [0, -1, 2],
        recvCounts: [0, 0, 1],
        tag: TAG,
      },
    ],
    ["a message to itself", { kind: "send", data: f32(1), to: 1, tag: TAG }],
    ["a message to nobody", any({ kind: "send", data: f32(1), tag: TAG })],
    ["a message from a stranger", { kind: "recv", data: f32(1), from: 12, tag: TAG }],
    ["a barrier without a tag", any({ kind: "barrier" })],
    [
      "a dtype that the array doesn't hold",
      { kind: "send", data: f32(1), to: 2, dtype: "bf16" as DType, tag: TAG },
    ],
  ];
  it.each(calls)("%s", (_, call) => {
    const { engine } = peers[0] as Peer;
    expect(() => engine.start(call)).toThrow(expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }));
  });

  it("memory that overlaps, and memory in use", async () => {
    const { engine } = peers[0] as Peer;
    const memory = new Float32Array(12);
    const overlapping: CollectiveCall[] = [
      { kind: "all-gather", send: memory.subarray(1, 2), recv: memory.subarray(0, 3), tag: TAG },
      { kind: "all-to-all", send: memory.subarray(0, 6), recv: memory.subarray(5, 11), tag: TAG },
      {
        kind: "reduce-scatter",
        send: memory.subarray(0, 3),
        recv: memory.subarray(2, 3),
        op: "sum",
        tag: TAG,
      },
    ];
    for (const call of overlapping) {
      expect(() => engine.start(call)).toThrow(
        expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
      );
    }
    // What is only read can go to several at once; what is received into is nobody else's.
    const ended = [2, 3].map((to) => start(0, { kind: "send", data: memory, to, tag: TAG }));
    expect(() => engine.start({ kind: "recv", data: memory.subarray(3), from: 2, tag: TAG })).toThrow(
      expect.objectContaining({ code: "ERR_PCCL_BUFFER_IN_USE" }),
    );
    for (const rank of [1, 2])
      void start(rank, { kind: "recv", data: new Float32Array(12), from: 1, tag: TAG });
    for (const { type } of await within("the messages", Promise.all(ended))) expect(type).toBe("op-done");
  });
});
