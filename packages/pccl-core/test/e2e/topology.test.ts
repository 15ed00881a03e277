/**
 * Goal: optimizeTopology measures the paths between living peers, ends whatever happens meanwhile, and leaves a world
 * that works. Method: real processes over TCP, as if each were on a host of its own, and real kills.
 */
import { describe, expect, it } from "vitest";
import type { Topology } from "@pccl/core";
import { Cluster, type PeerProcess } from "./cluster.js";

const OVER_TCP = { connect: { transport: "tcp" } };

interface Reduced {
  readonly digest: string;
}

async function expectReduces(cluster: Cluster, peers: PeerProcess[] = cluster.peers): Promise<void> {
  const results = await cluster.all<Reduced>("reduce", { count: 300_000 }, peers);
  expect(new Set(results.map(({ digest }) => digest)).size).toBe(1);
}

const sorted = (numbers: readonly number[] = []): number[] => [...numbers].sort((a, b) => a - b);

describe("optimizeTopology", () => {
  it("measures every path once, tells them, and leaves ops and newcomers alone", async () => {
    await using cluster = await Cluster.start(3, OVER_TCP);
    const members = [...cluster.peers];
    const [first] = members as [PeerProcess];
    const before = await first.call<Topology>("topology");
    expect(before).toMatchObject({ rings: [[1, 2, 3]], paths: [] });
    expect(before.predictedSeconds).toBeUndefined();
    await expectReduces(cluster);

    const { admitted } = await cluster.newcomer({ transport: "tcp" });
    const changed = await cluster.all<boolean>("optimizeTopology", {}, members);
    expect(new Set(changed).size).toBe(1);
    const [topology, others] = await cluster.all<Topology>("topology", {}, members);
    expect(sorted(topology?.rings[0])).toEqual([1, 2, 3]);
    expect(topology?.rings[0]?.[0]).toBe(1);
    expect(others?.rings).toEqual(topology?.rings);
    expect(topology?.paths.map(({ from, to }) => `${from}>${to}`).sort()).toEqual(
      [1, 2, 3].flatMap((a) => [1, 2, 3].flatMap((b) => (a === b ? [] : [`${a}>${b}`]))),
    );
    for (const { bytesPerSecond, rttSeconds, ageSeconds } of topology?.paths ?? []) {
      expect(bytesPerSecond).toBeGreaterThan(1e6);
      expect(rttSeconds).toBeGreaterThan(0);
      expect(ageSeconds).toBeGreaterThanOrEqual(0);
    }
    expect(topology?.predictedSeconds).toBeGreaterThan(0);
    expect(topology?.boundSeconds).toBeLessThanOrEqual(topology?.predictedSeconds as number);
    const half = await first.call<Topology>("topology", { bytes: 32 * 2 ** 20 });
    expect(half.predictedSeconds).toBeLessThan(topology?.predictedSeconds as number);
    await expectReduces(cluster, members);

    // What is known isn't measured again, unless it is too old.
    await cluster.all("optimizeTopology", {}, members);
    const again = await first.call<Topology>("topology");
    const speeds = (of: Topology | undefined): number[] =>
      sorted(of?.paths.map(({ bytesPerSecond }) => bytesPerSecond));
    expect(speeds(again)).toEqual(speeds(topology));
    await cluster.all("optimizeTopology", { maxAgeMs: 0 }, members);
    const anew = await first.call<Topology>("topology");
    expect(anew.paths).toHaveLength(6);
    expect(speeds(anew)).not.toEqual(speeds(again));

    expect(await cluster.all("updateTopology", {}, members)).toEqual([true, true, true]);
    await admitted;
    await expectReduces(cluster);
  });

  it("goes on without a peer that dies while paths are measured", async () => {
    await using cluster = await Cluster.start(4, OVER_TCP);
    const [victim, ...others] = cluster.peers as [PeerProcess, ...PeerProcess[]];
    const measured = cluster.logged("measured");
    const votes = cluster.all<boolean>("optimizeTopology", {}, others);
    const own = victim.call("optimizeTopology").catch(() => undefined);
    await measured;
    await victim.kill();
    await own;
    expect(new Set(await votes).size).toBe(1);
    const topologies = await cluster.all<Topology>("topology", {}, others);
    expect(sorted(topologies[0]?.rings[0])).toEqual([2, 3, 4]);
    expect(topologies[0]?.paths).toHaveLength(6);
    await expectReduces(cluster, others);
  });

  it("can be withdrawn while paths are measured, and called again", async () => {
    await using cluster = await Cluster.start(3, OVER_TCP);
    const [hasty, ...others] = cluster.peers as [PeerProcess, ...PeerProcess[]];
    const patient = cluster.all<boolean>("optimizeTopology", {}, others);
    await expect(hasty.call("optimizeTopology", { timeoutMs: 1 })).rejects.toMatchObject({
      details: { code: "ERR_PCCL_TIMEOUT" },
    });
    const last = await hasty.call<boolean>("optimizeTopology");
    expect(await patient).toEqual([last, last]);
    await expectReduces(cluster);
  });

  it("has nothing to measure where all peers share one host", async () => {
    await using cluster = await Cluster.start(3);
    expect(await cluster.all("optimizeTopology")).toEqual([false, false, false]);
    const topology = await cluster.peers[0]?.call<Topology>("topology");
    expect(topology).toMatchObject({ paths: [], predictedSeconds: 0 });
  });
});
