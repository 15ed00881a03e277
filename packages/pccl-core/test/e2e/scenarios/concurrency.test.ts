/**
 * The original's end-to-end scenarios, by their numbers in its list. Here: what may run at the same time.
 * Method: peers in this process; the op that is in flight waits for a peer that hasn't called it.
 */
import { describe, expect, it } from "vitest";
import { LocalWorld, stateOf } from "../local-world.js";

describe("concurrency", () => {
  it("41, 42 · updateTopology and syncSharedState are refused while an op is in flight", async () => {
    await using world = await LocalWorld.start(2);
    const [a, b] = world.peers;
    const tensor = new Float32Array(256).fill(1);
    const op = a?.allReduce(tensor);
    await expect(a?.updateTopology()).rejects.toMatchObject({ code: "ERR_PCCL_OPS_IN_FLIGHT" });
    await expect(a?.syncSharedState(stateOf({ key: 1 }))).rejects.toMatchObject({
      code: "ERR_PCCL_OPS_IN_FLIGHT",
    });
    await b?.allReduce(new Float32Array(256).fill(2));
    await op;
    expect(tensor.every((element) => element === 3)).toBe(true);
    // Neither refusal has left anything behind.
    expect(await Promise.all(world.peers.map((peer) => peer.updateTopology()))).toEqual([false, false]);
    const syncs = world.peers.map((peer) => peer.syncSharedState(stateOf({ key: 1 })));
    expect((await Promise.all(syncs)).map(({ revision }) => revision)).toEqual([0, 0]);
  });

  it("43 · two ops of different kinds at once are both right on both peers", async () => {
    await using world = await LocalWorld.start(2);
    const results = await Promise.all(
      world.peers.map(async (peer, index) => {
        const sum = Int32Array.from({ length: 256 }, (_, i) => i + index);
        const max = Int32Array.from({ length: 256 }, (_, i) => (i % 2 === index ? i : -i));
        const ops = [
          () => peer.allReduce(sum, undefined, { op: "sum", tag: 1 }),
          () => peer.allReduce(max, undefined, { op: "max", tag: 2 }),
        ];
        // In another order on each peer.
        await Promise.all((index === 0 ? ops : ops.reverse()).map((start) => start()));
        return { sum, max };
      }),
    );
    for (const { sum, max } of results) {
      expect(sum).toEqual(Int32Array.from({ length: 256 }, (_, i) => 2 * i + 1));
      expect(max).toEqual(Int32Array.from({ length: 256 }, (_, i) => i));
    }
  });

  it("44 · a second op with a tag in flight is refused, and the first goes on", async () => {
    await using world = await LocalWorld.start(2);
    const [a, b] = world.peers;
    const first = new Float32Array(256).fill(1);
    const op = a?.allReduce(first, undefined, { tag: 7 });
    await expect(a?.allReduce(new Float32Array(256), undefined, { tag: 7 })).rejects.toMatchObject({
      code: "ERR_PCCL_TAG_IN_USE",
    });
    await b?.allReduce(new Float32Array(256).fill(2), undefined, { tag: 7 });
    await op;
    expect(first.every((element) => element === 3)).toBe(true);
  });
});
