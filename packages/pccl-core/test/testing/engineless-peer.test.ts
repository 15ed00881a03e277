/** Goal: peers without engines are peers to the coordinator. Method: a world of them that grows, shrinks and votes. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { Coordinator } from "@pccl/core/coordinator";
import { EnginelessPeer } from "@pccl/core/testing";

const peers: EnginelessPeer[] = [];

afterEach(() => {
  for (const peer of peers.splice(0)) peer.kill();
});

function join(address: string, group = 0): EnginelessPeer {
  const peer = new EnginelessPeer(address, { group });
  peers.push(peer);
  return peer;
}

describe("EnginelessPeer", () => {
  it("joins by consent, votes, leaves and dies", async () => {
    await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 20 });
    const members = Array.from({ length: 20 }, (_, i) => join(coordinator.address, i % 2));
    await Promise.all(members.map(({ admitted }) => admitted));
    expect(coordinator.worldSize).toBe(20);
    expect(await Promise.all(members.map((peer) => peer.hasPendingPeers()))).not.toContain(true);
    const newcomer = join(coordinator.address);
    await newcomer.pending;
    expect(await Promise.all(members.map((peer) => peer.updateTopology()))).not.toContain(false);
    await newcomer.admitted;
    expect(coordinator.worldSize).toBe(21);
    members[0]?.kill();
    members[1]?.leave();
    await vi.waitUntil(() => coordinator.worldSize === 19, 10_000);
    await vi.waitUntil(() => members[1]?.ended === "left", 10_000);
    expect(members.slice(2).every(({ ended }) => ended === undefined)).toBe(true);
    expect(newcomer.messagesReceived).toBeGreaterThan(0);
    await expect(members[0]?.updateTopology()).rejects.toThrow(/killed/);
  });

  it("says why it is out", async () => {
    const coordinator = await Coordinator.start({ listen: "127.0.0.1:0" });
    const peer = join(coordinator.address);
    await peer.admitted;
    await coordinator.close();
    await vi.waitUntil(() => peer.ended !== undefined, 10_000);
    expect(peer.ended).toMatch(/^ERR_PCCL_REMOVED/);
  });

  it("refuses bad arguments", () => {
    expect(() => new EnginelessPeer("here:there")).toThrow(/HOST:PORT/);
    expect(() => new EnginelessPeer("127.0.0.1:1", { grp: 1 } as object)).toThrow(/"grp"/);
  });
});
