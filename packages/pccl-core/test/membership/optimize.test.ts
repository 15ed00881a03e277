/**
 * Goal: what is unknown is measured, once and without two measurements in one peer's way, the best ring is adopted, and
 * nothing that happens meanwhile keeps the callers waiting. Method: the coordinator's machine, whose peers say that
 * they have measured what a table says.
 */
import { describe, expect, it } from "vitest";
import type { CoordinatorMessage } from "../../dist/membership/messages.js";
import { World } from "./world.js";

type Measure = CoordinatorMessage & { kind: "measure" };

interface Asked extends Measure {
  readonly by: number;
}

/** The best ring of four is 1, 3, 2, 4: what it goes over carries ten times as much as the rest. */
const FAST = new Set(["1>3", "3>2", "2>4", "4>1"]);
const speed = (from: number, to: number): number => (FAST.has(`${from}>${to}`) ? 10e6 : 1e6);

const senderOf = ({ by, target, direction }: Asked): number => (direction === "send" ? by : target.peerId);
const receiverOf = ({ by, target, direction }: Asked): number => (direction === "send" ? target.peerId : by);

class Measured {
  readonly world: World;
  /** Who is asked to measure and hasn't answered. */
  open: Asked[] = [];
  readonly others = new Map<number, CoordinatorMessage[]>();

  constructor(world: World) {
    this.world = world;
  }

  vote(peerIds: readonly number[], maxAgeMs = 60_000, requestId = 1): void {
    for (const id of peerIds) this.world.say(id, { kind: "optimize-vote", requestId, maxAgeMs });
    this.read();
  }

  /** Reads what the peers were sent. */
  read(): void {
    for (const id of this.world.state.peers.keys()) {
      for (const message of this.world.take(id)) {
        if (message.kind === "measure") this.open.push({ ...message, by: id });
        else this.others.set(id, [...(this.others.get(id) ?? []), message]);
      }
    }
    for (const ends of [this.open.map(senderOf), this.open.map(receiverOf)]) {
      expect(new Set(ends).size, "nobody sends, or receives, for two").toBe(ends.length);
    }
  }

  answer(asked: Asked, reason?: string): void {
    const { by, measurementId } = asked;
    this.open = this.open.filter((other) => other.measurementId !== measurementId);
    const result =
      reason === undefined
        ? { bytesPerSecond: speed(senderOf(asked), receiverOf(asked)), rttMs: 20 }
        : { reason };
    this.world.say(by, { kind: "measured", measurementId, result });
    this.read();
  }

  /** Answers until nothing is asked any more; gives the paths. */
  answerAll(): string[] {
    const paths: string[] = [];
    for (let next = this.open[0]; next !== undefined; next = this.open[0]) {
      paths.push(`${senderOf(next)}>${receiverOf(next)}`);
      this.answer(next);
    }
    return paths.sort();
  }

  kinds(peerId: number): string[] {
    const kinds = (this.others.get(peerId) ?? []).map(({ kind }) => kind);
    this.others.delete(peerId);
    return kinds;
  }
}

const ALL = [1, 2, 3, 4];
const PATHS = ALL.flatMap((a) => ALL.flatMap((b) => (a === b ? [] : [`${a}>${b}`])));

