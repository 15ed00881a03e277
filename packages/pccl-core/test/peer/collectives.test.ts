/** Goal: the rules that all collectives share: names, limits, ends, views. Method: several communicators in this process. */
import { type Communicator, connect, type OpOptions, type PcclError } from "@pccl/core";
import { describe, expect, it } from "vitest";
import { closing, until, world } from "./world.js";

const f32 = (length = 4): Float32Array => new Float32Array(length);

async function codeOf(call: Promise<unknown>): Promise<unknown> {
  return await call.then(
    () => "resolved",
    (error: PcclError) => error.code,
  );
}

/** Each kind, called by a peer whose group has two members; `other` is the other one's id. */
function callsOf(peer: Communicator, options: OpOptions = {}): Record<string, () => Promise<unknown>> {
  const [self, other] = [peer.peerId, peer.peers.find((id) => id !== peer.peerId) ?? 0];
  return {
    allReduce: () => peer.allReduce(f32(), undefined, options),
    reduceScatter: () => peer.reduceScatter(f32(8), f32(), options),
    allGather: () => peer.allGather(f32(), f32(8), options),
    broadcast: () => peer.broadcast(f32(), { root: self, ...options }),
    allToAll: () => peer.allToAll(f32(), f32(), options),
    gather: () => peer.gather(f32(), f32(8), { root: self, ...options }),
    scatter: () => peer.scatter(f32(8), f32(), { root: self, ...options }),
    barrier: () => peer.barrier(options),
    send: () => peer.send(f32(), { to: other, ...options }),
    recv: () => peer.recv(f32(), { from: other, ...options }),
  };
}

describe("a collective", () => {
  it("of any kind times out, and says which and whom it waited for", async () => {
    const { peers } = await world(2);
    const [peer] = peers as [Communicator, Communicator];
    for (const [name, call] of Object.entries(callsOf(peer, { timeoutMs: 20, tag: 3 }))) {
      const error = await call().then(
        () => undefined,
        (reason: PcclError) => reason,
      );
      expect(error, name).toMatchObject({ code: "ERR_PCCL_TIMEOUT" });
      expect(error?.message).toMatch(new RegExp(`^${name}: timed out after 20 ms: .*peer 2`));
    }
  });

  it("of any kind ends with the communicator, and can't be begun after it", async () => {
    const { peers } = await world(2);
    const [peer] = peers as [Communicator, Communicator];
    const calls = Object.values(callsOf(peer));
    expect(calls).toHaveLength(10);
    const open = [peer.allReduce(f32()), peer.barrier({ tag: 1 }), peer.recv(f32(), { from: 2 })];
    const ends = open.map(codeOf);
    await peer.close();
    expect(await Promise.all(ends)).toEqual(["ERR_PCCL_CLOSED", "ERR_PCCL_CLOSED", "ERR_PCCL_CLOSED"]);
    for (const call of calls) expect(await codeOf(call())).toBe("ERR_PCCL_CLOSED");
  });

  it("can't run beside a change of topology", async () => {
    const { peers } = await world(2);
    const [peer, other] = peers as [Communicator, Communicator];
    const vote = peer.updateTopology();
    for (const call of Object.values(callsOf(peer))) {
      expect(await codeOf(call())).toBe("ERR_PCCL_CALL_IN_PROGRESS");
    }
    await Promise.all([vote, other.updateTopology()]);
    const send = peer.send(f32(), { to: other.peerId });
    expect(await codeOf(peer.updateTopology())).toBe("ERR_PCCL_OPS_IN_FLIGHT");
    await Promise.all([send, other.recv(f32(), { from: peer.peerId })]);
  });

  it("is alone with its tag in the group; sends are apart from that, and in order between two", async () => {
    const { peers } = await world(3);
    const [one, two, three] = peers as [Communicator, Communicator, Communicator];
    const all = one.allReduce(f32(), undefined, { tag: 9 });
    expect(await codeOf(one.barrier({ tag: 9 }))).toBe("ERR_PCCL_TAG_IN_USE");
    const sent = [1, 2, 3].map((value) => one.send(f32().fill(value), { to: two.peerId, tag: 9 }));
    const others = [
      one.recv(f32(), { from: two.peerId, tag: 9 }),
      one.send(f32(), { to: three.peerId, tag: 9 }),
      two.allReduce(f32(), undefined, { tag: 9 }),
    ];
    const received = [f32(), f32(), f32()];
    await Promise.all([
      ...sent,
      ...others,
      all,
      ...received.map((into) => two.recv(into, { from: one.peerId, tag: 9 })),
      two.send(f32(), { to: one.peerId, tag: 9 }),
      three.recv(f32(), { from: one.peerId, tag: 9 }),
      three.allReduce(f32(), undefined, { tag: 9 }),
    ]);
    expect(received.map(([first]) => first)).toEqual([1, 2, 3]);
  });

  it("takes its place among the ops that one peer may have in flight", async () => {
    const { peers } = await world(2, { maxOpsInFlight: 2 });
    const [peer, other] = peers as [Communicator, Communicator];
    const ops = [peer.barrier(), peer.send(f32(), { to: other.peerId })];
    expect(await codeOf(peer.allGather(f32(1), f32(2), { tag: 1 }))).toBe("ERR_PCCL_TOO_MANY_OPS");
    await Promise.all([...ops, other.barrier(), other.recv(f32(), { from: peer.peerId })]);
  });

  it("refuses a buffer that another one uses", async () => {
    const { peers } = await world(2);
    const [peer, other] = peers as [Communicator, Communicator];
    const buffer = f32(8);
    const gather = peer.allGather(f32(), buffer);
    expect(await codeOf(peer.send(buffer.subarray(2, 3), { to: other.peerId }))).toBe(
      "ERR_PCCL_BUFFER_IN_USE",
    );
    await Promise.all([gather, other.allGather(f32(), f32(8))]);
  });

  it("is matched by tag and order, whatever its kind", async () => {
    const { peers } = await world(2);
    const [one, two] = peers as [Communicator, Communicator];
    const calls = [one.allReduce(f32()), two.barrier()];
    expect(await Promise.all(calls.map(codeOf))).toEqual(calls.map(() => "ERR_PCCL_DESCRIPTOR_MISMATCH"));
    await Promise.all([one.barrier(), two.barrier()]);
  });

  it("between two goes on while a third one waits in a call for them", async () => {
    const { coordinator, peers } = await world(3);
    const [one, two, three] = peers as [Communicator, Communicator, Communicator];
    const vote = three.updateTopology();
    await until(() => coordinator.peers().some(({ waitsIn }) => waitsIn !== undefined));
    const recv = f32();
    await Promise.all([one.send(f32().fill(7), { to: two.peerId }), two.recv(recv, { from: one.peerId })]);
    expect([...recv]).toEqual([7, 7, 7, 7]);
    expect(await Promise.all([vote, one.updateTopology(), two.updateTopology()])).toEqual([
      false,
      false,
      false,
    ]);
  });

  it("between two that wait for each other in different calls ends with a word about both", async () => {
    const { peers } = await world(3);
    const [one, two] = peers as [Communicator, Communicator, Communicator];
    const errors = await Promise.allSettled([
      one.recv(f32(), { from: two.peerId, tag: 4 }),
      two.updateTopology(),
    ]);
    for (const outcome of errors) {
      expect(outcome).toMatchObject({ reason: { code: "ERR_PCCL_CALL_MISMATCH" } });
    }
    expect((errors[1] as PromiseRejectedResult).reason).toMatchObject({
      message: expect.stringMatching(
        /updateTopology \(peer 2\), a send from peer 2 to peer 1 with tag 4 \(peer 1\)/,
      ),
    });
  });
});

