/**
 * Goal: a link that breaks between two living peers costs nobody anything (I8). Method: real processes; the kernel
 * resets their connections through its socket diagnosis, which `ss -K` asks for and root may.
 */
import { execFileSync } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { Cluster, type PeerProcess } from "./cluster.js";

interface ReducedAll {
  readonly digests: readonly string[];
  readonly worldSizes: readonly number[];
  readonly retriedOps: number;
}

interface ViewOfPeer {
  readonly epoch: number;
}

function ss(...args: string[]): string {
  return execFileSync("ss", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

/** "LOCAL REMOTE" of each TCP connection of a process. */
function connectionsOf({ process: { pid } }: PeerProcess): string[] {
  return ss("-t", "-n", "-p", "-H", "state", "established")
    .split("\n")
    .filter((line) => line.includes(`pid=${pid},`))
    .map((line) => /(\S+:\d+)\s+(\S+:\d+)/.exec(line)?.slice(1, 3).join(" ") ?? "");
}

function reversed(connection: string): string {
  return connection.split(" ").reverse().join(" ");
}

/** Those of `a` whose other end is `b`. */
function connectionsBetween(a: PeerProcess, b: PeerProcess): string[] {
  const theirs = new Set(connectionsOf(b).map(reversed));
  return connectionsOf(a).filter((connection) => theirs.has(connection));
}

function reset(connections: readonly string[]): void {
  for (const connection of connections) {
    const [local = "", remote = ""] = connection.split(" ");
    ss("-K", "-t", "-n", "-H", "src", local, "dst", remote);
  }
}

/** Whether this kernel and user may reset connections: asked for one that isn't there. */
function canReset(): boolean {
  try {
    ss("-K", "-t", "-n", "-H", "dst", "192.0.2.1");
    return process.getuid?.() === 0;
  } catch {
    return false;
  }
}

describe.runIf(canReset())("a link whose connections are reset", () => {
  it.each([1, 4])("resumes its ops in the same view, with %i connection(s)", async (connectionsPerPeer) => {
    await using cluster = await Cluster.start(3, { connect: { connectionsPerPeer, transport: "tcp" } });
    const [a, b] = cluster.peers as [PeerProcess, PeerProcess, PeerProcess];
    const before = await cluster.all<ViewOfPeer>("view");
    for (const inPlace of [false, true]) {
      const running = cluster.all<ReducedAll>("reduceAll", {
        ops: 8,
        count: 1_000_000,
        maxInFlight: 4,
        inPlace,
      });
      let resets = 0;
      for (let i = 0; i < 4; i++) {
        await delay(40);
        const connections = connectionsBetween(a, b);
        resets += connections.length;
        reset(connections);
      }
      expect(resets).toBeGreaterThan(0);
      const results = await running;
      for (const result of results) {
        expect(result).toMatchObject({ digests: results[0]?.digests, retriedOps: 0 });
        expect(result.worldSizes).toEqual(new Array(8).fill(3));
      }
      // They come back, and one at rest is no different.
      await vi.waitUntil(() => connectionsBetween(a, b).length === connectionsPerPeer, 10_000);
      reset(connectionsBetween(a, b));
      await cluster.all("reduce");
    }
    expect(await cluster.all<ViewOfPeer>("view")).toEqual(before);
  });
});
