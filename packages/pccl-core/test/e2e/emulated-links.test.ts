/**
 * Goal: over links that differ, optimizeTopology adopts the ring that goes over the fast ones. Method: hosts in network
 * namespaces, with links that the emulator wanem makes; a coordinator and peers of their own in them.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Topology } from "@pccl/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PeerProcess } from "./cluster.js";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const SOURCES = join(ROOT, "../shared/tools/wanem");
const WANEM = join(ROOT, "build/wanem");
const PCCL = join(ROOT, "packages/pccl-core/bin/pccl.js");

function reasonToSkip(): string | undefined {
  if (process.getuid?.() !== 0) return "network namespaces need root";
  if (!existsSync(SOURCES)) return "the emulator's sources aren't here";
  return existsSync("/dev/net/tun") ? undefined : "this system has no TUN devices";
}

const WHY_SKIPPED = reasonToSkip();

/** Rates in Mbit/s by [from][to]: the ring 0, 2, 1, 3 goes over the fast ones, and its reverse over none. */
const RATES = [
  [0, 8, 80, 8],
  [8, 0, 8, 80],
  [8, 80, 0, 8],
  [80, 8, 8, 0],
];

describe.skipIf(WHY_SKIPPED !== undefined)(`emulated links (${WHY_SKIPPED ?? "wanem"})`, () => {
  const name = `pccl-topology-${process.pid}`;
  const wanem = (...args: string[]): void => {
    execFileSync(WANEM, ["--name", name, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  };
  const peers: PeerProcess[] = [];
  let coordinator: ChildProcess | undefined;

  beforeAll(() => {
    const source = join(SOURCES, "wanem.cpp");
    if (!existsSync(WANEM) || statSync(WANEM).mtimeMs < statSync(source).mtimeMs) {
      mkdirSync(join(ROOT, "build"), { recursive: true });
      execFileSync(join(SOURCES, "build.sh"), [WANEM]);
    }
    const folder = mkdtempSync(join(tmpdir(), "pccl-links-"));
    try {
      const rate = RATES.map((row) => row.map((mbit) => (mbit === 0 ? null : `${mbit}mbit`)));
      writeFileSync(join(folder, "links.json"), JSON.stringify({ hosts: 4, default: { rtt: "10ms" }, rate }));
      wanem("up", "--matrix", join(folder, "links.json"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 120_000);

  afterAll(async () => {
    await Promise.all(peers.map((peer) => peer.kill()));
    coordinator?.kill("SIGKILL");
    wanem("down");
  });

  it("gives the group the ring that goes over the fast links", async () => {
    const program = spawn(
      "ip",
      ["netns", "exec", `${name}-0`, process.execPath, PCCL, "coordinator"].concat(
        ["--listen", "10.77.0.1:0", "--min-peers", "4"],
      ),
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    coordinator = program;
    const [line] = (await once(createInterface({ input: program.stdout }), "line")) as [string];
    const address = /10\.77\.0\.1:\d+/.exec(line)?.[0];
    const admitted: Promise<unknown>[] = [];
    for (let host = 0; host < 4; host++) {
      const peer = new PeerProcess(`${name}-${host}`);
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
      for (const { from, to, bytesPerSecond, rttSeconds } of topology.paths) {
        // Far from the other kind of link, whatever this machine's load makes of the rest.
        const mbit = (bytesPerSecond * 8) / 1e6;
        const isFast = RATES[from - 1]?.[to - 1] === 80;
        expect(mbit > 25, `${from} to ${to}: ${mbit} Mbit/s`).toBe(isFast);
        expect(rttSeconds).toBeGreaterThan(0.009);
      }
    }
    expect((await all<{ rank: number }>("view")).map(({ rank }) => rank)).toEqual([0, 2, 1, 3]);
    const reduced = await all<{ digest: string }>("reduce", { count: 200_000 });
    expect(new Set(reduced.map(({ digest }) => digest)).size).toBe(1);
  }, 120_000);
});