describe("optimizeTopology", () => {
  it("measures all pairs, and adopts the best ring as a new epoch", () => {
    const run = new Measured(World.of(4));
    run.vote([1, 2, 3]);
    expect(run.open).toEqual([]);
    run.vote([4]);
    expect(run.open).toHaveLength(4);
    expect(run.open[0]?.target.endpoint.port).toBe(1_000 + (run.open[0]?.target.peerId ?? 0));
    expect(run.answerAll()).toEqual(PATHS);
    expect(run.world.ring()).toEqual([1, 3, 2, 4]);
    for (const id of ALL) expect(run.kinds(id)).toEqual(["prepare"]);
    run.world.allReady();
    run.read();
    for (const id of ALL) expect(run.kinds(id)).toEqual(["install", "topology-answer"]);
    expect(run.world.state.orders.size).toBe(0);

    // The next call finds everything known, and nothing to do.
    run.vote(ALL, 60_000, 2);
    expect(run.others.get(1)).toEqual([{ kind: "topology-answer", requestId: 2, changed: false }]);
    run.world.tick(100);
    run.vote(ALL, 0, 3);
    expect(run.answerAll()).toEqual(PATHS);
  });

  it("asks the other one when one can't reach it, and takes the path for closed when neither can", () => {
    const run = new Measured(World.of(4));
    run.vote(ALL);
    // 1 to 3 is of the best ring.
    const isIt = (asked: Asked): boolean => senderOf(asked) === 1 && receiverOf(asked) === 3;
    while (!run.open.some(isIt)) run.answer(run.open[0] as Asked);
    const first = run.open.find(isIt) as Asked;
    run.answer(first, "connection refused");
    const again = run.open.find(isIt) as Asked;
    expect([first.by, again.by]).toEqual([1, 3]);
    run.answer(again, "no answer");
    run.answerAll();
    expect(run.world.state.paths.get(1)?.get(3)?.bytesPerSecond).toBe(0);
    const ring = run.world.ring();
    expect(ring[(ring.indexOf(1) + 1) % 4]).not.toBe(3);
  });

  it("goes on without a peer that is gone, and with the measurements of the others", () => {
    const run = new Measured(World.of(4));
    run.vote(ALL);
    run.world.die(2);
    // The view without it comes first; what runs between the others goes on.
    run.open = run.open.filter(({ by, target }) => by !== 2 && target.peerId !== 2);
    run.read();
    expect(run.world.state.change?.members).toEqual(new Set([1, 3, 4]));
    run.answerAll();
    run.world.allReady();
    run.read();
    run.answerAll();
    expect(run.world.state.optimizing).toBeUndefined();
    if (run.world.state.change !== undefined) run.world.allReady();
    run.read();
    for (const id of [1, 3, 4]) {
      expect(run.others.get(id)?.at(-1)).toMatchObject({ kind: "topology-answer", requestId: 1 });
    }
    expect([...run.world.ring()].sort((a, b) => a - b)).toEqual([1, 3, 4]);
  });

  it("waits for nobody who lives and doesn't say what it measured", () => {
    const run = new Measured(World.of(2));
    run.vote([1, 2]);
    expect(run.open).toHaveLength(2);
    for (let i = 0; i < 30; i++) {
      run.world.tick(1_000);
      for (const id of [1, 2]) run.world.say(id, { kind: "heartbeat" });
    }
    run.read();
    expect(run.kinds(1).filter((kind) => kind !== "heartbeat")).toEqual(["topology-answer"]);
    // Its late word is no breach.
    run.answer(run.open[0] as Asked);
    expect(run.world.state.peers.size).toBe(2);
  });

  it("stops when a caller withdraws, and keeps what was measured", () => {
    const run = new Measured(World.of(4));
    run.vote(ALL);
    run.answer(run.open[0] as Asked);
    run.world.say(3, { kind: "withdraw", requestId: 1 });
    run.read();
    expect(run.kinds(3)).toEqual(["call-failed"]);
    run.answerAll();
    const measured = [...run.world.state.paths.values()].reduce((sum, to) => sum + to.size, 0);
    expect(measured).toBeLessThan(12);
    run.vote([3], 60_000, 2);
    run.answerAll();
    expect(run.world.ring()).toEqual([1, 3, 2, 4]);
  });

  it("leaves newcomers pending, and keeps the order when they come in later", () => {
    const world = World.of(4);
    world.join(5);
    world.take(5);
    const run = new Measured(world);
    run.vote(ALL);
    run.answerAll();
    world.allReady();
    run.read();
    expect(run.kinds(5)).toEqual([]);
    for (const id of ALL) world.vote(id, "topology-vote", 2);
    world.allReady();
    expect(world.ring()).toEqual([1, 3, 2, 4, 5]);
  });

  it("is a call like the others: peers in different ones hear of it", () => {
    const world = World.of(2);
    world.say(1, { kind: "optimize-vote", requestId: 1, maxAgeMs: 1 });
    world.vote(2, "topology-vote");
    expect(world.takeKinds(1)).toEqual(["call-failed"]);
    expect(world.takeKinds(2)).toEqual(["call-failed"]);
  });

  it("takes peers of one host for one node, and measures one of them", () => {
    const world = new World({ minPeers: 4 });
    for (const id of ALL) world.join(id, 0, id % 2 === 0 ? "even" : "odd");
    world.allReady();
    for (const id of ALL) world.take(id);
    const run = new Measured(world);
    run.vote(ALL);
    expect(run.answerAll()).toEqual(["1>2", "2>1"]);
    expect(run.kinds(4)).toEqual(["topology-answer"]);
  });

  it("goes on after the coordinator's restart", () => {
    const run = new Measured(World.of(4));
    run.vote(ALL);
    run.world.step({ kind: "restarted" });
    for (const id of ALL) run.world.attach(id + 10, id);
    const asked = run.open;
    run.open = [];
    for (const { by, target, measurementId } of asked) {
      const result = { bytesPerSecond: 1e6, rttMs: 20 };
      run.world.say(by + 10, { kind: "measured", measurementId, result });
      expect(run.world.state.paths.get(by)?.has(target.peerId)).toBe(true);
    }
    expect(run.world.state.measurements.size).toBeGreaterThan(0);
  });
});

describe("topology", () => {
  it("tells a member of its group's ring and paths, with their age", () => {
    const run = new Measured(World.of(2));
    run.vote([1, 2]);
    run.answerAll();
    run.world.nowMs += 500;
    run.world.take(1);
    run.world.say(1, { kind: "topology-query", requestId: 9 });
    expect(run.world.take(1)).toMatchObject([
      {
        kind: "topology-info",
        requestId: 9,
        info: {
          epoch: 1,
          ring: { peerIds: [1, 2] },
          paths: [
            { from: 1, to: 2, bytesPerSecond: 1e6, rttMs: 20, ageMs: 500 },
            { from: 2, to: 1 },
          ],
        },
      },
    ]);
  });
});
