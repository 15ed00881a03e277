/**
 * Goal: over a long and narrow link peers find out that they need several connections, and a link that is cut for two
 * seconds in the middle of an op costs nobody anything but the time (I8). Method: real peers in hosts that the emulator
 * wanem makes; it lies outside the repository and needs root, so that the tests are skipped without.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { EmulatedNetwork } from "../../src/bench/wan/wanem.js";
import { kill, start } from "../../src/process/child.js";
import { PeerProcess } from "./cluster.js";

const BUILD = fileURLToPath(new URL("../../../../../shared/tools/wanem/build.sh", import.meta.url));
const COORDINATOR = new URL("../../dist/bench/wan/coordinator.js", import.meta.url);
const possible = existsSync(BUILD) && process.getuid?.() === 0 && existsSync("/dev/net/tun");

interface ReducedAll {
  readonly digests: readonly string[];
  readonly worldSizes: readonly number[];
  readonly retriedOps: number;
}

function connectionsIn(namespace: string): number {
  const lines = execFileSync("ip", ["netns", "exec", namespace, "ss", "-tnH", "state", "established"], {
    encoding: "utf8",
  });
  return lines.trim().split("\n").length;
}

describe.runIf(possible)("links over emulated distances (root, ../shared/tools/wanem)", () => {
  let folder: string;
  let wanem: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "pccl-wanem-"));
    wanem = join(folder, "wanem");
    execFileSync(BUILD, [wanem], { stdio: "ignore" });
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true }));

  it("a cut of two seconds delays an op, and nothing else", { timeout: 120_000 }, async () => {
    const network = await EmulatedNetwork.create(wanem, {
      hosts: 2,
      default: { rate: "100mbit", rtt: "60ms" },
    });
    const coordinator = start(COORDINATOR, [`${network.addressOf(0)}:0`, "2"], {
      namespace: network.namespaceOf(0),
    });
    const peers = [0, 1].map((host) => new PeerProcess(network.namespaceOf(host)));
    try {
      const [address] = (await once(coordinator, "message")) as [string];
      await Promise.all(peers.map((peer) => peer.call("connect", { address, options: {} })));
      // One for the coordinator's stream of each peer in this host, and more than one for the link.
      await vi.waitUntil(() => connectionsIn(network.namespaceOf(1)) >= 3, 30_000);
      const before = await Promise.all(peers.map((peer) => peer.call("view")));
      const running = Promise.all(
        peers.map((peer) => peer.call<ReducedAll>("reduceAll", { ops: 6, count: 1_000_000, maxInFlight: 2 })),
      );
      await delay(500);
      await network.cut(0, 1);
      await delay(2_000);
      await network.heal(0, 1);
      const results = await running;
      for (const result of results) {
        expect(result).toMatchObject({ digests: results[0]?.digests, retriedOps: 0 });
        expect(result.worldSizes).toEqual(new Array(6).fill(2));
      }
      expect(await Promise.all(peers.map((peer) => peer.call("view")))).toEqual(before);
    } finally {
      await Promise.all(peers.map((peer) => peer.kill()));
      await kill(coordinator);
      await network.close();
    }
  });
});
