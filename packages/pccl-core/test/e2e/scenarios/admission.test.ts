/**
 * The original's end-to-end scenarios, by their numbers in its list. Here: how peers are let in.
 * Method: peers in this process.
 */
import { describe, expect, it } from "vitest";
import { LocalWorld } from "../local-world.js";

describe("admission", () => {
  it("1 · a newcomer's connect waits until the peer that is there calls updateTopology", async () => {
    await using world = await LocalWorld.start(1);
    const [first] = world.peers;
    expect(await first?.hasPendingPeers()).toBe(false);
    const { admitted } = await world.register();
    let isAdmitted = false;
    void admitted.then(() => {
      isAdmitted = true;
    });
    expect(await first?.hasPendingPeers()).toBe(true);
    expect(isAdmitted).toBe(false);
    expect(first?.worldSize).toBe(1);
    expect(await first?.updateTopology()).toBe(true);
    const second = await admitted;
    expect([first?.worldSize, second.worldSize]).toEqual([2, 2]);
    expect(second.epoch).toBe(first?.epoch);
  });
});
