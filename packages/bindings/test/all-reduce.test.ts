/** Goal: arrays come out of native code with the right values in them. Method: small integers, exact in every dtype. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { DType, OpEvent, ReduceOp, RingMember, Tensor } from "@pccl/bindings";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { install, Peer, pair, until, within } from "./fixtures/peer.mjs";

const COUNT = 1_001;
const TYPES = [Float32Array, Float64Array, Int32Array];

describe("two engines in one process", () => {
  let peers: [Peer, Peer];
  beforeEach(async () => {
    peers = await pair();
  });
  afterEach(() => {
    for (const peer of peers) peer.close();
  });

  async function allReduce(
    sends: readonly Tensor[],
    recvs: readonly Tensor[],
    op: ReduceOp,
    dtype?: DType,
  ): Promise<OpEvent[]> {
    const tag = 2n ** 64n - 1n;
    const ops = peers.map((peer, i) =>
      peer.start((engine) =>
        engine.start({
          kind: "all-reduce",
          send: sends[i] as Tensor,
          recv: recvs[i] as Tensor,
          op,
          tag,
          ...(dtype && { dtype }),
        }),
      ),
    );
    return await within("the op", Promise.all(ops.map(({ ended }) => ended)));
  }

  const combine: Record<ReduceOp, (a: number, b: number) => number> = {
    sum: (a, b) => a + b,
    avg: (a, b) => (a + b) / 2,
    max: Math.max,
    min: Math.min,
    prod: (a, b) => a * b,
  };

  for (const type of TYPES) {
    it.each(Object.keys(combine) as ReduceOp[])(`${type.name} %s, in and out of place`, async (op) => {
      const sends = [1, -3].map((factor) =>
        type.from(Array.from({ length: COUNT }, (_, i) => (1 + (i % 100)) * factor * 2)),
      );
      const want = type.from(
        Array.from({ length: COUNT }, (_, i) => combine[op]((1 + (i % 100)) * 2, (1 + (i % 100)) * -6)),
      );
      const kept = sends.map((send) => send.slice());
      const recvs = sends.map(() => new type(COUNT));
      for (const end of await allReduce(sends, recvs, op)) {
        expect(end).toMatchObject({ type: "op-done", worldSize: 2 });
      }
      expect(recvs).toEqual([want, want]);
      expect(sends).toEqual(kept);
      await allReduce(sends, sends, op);
      expect(sends).toEqual([want, want]);
    });
  }

  const threes: [string, DType | undefined, () => Tensor, Tensor][] = [
    ["a Float32Array", undefined, () => Float32Array.of(3), Float32Array.of(6)],
    ["a Float64Array", "f64", () => Float64Array.of(3), Float64Array.of(6)],
    ["an Int8Array", undefined, () => Int8Array.of(3), Int8Array.of(6)],
    ["a Uint8Array", "u8", () => Uint8Array.of(3), Uint8Array.of(6)],
    ["an Int16Array", undefined, () => Int16Array.of(3), Int16Array.of(6)],
    ["a Uint16Array", undefined, () => Uint16Array.of(3), Uint16Array.of(6)],
    ["an Int32Array", undefined, () => Int32Array.of(3), Int32Array.of(6)],
    ["a Uint32Array", "u32", () => Uint32Array.of(3), Uint32Array.of(6)],
    ["a BigInt64Array", undefined, () => BigInt64Array.of(3n), BigInt64Array.of(6n)],
    ["a BigUint64Array", undefined, () => BigUint64Array.of(3n), BigUint64Array.of(6n)],
    ["the bits of f16", "f16", () => Uint16Array.of(0x4200), Uint16Array.of(0x4600)],
    ["the bits of bf16", "bf16", () => Uint16Array.of(0x4040), Uint16Array.of(0x40c0)],
  ];
  it.each(threes)("takes %s", async (_, dtype, make, six) => {
    const sends = peers.map(make);
    await allReduce(sends, sends, "sum", dtype);
    expect(sends).toEqual([six, six]);
  });

  it("takes the same bits for one dtype only", async () => {
    const sends = [Uint16Array.of(3), Uint16Array.of(3)];
    const ops = peers.map((peer, i) => {
      const send = sends[i] as Uint16Array;
      return peer.start((engine) =>
        engine.start({
          kind: "all-reduce",
          send,
          recv: send,
          op: "sum",
          tag: 5n,
          dtype: i === 0 ? "f16" : "bf16",
        }),
      );
    });
    for (const end of await within("both ends", Promise.all(ops.map(({ ended }) => ended)))) {
      expect(end).toMatchObject({ type: "op-failed", error: { code: "ERR_PCCL_DESCRIPTOR_MISMATCH" } });
    }
  });

  it("reads and writes views into larger and shared buffers", async () => {
    const shared = new Float32Array(new SharedArrayBuffer(64), 8, 3).fill(1);
    const view = new Float64Array(8).subarray(2, 5);
    const plain = new Float32Array(3).fill(2);
    await allReduce([shared, plain], [shared, plain], "sum");
    expect([...new Float32Array(shared.buffer)]).toEqual([0, 0, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    await allReduce([view.fill(4), new Float64Array(3)], [view, new Float64Array(3)], "avg");
    expect([...new Float64Array(view.buffer)]).toEqual([0, 0, 2, 2, 2, 0, 0, 0]);
  });

  it("waits for the next view between prepare and install", async () => {
    const ring = peers.map(({ member }) => member);
    const prepared = peers.map((peer) => peer.prepare(2, ring));
    const sends = [new Float32Array([1]), new Float32Array([2])];
    const ended = allReduce(sends, sends, "sum");
    await within("preparing", Promise.all(prepared.map((step) => step.prepared)));
    for (const peer of peers) peer.control.install(2, []);
    expect((await ended).map(({ type }) => type)).toEqual(["op-done", "op-done"]);
    expect(sends).toEqual([new Float32Array([3]), new Float32Array([3])]);
    expect(peers.map((peer) => peer.engine.view())).toEqual(
      [1, 2].map((peerId) => ({
        epoch: 2,
        ringEpoch: 2,
        peerId,
        rank: peerId - 1,
        groupSize: 2,
        worldSize: 2,
        members: [1, 2],
      })),
    );
  });

  it("reduces over several connections, as many as the peer that wants more of them", async () => {
    for (const peer of peers) peer.close();
    peers = [new Peer(1, { connectionsPerPeer: 3, opsInFlightMax: 1 }), new Peer(2)];
    await install(1, peers);
    const sends = peers.map((peer) => new Float64Array(500_000).fill(peer.peerId));
    expect((await allReduce(sends, sends, "sum")).map(({ type }) => type)).toEqual(["op-done", "op-done"]);
    expect(sends).toEqual([new Float64Array(500_000).fill(3), new Float64Array(500_000).fill(3)]);
    const hold = peers[0].start((engine) =>
      engine.start({
        kind: "all-reduce",
        send: new Float32Array(1),
        recv: new Float32Array(1),
        op: "sum",
        tag: 1n,
      }),
    );
    expect(() =>
      peers[0].engine.start({
        kind: "all-reduce",
        send: new Float32Array(1),
        recv: new Float32Array(1),
        op: "sum",
        tag: 2n,
      }),
    ).toThrow(expect.objectContaining({ code: "ERR_PCCL_TOO_MANY_OPS" }));
    expect(peers[0].engine.cancel(hold.id)).toBe(true);
  });

  it("says who hasn't called an op, and aborts it when that peer waits elsewhere", async () => {
    const [first, second] = peers;
    const tensor = new Float32Array([1]);
    const op = first.start((engine) =>
      engine.start({ kind: "all-reduce", send: tensor, recv: tensor, op: "sum", tag: 3n }),
    );
    await until("the stall", () => first.stalled.length > 0);
    expect(first.stalled).toEqual([{ type: "stalled", epoch: 1, tag: 3n, seq: 0, missing: [2] }]);
    expect(first.control.abortIfMissing(2, { tag: 3n, seq: 0 }, 2)).toBe(false);
    expect(first.control.abortIfMissing(1, { tag: 3n, seq: 0 }, 1)).toBe(false);
    expect(first.control.abortIfMissing(1, { tag: 3n, seq: 0 }, 2)).toBe(true);
    expect(await within("its end", op.ended)).toMatchObject({
      type: "op-failed",
      error: { code: "ERR_PCCL_CALL_MISMATCH", peerId: 2, epoch: 1 },
    });
    expect(second.stalled).toEqual([]);
  });

  it("keeps the ring and its ops when only the world changes", async () => {
    const tensors = peers.map(() => new Float32Array([1]));
    const [first] = peers;
    const early = first.start((engine) =>
      engine.start({
        kind: "all-reduce",
        send: tensors[0] as Tensor,
        recv: tensors[0] as Tensor,
        op: "sum",
        tag: 4n,
      }),
    );
    for (const peer of peers) peer.control.setWorld(7, 5);
    expect(first.engine.view()).toEqual({
      epoch: 7,
      ringEpoch: 1,
      peerId: 1,
      rank: 0,
      groupSize: 2,
      worldSize: 5,
      members: [1, 2],
    });
    peers[1].engine.start({
      kind: "all-reduce",
      send: tensors[1] as Tensor,
      recv: tensors[1] as Tensor,
      op: "sum",
      tag: 4n,
    });
    expect(await within("the op", early.ended)).toMatchObject({ type: "op-done", epoch: 7, worldSize: 2 });
    expect(() => first.control.setWorld(6, 5)).toThrow("older");
  });

  it("reports a frozen op, and gives it the verdict that it is handed", async () => {
    const [first, second] = peers;
    const tensor = new Float32Array([1]);
    const op = first.start((engine) =>
      engine.start({ kind: "all-reduce", send: tensor, recv: tensor, op: "sum", tag: 9n }),
    );
    const ring = [first.member];
    const { reports, prepared } = first.prepare(2, ring);
    expect(reports).toEqual([{ tag: 9n, seq: 0, state: "not-done" }]);
    second.close();
    await within("preparing", prepared);
    first.control.install(2, [{ tag: 9n, seq: 0, commit: false }]);
    expect(await within("the op's end", op.ended)).toMatchObject({
      type: "op-failed",
      error: { code: "ERR_PCCL_PEER_LOST" },
    });
    expect(tensor).toEqual(new Float32Array([1]));
    peers = [first, new Peer(3)];
    await install(3, peers);
    const sends = [new Float32Array([1]), new Float32Array([4])];
    await allReduce(sends, sends, "sum");
    expect(sends[0]).toEqual(new Float32Array([5]));
  });
});

describe("three engines in three processes", () => {
  it("agree on every dtype", async () => {
    const script = fileURLToPath(new URL("./fixtures/ring-member.mjs", import.meta.url));
    const children = [1, 2, 3].map((peerId) => fork(script, [String(peerId)], { serialization: "advanced" }));
    try {
      const hellos = await Promise.all(
        children.map(
          async (child) =>
            (await within("a child's start", once(child, "message")))[0] as { member: RingMember },
        ),
      );
      const ring = hellos.map(({ member }) => member);
      const answers = children.map((child) => once(child, "message"));
      const exits = children.map((child) => once(child, "exit"));
      for (const child of children) child.send({ ring, count: COUNT });
      const want = TYPES.map((type) => type.from(Array.from({ length: COUNT }, (_, i) => (i % 100) * 6)));
      for (const [answer] of await within("the children's results", Promise.all(answers))) {
        expect(answer.failures).toEqual([]);
        expect(answer.ends.map(({ type }: OpEvent) => type)).toEqual(["op-done", "op-done", "op-done"]);
        expect(answer.tensors).toEqual(want);
      }
      expect(await within("the children's exits", Promise.all(exits))).toEqual(
        [1, 2, 3].map(() => [0, null]),
      );
    } finally {
      for (const child of children) child.kill("SIGKILL");
    }
  });
});
