/** Goal: shards are averaged in their groups, and a grid with a hole is seen. Method: a world of two replicas. */
import { connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { Diloco, isGridComplete, ParameterArena } from "@pccl/core/diloco";
import { expect, it } from "vitest";
import { innerAndOuter } from "./fixtures/world.js";

it("averages each shard in its own group, and tells when a replica has lost a process", async () => {
  const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 4 });
  const places = [0, 1, 2, 3].map((i) => ({ shard: i % 2, replica: i >> 1 }));
  const peers = await Promise.all(
    places.map(async ({ shard }) => await connect(coordinator.address, { group: shard })),
  );
  try {
    const arenas = peers.map(() => new ParameterArena({ w: [3] }));
    const all = peers.map(
      (communicator, i) =>
        new Diloco({
          communicator,
          parameters: arenas[i] as ParameterArena,
          innerSteps: 1,
          outer: { kind: "sgd" },
        }),
    );
    for (const peer of peers) expect(isGridComplete(peer, 2)).toBe(true);
    expect(isGridComplete(peers[0] as (typeof peers)[number], 3)).toBe(false);
    // What the replicas have learnt: 1 and 3 in shard 0, 11 and 13 in shard 1.
    await innerAndOuter(all, (i) => {
      const { shard = 0, replica = 0 } = places[i] ?? {};
      arenas[i]?.data.fill(10 * shard + 1 + 2 * replica);
    });
    expect(arenas.map(({ data }) => [...data])).toEqual([2, 12, 2, 12].map((mean) => [mean, mean, mean]));

    const lost = new Promise<void>((resolve) => {
      peers[0]?.on("peerLost", () => resolve());
    });
    await peers[3]?.close();
    await lost;
    expect(isGridComplete(peers[0] as (typeof peers)[number], 2)).toBe(false);
  } finally {
    for (const peer of peers) await peer.close();
    await coordinator.close();
  }
});
