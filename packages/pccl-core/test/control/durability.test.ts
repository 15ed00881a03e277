/**
 * Coordinators that are killed and started again in the middle of everything, under real peers: with --state nobody
 * notices more than a delay, without it everybody is told. And control streams that are cut between living ends.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as tcpConnect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Communicator, connect, SharedState } from "@pccl/core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { killAll, lastingAddress, RunningCoordinator } from "../cli/running-coordinator.js";

let folder: string;
let address: string;
let coordinator: RunningCoordinator;
let peers: Communicator[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pccl-durability-"));
  address = await lastingAddress();
  peers = [];
});

afterEach(async () => {
  await Promise.all(peers.map((peer) => peer.close()));
  killAll();
  await rm(folder, { recursive: true, force: true });
});

async function start(...args: string[]): Promise<void> {
  coordinator = new RunningCoordinator("--listen", address, ...args);
  await coordinator.line(/listening on/);
}

const durable = (...args: string[]): Promise<void> => start("--state", folder, ...args);

/** The next kill comes when a peer or two have attached, and no sooner, for otherwise nothing could happen. */
async function killAndRestart(): Promise<void> {
  const attached = (): number => coordinator.lines.filter((line) => line.includes("attached again")).length;
  await coordinator.kill();
  await durable();
  const enough = Math.random() < 0.5 ? 1 : 2;
  while (attached() < enough) await delay(5);
  await delay(Math.random() * 50);
}

/** `count` peers in the order of their ids, all admitted. */
async function world(count: number, at = address): Promise<void> {
  const joins: Promise<Communicator>[] = [];
  for (let i = 0; i < count; i++) {
    await new Promise<void>((onPending, reject) => {
      const join = connect(at, { onPending: () => onPending() });
      join.catch(reject);
      joins.push(join);
    });
  }
  peers = await Promise.all(joins);
}

/** The same call on all peers; the value, which must be the same everywhere. */
async function all<T>(call: (peer: Communicator, index: number) => Promise<T>): Promise<T> {
  const values = await Promise.all(peers.map(call));
  for (const value of values) expect(value).toEqual(values[0]);
  return values[0] as T;
}

const DISTURBANCES = 3;

/** Makes `rounds`, counted from 1, while `disturb` comes several times. Returns the last round. */
async function during(
  disturb: () => Promise<void>,
  makeRound: (round: number) => Promise<void>,
): Promise<number> {
  const over = new AbortController();
  const disturbing = (async () => {
    for (let i = 0; i < DISTURBANCES && !over.signal.aborted; i++) await disturb();
    over.abort();
  })();
  let round = 0;
  try {
    while (!over.signal.aborted) await makeRound(++round);
  } finally {
    over.abort();
    await disturbing;
  }
  return round;
}

/** Votes until somebody is let in: a newcomer without a stream isn't, at that moment. */
async function letIn(): Promise<void> {
  for (;;) {
    const pending = await all((peer) => peer.hasPendingPeers());
    if (pending && (await all((peer) => peer.updateTopology()))) return;
  }
}

async function reduce(peer: Communicator, round: number, tag = 0n): Promise<number[]> {
  const data = Float32Array.from([peer.peerId, round, 1]);
  await peer.allReduce(data, undefined, { tag });
  return [...data];
}

/** One sync of three states, of which the last one differs; checks the result. */
async function sync(states: readonly SharedState[], revision: number): Promise<void> {
  for (const state of states) state.revision = revision;
  const [last] = states.slice(-1).map((state) => state.tensors.get("w") as Float32Array);
  last?.fill(revision, 7, 8);
  const results = await Promise.all(
    peers.map((peer, index) => peer.syncSharedState(states[index] as SharedState)),
  );
  expect(results.map((result) => result.revision)).toEqual(states.map(() => revision));
  const [first, ...others] = states.map((state) => state.tensors.get("w"));
  for (const other of others) expect(other).toEqual(first);
}

