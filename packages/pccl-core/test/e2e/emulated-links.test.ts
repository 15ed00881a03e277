/**
 * Goal: over links that differ, optimizeTopology adopts the ring that goes over the fast ones. Method: hosts that wanem
 * emulates, with a coordinator and peers of their own in them. Needs root and wanem's source beside the repository.
 */
import { type ChildProcess, execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Topology } from "@pccl/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EmulatedNetwork } from "../../src/bench/wan/wanem.js";
import { kill, start } from "../../src/process/child.js";
import { PeerProcess } from "./cluster.js";

const BUILD = fileURLToPath(new URL("../../../../../shared/tools/wanem/build.sh", import.meta.url));
const COORDINATOR = fileURLToPath(new URL("../../dist/bench/wan/coordinator.js", import.meta.url));

function reasonToSkip(): string {
  if (!existsSync(BUILD)) return "wanem's source isn't beside the repository";
  return process.getuid?.() === 0 ? "" : "network namespaces need root";
}

const SKIP = reasonToSkip();

/** Mbit/s by [from][to]: the ring 0, 2, 1, 3 goes over the fast ones, and its reverse over none. */
const RATES = [
  [0, 8, 80, 8],
  [8, 0, 8, 80],
  [8, 80, 0, 8],
  [80, 8, 8, 0],
];

describe.skipIf(SKIP !== "")(`a ring over links that differ ${SKIP && `(skipped: ${SKIP})`}`, () => {
  const peers: PeerProcess[] = [];
  let folder = "";
  let network: EmulatedNetwork | undefined;
  let coordinator: ChildProcess | undefined;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "pccl-wanem-"));
    execFileSync(BUILD, [join(folder, "wanem")], { stdio: "ignore" });
    const rate = RATES.map((row) => row.map((mbit) => (mbit === 0 ? null : `${mbit}mbit`)));
    network = await EmulatedNetwork.create(join(folder, "wanem"), {
      hosts: RATES.length,
      default: { rtt: "10ms" },
      rate,
    });
  }, 120_000);

  afterAll(async () => {
    await Promise.all(peers.map((peer) => peer.kill()));
    if (coordinator !== undefined) await kill(coordinator);
    await network?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("is found by optimizeTopology, and adopted", async () => {
    const hosts = network as EmulatedNetwork;
    const program = start(COORDINATOR, [`${hosts.addressOf(0)}:0`, String(RATES.length)], {
      namespace: hosts.namespaceOf(0),
    });
    coordinator = program;
    const [address] = (await once(program, "message")) as [string];
    const admitted: Promise<unknown>[] = [];
    // One after the other, so that the peer of host h has the id h + 1.
    for (let host = 0; host < RATES.length; host++) {
      const peer = new PeerProcess(hosts.namespaceOf(host));
      peers.push(peer);
      admitted.push(peer.call("connect", { address, options: {} }));
      await Promise.race([peer.pending, admitted.at(-1)]);
    }
    await Promise.all(admitted);
    const all = async <T>(command: string, args: Record<string, unknown> = {}): Promise<T[]> =>
      await Promise.all(peers.map((peer) => peer.call<T>(command, args)));

    expect(await all("optimizeTopology")).toEqual([true, true, true, true]);
    for (const topology of await all<Topology>("topology", { bytes: 4 * 2 ** 20 })) {
      expect(topology.rings).toEqual([[1, 3, 2, 4]]);
      expect(topology.boundSeconds).toBe(topology.predictedSeconds);
      expect(topology.paths).toHaveLength(12);
      for (const { rttSeconds } of topology.paths) expect(rttSeconds).toBeGreaterThan(0.009);
    }
    expect((await all<{ rank: number }>("view")).map(({ rank }) => rank)).toEqual([0, 2, 1, 3]);
    const reduced = await all<{ digest: string }>("reduce", { count: 200_000 });
    expect(new Set(reduced.map(({ digest }) => digest)).size).toBe(1);
  }, 120_000);
});
