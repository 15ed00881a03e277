/**
 * Goal: a state comes from all holders at once, and a holder that dies in the middle costs no more than what it owed.
 * Method: hosts that wanem emulates, each with a slow uplink, so that there is a middle. Needs root and wanem's source
 * beside the repository.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EmulatedNetwork } from "../../src/bench/wan/wanem.js";
import { kill, start } from "../../src/process/child.js";
import { PeerProcess } from "./cluster.js";

const BUILD = fileURLToPath(new URL("../../../../../shared/tools/wanem/build.sh", import.meta.url));
const COORDINATOR = fileURLToPath(new URL("../../dist/bench/wan/coordinator.js", import.meta.url));
const SKIP = !existsSync(BUILD)
  ? "wanem's source isn't beside the repository"
  : process.getuid?.() !== 0
    ? "network namespaces need root"
    : "";
const COUNT = 1_000_000;
const LEAF_BYTES = 65_536;

interface Synced {
  readonly digest: string;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly sources: number[];
  readonly changedKeys: string[];
}

describe.skipIf(SKIP !== "")(
  `shared state between hosts with slow uplinks ${SKIP && `(skipped: ${SKIP})`}`,
  () => {
    let folder = "";
    let wanem = "";
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), "pccl-wanem-"));
      wanem = join(folder, "wanem");
      execFileSync(BUILD, [wanem], { stdio: "ignore" });
    }, 120_000);
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    /** Three holders and one that fetches, each on a host of its own. */
    async function world(body: (peers: readonly PeerProcess[]) => Promise<void>): Promise<void> {
      const matrix = { hosts: 4, uplink: "20mbit", default: { rate: "1gbit", rtt: "10ms" } };
      const network = await EmulatedNetwork.create(wanem, matrix);
      const coordinator = start(COORDINATOR, [`${network.addressOf(0)}:0`, "4"], {
        namespace: network.namespaceOf(0),
      });
      const peers: PeerProcess[] = [];
      try {
        const [address] = (await once(coordinator, "message")) as [string];
        const joins = Array.from({ length: 4 }, async (_, i) => {
          const peer = new PeerProcess(network.namespaceOf(i));
          peers.push(peer);
          return await peer.call("connect", { address, options: {} });
        });
        await Promise.all(joins);
        await Promise.all(
          peers.map((peer, i) =>
            peer.call("state", { name: "s", salt: i === 3 ? 2 : 1, count: COUNT, revision: i === 3 ? 0 : 1 }),
          ),
        );
        await body(peers);
      } finally {
        await Promise.all(peers.map((peer) => peer.kill()));
        await kill(coordinator);
        await network.close();
      }
    }

    it("comes from all holders", async () => {
      await world(async (peers) => {
        const results = await Promise.all(peers.map((peer) => peer.call<Synced>("sync", { name: "s" })));
        const [first, , , last] = results;
        expect(last).toMatchObject({ digest: first?.digest, changedKeys: ["weights", "steps"] });
        expect(last?.sources).toHaveLength(3);
        // An idle source may take over what a slower one still owes, and that comes twice.
        expect(last?.rxBytes).toBeLessThan(4 * COUNT * 1.5);
      });
    }, 60_000);

    it("goes on when a holder is killed, and nothing that was verified comes again", async () => {
      await world(async (peers) => {
        const [victim, second, , receiver] = peers as [PeerProcess, PeerProcess, PeerProcess, PeerProcess];
        const calls = peers.map(
          async (peer) => await peer.call<Synced>("sync", { name: "s" }).catch(() => undefined),
        );
        // All of it takes more than half a second.
        await delay(250);
        await victim.kill();
        const [, holder, , received] = await Promise.all(calls);
        expect(received).toMatchObject({ digest: holder?.digest, changedKeys: ["weights", "steps"] });
        // What was asked of the victim and on its way is lost: no more than its window.
        expect(received?.rxBytes).toBeLessThan(4 * COUNT + 32 * LEAF_BYTES);
        expect(await second.call("digest", { name: "s" })).toBe(await receiver.call("digest", { name: "s" }));
      });
    }, 60_000);
  },
);