function newStates(): SharedState[] {
  return peers.map(() => new SharedState({ w: new Float32Array(1_000).fill(1) }, { revision: 0 }));
}

describe("a coordinator with --state that is killed again and again", () => {
  it("costs no op: small ones go on without it", async () => {
    await durable("--min-peers", "4");
    await world(4);
    const { epoch } = peers[0] as Communicator;
    let last = await during(killAndRestart, async (round) => {
      expect(await all((peer) => reduce(peer, round))).toEqual([1 + 2 + 3 + 4, 4 * round, 4]);
    });
    for (; last < 1_000; last++) await all((peer) => reduce(peer, last));
    expect(await all((peer) => peer.hasPendingPeers())).toBe(false);
    expect(peers.map((peer) => [peer.peerId, peer.epoch, peer.worldSize])).toEqual(
      [1, 2, 3, 4].map((id) => [id, epoch, 4]),
    );
  });

  it("costs no vote", async () => {
    await durable("--min-peers", "3");
    await world(3);
    await during(killAndRestart, async () => {
      expect(await all((peer) => peer.hasPendingPeers())).toBe(false);
      expect(await all((peer) => peer.updateTopology())).toBe(false);
    });
    expect(peers.map((peer) => [peer.peerId, peer.worldSize])).toEqual([1, 2, 3].map((id) => [id, 3]));
  });

  it("costs no revision", async () => {
    await durable("--min-peers", "3");
    await world(3);
    const states = newStates();
    const last = await during(killAndRestart, (round) => sync(states, round));
    await killAndRestart();
    const [line] = await coordinator.line(/restored .*/);
    expect(line).toContain(`restored 3 peers in 1 groups, epoch 1, revisions group 0 at ${last};`);
  });

  it("costs no change of the world: peers come and go meanwhile", async () => {
    await durable("--min-peers", "2");
    await world(2);
    await during(killAndRestart, async (round) => {
      const joining = connect(address);
      joining.catch(() => {});
      await letIn();
      peers.push(await joining);
      expect(peers.map((peer) => peer.worldSize)).toEqual([3, 3, 3]);
      const ids = peers.reduce((sum, peer) => sum + peer.peerId, 0);
      expect(await all((peer) => reduce(peer, round))).toEqual([ids, 3 * round, 3]);
      // Another one each time, so that all of them have gone in the end.
      const [leaving] = peers.splice(round % 3, 1);
      await leaving?.close();
      while (peers.some((peer) => peer.worldSize !== 2)) await delay(5);
    });
  });
});

