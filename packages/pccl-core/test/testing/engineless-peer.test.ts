/** Goal: peers without engines are peers to the coordinator. Method: a world of them that grows, shrinks and votes. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { Coordinator } from "@pccl/core/coordinator";
import { EnginelessPeer } from "@pccl/core/testing";

const peers: EnginelessPeer[] = [];

afterEach(() => {
  for (const peer of peers.splice(0)) peer.kill();
});

async function join(address: string, group = 0): Promise<EnginelessPeer> {
  const peer = await EnginelessPeer.start(address, { group });
  peers.push(peer);
  return peer;
}

describe("EnginelessPeer", () => {
  it("joins by consent, votes, leaves and dies", async () => {
    await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 20 });
    const members = await Promise.all(Array.from({ length: 20 }, (_, i) => join(coordinator.address, i % 2)));
    await Promise.all(members.map(({ admitted }) => admitted));
    expect(coordinator.worldSize).toBe(20);
    expect(await Promise.all(members.map((peer) => peer.hasPendingPeers()))).not.toContain(true);
    const newcomer = await join(coordinator.address);
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
    const peer = await join(coordinator.address);
    await peer.admitted;
    await coordinator.close();
    await vi.waitUntil(() => peer.ended !== undefined, 10_000);
    expect(peer.ended).toMatch(/^ERR_PCCL_REMOVED/);
  });

  it("refuses bad arguments", async () => {
    await expect(EnginelessPeer.start("here:there")).rejects.toThrow(/HOST:PORT/);
    await expect(EnginelessPeer.start("127.0.0.1:1", { grp: 1 } as object)).rejects.toThrow(/"grp"/);
  });
});
