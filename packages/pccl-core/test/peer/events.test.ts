/**
 * Goal: listeners hear of each view after connect()'s, in order, and before the ops that it ended reject.
 * Method: communicators in this process that join, leave and lose their coordinator, and a log of what they hear.
 */
import { type Communicator, type CommunicatorEvents, connect, type PcclError } from "@pccl/core";
import { describe, expect, it } from "vitest";
import { closing, until, world } from "./world.js";

const tensor = (): Float32Array => new Float32Array(1000).fill(1);

/** Everything that `peer` tells, in order. */
function listen(peer: Communicator): unknown[] {
  const heard: unknown[] = [];
  for (const name of ["epoch", "peerJoined", "peerLost", "removed"] as const) {
    peer.on(name, (event) => heard.push([name, event]));
  }
  return heard;
}

describe("events", () => {
  it("tell of newcomers and of peers that leave, each with its view", async () => {
    const { coordinator, peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const heard = listen(a);
    const registered = new Promise((resolve) => {
      void connect(coordinator.address, { group: 7, onPending: resolve }).then(closing);
    });
    await registered;
    expect(await Promise.all([a.updateTopology(), b.updateTopology()])).toEqual([true, true]);
    expect(heard).toEqual([
      ["epoch", { epoch: 2, rank: 0, worldSize: 3, groupWorldSize: 2 }],
      ["peerJoined", { peerId: 3, group: 7 }],
    ]);
    heard.length = 0;
    await b.close();
    await until(() => heard.length >= 2);
    expect(heard).toEqual([
      ["epoch", { epoch: a.epoch, rank: 0, worldSize: 2, groupWorldSize: 1 }],
      ["peerLost", { peerId: 2, group: 0, reason: expect.stringMatching(/left/) }],
    ]);
  });

  it("come before the ops that the view ended reject", async () => {
    const { peers } = await world(8);
    let survivors = peers;
    while (survivors.length > 2) {
      const leaver = survivors.at(-1) as Communicator;
      const rest = survivors.slice(0, -1);
      const logs = rest.map((peer) => listen(peer));
      const ops = rest.map((peer, i) => {
        const log = logs[i] as unknown[];
        return peer.allReduce(tensor()).catch((error: PcclError) => log.push([error.name, error.peerId]));
      });
      await leaver.close();
      await Promise.all(ops);
      for (const [i, peer] of rest.entries()) {
        const { epoch } = peer;
        expect(logs[i]).toEqual([
          ["epoch", { epoch, rank: i, worldSize: rest.length, groupWorldSize: rest.length }],
          ["peerLost", { peerId: leaver.peerId, group: 0, reason: expect.any(String) }],
          ["PeerLostError", leaver.peerId],
        ]);
      }
      survivors = rest;
    }
  });

  it("say once that the communicator has ended, before its calls reject, and nothing after close()", async () => {
    const { coordinator, peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const heard = listen(a);
    const heardByOther = listen(b);
    const op = a.allReduce(tensor()).catch((error: PcclError) => heard.push(["op", error.code]));
    const vote = a.updateTopology().catch((error: PcclError) => heard.push(["vote", error.code]));
    await vote;
    heard.length = 0;
    await b.close();
    await until(() => heard.length >= 3);
    await op;
    expect(heard.at(-1)).toEqual(["op", "ERR_PCCL_PEER_LOST"]);
    heard.length = 0;
    await coordinator.close();
    await until(() => heard.length > 0);
    await expect(a.hasPendingPeers()).rejects.toMatchObject({ code: "ERR_PCCL_REMOVED" });
    await a.close();
    expect(heard).toEqual([["removed", expect.objectContaining({ code: "ERR_PCCL_REMOVED" })]]);
    expect(heardByOther).toEqual([]);
  });

  it("reach as many listeners as ask, as often as they ask", async () => {
    const { peers } = await world(3);
    const [a, b, c] = peers as [Communicator, Communicator, Communicator];
    const counts = { on: 0, once: 0, off: 0 };
    const off = (): void => void counts.off++;
    const same = a
      .on("epoch", () => counts.on++)
      .once("epoch", () => counts.once++)
      .on("epoch", off)
      .off("epoch", off);
    expect(same).toBe(a);
    await b.close();
    await until(() => counts.on === 1);
    await c.close();
    await until(() => counts.on === 2);
    expect(counts).toEqual({ on: 2, once: 1, off: 0 });
  });

  it("are thrown out of by a listener without harm to the communicator", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const uncaught: unknown[] = [];
    process.setUncaughtExceptionCaptureCallback((error) => uncaught.push(error));
    try {
      const bug = new Error("a listener's bug");
      a.on("epoch", () => {
        throw bug;
      });
      const heard = listen(a);
      const op = a.allReduce(tensor()).catch((error: PcclError) => error.code);
      await b.close();
      expect(await op).toBe("ERR_PCCL_PEER_LOST");
      // A listener that throws ends its event, as with every EventEmitter; the others come all the same.
      expect(heard).toEqual([["peerLost", expect.objectContaining({ peerId: 2 })]]);
      await until(() => uncaught.length > 0);
      expect(uncaught).toEqual([bug]);
    } finally {
      process.setUncaughtExceptionCaptureCallback(null);
    }
    expect((await a.allReduce(tensor())).worldSize).toBe(1);
  });

  it("may be answered by closing", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const closed = new Promise<void>((resolve) => {
      a.on("peerLost", () => void a.close().then(resolve));
    });
    const op = a.allReduce(tensor()).catch((error: PcclError) => error.code);
    await b.close();
    await closed;
    expect(["ERR_PCCL_PEER_LOST", "ERR_PCCL_CLOSED"]).toContain(await op);
  });

  it("have names and listeners that are checked", async () => {
    const { peers } = await world(1);
    const [a] = peers as [Communicator];
    const code = "ERR_PCCL_INVALID_ARGUMENT";
    for (const method of ["on", "once", "off"] as const) {
      const call = (name: unknown, listener: unknown) => () =>
        a[method](name as keyof CommunicatorEvents, listener as () => void);
      expect(call("epochs", () => {})).toThrow(expect.objectContaining({ code }));
      expect(call("epoch", undefined)).toThrow(expect.objectContaining({ code }));
    }
  });
});