describe("a coordinator with --state", () => {
  it("lets its peers wait when a signal ends it, and goes on where it was", async () => {
    await durable("--min-peers", "2");
    await world(2);
    coordinator.child.kill("SIGTERM");
    expect(await coordinator.exit()).toEqual({ code: 0, signal: null });
    expect(coordinator.lines.join("\n")).toContain("2 peers wait for the next coordinator");
    expect(await all((peer) => reduce(peer, 1))).toEqual([3, 2, 2]);
    const answers = all((peer) => peer.hasPendingPeers());
    await durable();
    expect(await answers).toBe(false);
    expect((await coordinator.line(/restored .*/))[0]).toMatch(/2 peers in 1 groups, epoch 1, .* none; /);
    await coordinator.line(/peer 1 attached again/);
    await coordinator.line(/peer 2 attached again/);
  });

  it("finds out who has ended while it was gone", async () => {
    await durable("--min-peers", "3");
    await world(3);
    await coordinator.line(/peer 3's data port .* answers/);
    await coordinator.kill();
    await peers.pop()?.close();
    await durable();
    await coordinator.line(/peer 3 was removed: .*its process has ended/);
    while (peers.some((peer) => peer.worldSize !== 2)) await delay(5);
    expect(await all((peer) => reduce(peer, 1))).toEqual([3, 2, 2]);
  });

  it("refuses a second coordinator, another lease, and a damaged journal, each with its reason", async () => {
    await durable();
    await world(1);
    const second = new RunningCoordinator("--state", folder);
    expect((await second.exit()).code).toBe(1);
    expect(second.stderr).toContain(`Another coordinator uses the directory ${folder}`);
    await coordinator.kill();
    const other = new RunningCoordinator("--state", folder, "--lease-ms", "700");
    expect((await other.exit()).code).toBe(2);
    expect(other.stderr).toContain("told a lease of 5000 ms");
  });
});

describe("a coordinator that doesn't come back", () => {
  it("ends its peers after their coordinatorTimeoutMs, while ops go on until then", async () => {
    await durable("--min-peers", "2");
    peers = await Promise.all([0, 1].map(() => connect(address, { coordinatorTimeoutMs: 1_500 })));
    peers.sort((a, b) => a.rank - b.rank);
    const removed = peers.map((peer) => new Promise((resolve) => peer.once("removed", resolve)));
    await coordinator.kill();
    expect(await all((peer) => reduce(peer, 1))).toEqual([3, 2, 2]);
    for (const peer of peers) {
      await expect(peer.hasPendingPeers()).rejects.toMatchObject({
        code: "ERR_PCCL_COORDINATOR_LOST",
        message: expect.stringContaining("could not be reached again"),
      });
    }
    await Promise.all(removed);
  });

  it("keeps no program from ending", async () => {
    await durable();
    const program = `
      import { connect } from "@pccl/core";
      const peer = await connect(${JSON.stringify(address)});
      process.kill(${coordinator.child.pid}, "SIGKILL");
      await new Promise((resolve) => setTimeout(resolve, 300));
      await peer.allReduce(new Float32Array(1));`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "inherit" });
    expect(await once(child, "exit")).toEqual([0, null]);
  });
});

describe("a coordinator without --state", () => {
  it("tells each peer when it has been restarted", async () => {
    await start("--min-peers", "2");
    await world(2);
    await coordinator.kill();
    await start();
    for (const peer of peers) {
      await expect(peer.hasPendingPeers()).rejects.toMatchObject({
        code: "ERR_PCCL_COORDINATOR_LOST",
        message: expect.stringContaining("restarted without the state of its last run"),
      });
    }
  });
});

/** A TCP relay that a test can cut. */
class Cutter {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  cuts = 0;

  constructor(target: string) {
    const [host, port] = target.split(":");
    this.#server = createServer((near) => {
      const far = tcpConnect(Number(port), host);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
        from.on("error", () => {});
        from.pipe(to);
      }
    });
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Resets all connections, at both ends. */
  cut(): void {
    for (const socket of this.#sockets) {
      socket.resetAndDestroy();
      this.cuts++;
    }
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}

describe("a control stream that is reset between living ends", () => {
  it("is made again, and nothing is noticed", async () => {
    await start("--min-peers", "3");
    const cutter = new Cutter(address);
    const through = await cutter.listen();
    await world(3, through);
    const states = newStates();
    try {
      const cut = async (): Promise<void> => {
        await delay(Math.random() * 200);
        cutter.cut();
      };
      await during(cut, async (round) => {
        expect(await all((peer) => peer.hasPendingPeers())).toBe(false);
        expect(await all((peer) => peer.updateTopology())).toBe(false);
        expect(await all((peer) => reduce(peer, round))).toEqual([6, 3 * round, 3]);
        await sync(states, round);
      });
      expect(cutter.cuts).toBeGreaterThan(0);
      expect(peers.map((peer) => [peer.peerId, peer.worldSize])).toEqual([
        [1, 3],
        [2, 3],
        [3, 3],
      ]);
      expect(coordinator.lines.join("\n")).not.toContain("removed");
    } finally {
      await Promise.all(peers.splice(0).map((peer) => peer.close()));
      cutter.close();
    }
  });
});