describe("the view", () => {
  it("has the group's peers in rank order, and nobody of another group", async () => {
    const { coordinator, peers } = await world(2);
    const [one, two] = peers as [Communicator, Communicator];
    const joining = connect(coordinator.address, { group: 1 }).then(closing);
    await until(() => coordinator.peers().length === 3);
    await Promise.all([one.updateTopology(), two.updateTopology()]);
    const three = await joining;
    for (const peer of peers) {
      expect(peer.peers[peer.rank]).toBe(peer.peerId);
      expect(peer.peers).toHaveLength(peer.groupWorldSize);
      expect(peer.worldSize).toBe(3);
    }
    expect(one.peers).toEqual(two.peers);
    expect(three.peers).toEqual([three.peerId]);
    expect(await codeOf(one.send(f32(), { to: three.peerId }))).toBe("ERR_PCCL_INVALID_ARGUMENT");
  });

  it("changes for a caller between turns, with its events", async () => {
    const { peers } = await world(3);
    const [one, two, three] = peers as [Communicator, Communicator, Communicator];
    let told = one.epoch;
    one.on("epoch", ({ epoch }) => (told = epoch));
    const closing = three.close();
    const seen = new Set<string>();
    while (one.groupWorldSize === 3) {
      seen.add(`${one.epoch} ${one.peers.join()}`);
      await new Promise((resolve) => setImmediate(resolve));
      expect(one.epoch).toBe(told);
    }
    await closing;
    expect(seen.size).toBe(1);
    expect(one.peers).toEqual([one.peerId, two.peerId]);
    const [first] = await Promise.all([one, two].map((peer) => peer.allGather(f32(1), f32(2))));
    expect(first).toMatchObject({ epoch: one.epoch, worldSize: 2 });
  });
});
