/** Broken streams: who is detached, who may come back, and what is sent again. */
import { describe, expect, it } from "vitest";
import { HEARTBEATS_PER_LEASE, OUTBOX_MESSAGES_MAX, PROTOCOL_VERSION } from "../../src/base/limits.js";
import { LEASE_MS, op, World } from "./world.js";

describe("a broken stream", () => {
  it("costs the peer nothing when it attaches again: what it missed is sent once more", () => {
    const world = World.of(2);
    world.vote(1, "pending-vote", 5);
    world.vote(2, "pending-vote", 6);
    const answers = world.takeEnvelopes(1);
    world.cut(1);
    expect(world.probes).toEqual([1]);
    world.vote(2, "topology-vote", 7);
    world.attach(10, 1, { received: (answers[0]?.seq ?? 0) - 1 });
    expect(world.takeEnvelopes(10).map(({ message }) => message.kind)).toEqual([
      "attached",
      "pending-answer",
    ]);
    world.vote(10, "topology-vote", 8);
    expect(world.takeKinds(10)).toEqual(["topology-answer"]);
    expect(world.takeKinds(2)).toEqual(["pending-answer", "topology-answer"]);
    expect(world.state.epoch).toBe(1);
  });

  it("takes a message that comes again only once", () => {
    const world = World.of(2);
    const seq = 2;
    world.say(1, { kind: "pending-vote", requestId: 5 }, seq);
    world.cut(1);
    world.attach(10, 1);
    expect(world.take(10)).toEqual([{ kind: "attached", received: seq }]);
    world.say(10, { kind: "pending-vote", requestId: 5 }, seq);
    world.vote(2, "pending-vote", 6);
    expect(world.takeKinds(10)).toEqual(["pending-answer"]);
  });

  it("keeps messages until they are acknowledged", () => {
    const world = World.of(1);
    for (let requestId = 1; requestId <= 3; requestId++) world.vote(1, "pending-vote", requestId);
    const unread = world.takeEnvelopes(1).map(({ seq }) => seq);
    world.cut(1);
    // The third vote has told that the first two answers came.
    world.attach(10, 1, { received: unread[1] as number });
    expect(world.takeEnvelopes(10).map(({ seq }) => seq)).toEqual([0, unread[2]]);
    world.say(10, { kind: "heartbeat" });
    expect(world.state.peers.get(1)?.channel.unacknowledged).toEqual([]);
  });

  it("ends the peer's lease when it doesn't come back, and tells it why when it comes too late", () => {
    const world = World.of(2);
    world.tick(0);
    world.cut(2);
    world.step({ kind: "probed", peerId: 2, result: "alive" });
    for (let spent = 0; spent <= LEASE_MS; spent += LEASE_MS / HEARTBEATS_PER_LEASE) {
      world.say(1, { kind: "heartbeat" });
      world.tick(LEASE_MS / HEARTBEATS_PER_LEASE);
    }
    expect(world.ring()).toEqual([1]);
    world.attach(20, 2);
    expect(world.take(20)).toEqual([
      { kind: "rejected", code: "ERR_PCCL_REMOVED", message: expect.stringContaining("silent for") },
    ]);
  });

  it("is probed again and again, and over at once when the data port is closed", () => {
    const world = World.of(2);
    world.tick(0);
    world.cut(2);
    world.step({ kind: "probed", peerId: 2, result: "unknown" });
    world.tick(LEASE_MS / 2);
    expect(world.probes).toEqual([2, 2]);
    world.step({ kind: "probed", peerId: 2, result: "refused" });
    expect([...world.state.peers.keys()]).toEqual([1]);
    expect(world.takeKinds(1)).toEqual(["prepare"]);
  });

  it("isn't over by a refusal where the coordinator never got through", () => {
    const world = World.of(1);
    world.connect(2);
    const endpoint = { host: "127.0.0.1", port: 5 };
    world.say(2, { kind: "register", protocolVersion: PROTOCOL_VERSION, group: 0, endpoint, hostId: "" });
    expect(world.probes).toEqual([2]);
    world.step({ kind: "probed", peerId: 2, result: "refused" });
    world.die(2);
    expect(world.state.peers.size).toBe(2);
    world.attach(20, 2);
    world.step({ kind: "probed", peerId: 2, result: "alive" });
    world.cut(20);
    world.step({ kind: "probed", peerId: 2, result: "refused" });
    expect(world.state.peers.size).toBe(1);
  });

  it("isn't over for a peer that attached before its probe came back", () => {
    const world = World.of(2);
    world.cut(2);
    world.attach(20, 2);
    world.step({ kind: "probed", peerId: 2, result: "refused" });
    expect(world.state.peers.size).toBe(2);
  });

  it("is over when another process registers with the same data port", () => {
    const world = World.of(2);
    world.cut(2);
    world.connect(3);
    const endpoint = { host: "10.0.0.2", port: 1_002 };
    world.say(3, { kind: "register", protocolVersion: PROTOCOL_VERSION, group: 0, endpoint, hostId: "" });
    expect([...world.state.peers.keys()]).toEqual([1, 3]);
  });

  it("keeps a pending peer from being let in until it is back", () => {
    const world = World.of(1);
    world.join(2);
    world.cut(2);
    world.vote(1, "pending-vote", 1);
    expect(world.take(1)).toEqual([{ kind: "pending-answer", requestId: 1, pending: false }]);
    world.attach(20, 2);
    world.vote(1, "pending-vote", 2);
    expect(world.take(1)).toEqual([{ kind: "pending-answer", requestId: 2, pending: true }]);
  });

  it("doesn't hold up a change: Prepare and Install wait for the peer, its Ready for nobody", () => {
    const world = World.of(3);
    world.die(3);
    world.ready(1, { ops: [op(1, 1n, "done")] });
    world.take(2);
    world.cut(2);
    world.attach(20, 2, { received: 2 });
    expect(world.takeKinds(20)).toEqual(["attached", "prepare"]);
    world.ready(20, { ops: [op(1, 1n, "committed")] });
    expect(world.take(1).at(-1)).toMatchObject({ kind: "install", verdicts: [{ commit: true }] });
  });
});

describe("attach", () => {
  it.each([
    ["a wrong secret", { secret: new Uint8Array(16) }, "ERR_PCCL_COORDINATOR_LOST", /secret/],
    ["more than was sent", { received: 99 }, "ERR_PCCL_COORDINATOR_LOST", /more than was ever sent/],
  ] as const)("is refused with %s, and the peer stays as it is", (_, options, code, message) => {
    const world = World.of(2);
    world.attach(20, 2, options);
    expect(world.take(20)).toEqual([{ kind: "rejected", code, message: expect.stringMatching(message) }]);
    expect(world.state.peers.get(2)?.connection).toBe(2);
  });

  it("is refused for a peer that this coordinator never knew", () => {
    const world = World.of(1);
    world.attach(9, 9);
    expect(world.take(9)).toMatchObject([
      { code: "ERR_PCCL_COORDINATOR_LOST", message: expect.stringContaining("restarted without") },
    ]);
  });

  it("names both versions when they differ", () => {
    const world = World.of(1);
    world.connect(9);
    const secret = new Uint8Array(16).fill(1);
    world.say(9, { kind: "attach", protocolVersion: 1, peerId: 1, secret, received: 0 });
    expect(world.take(9)).toMatchObject([
      { message: expect.stringContaining(`version 1, the coordinator ${PROTOCOL_VERSION}`) },
    ]);
  });

  it("ends the stream that the peer had", () => {
    const world = World.of(1);
    world.attach(10, 1);
    expect(world.ended(1)).toBe(true);
    world.cut(1);
    expect(world.state.peers.get(1)?.connection).toBe(10);
  });

  it("comes at most once on a stream", () => {
    const world = World.of(1);
    world.attach(10, 1);
    const secret = new Uint8Array(16).fill(1);
    world.say(10, { kind: "attach", protocolVersion: PROTOCOL_VERSION, peerId: 1, secret, received: 1 });
    expect(world.take(10).at(-1)).toMatchObject({
      kind: "removed",
      reason: expect.stringContaining("twice"),
    });
  });
});

describe("numbers", () => {
  it.each([
    ["a gap", 7],
    ["no number", 0],
  ])("out of turn end the peer: %s", (_, seq) => {
    const world = World.of(1);
    world.say(1, { kind: "pending-vote", requestId: 1 }, seq);
    expect(world.take(1)).toMatchObject([{ kind: "removed", reason: expect.stringContaining("message") }]);
  });

  it("that acknowledge what was never sent end the peer", () => {
    const world = World.of(1);
    world.step({ kind: "message", connection: 1, seq: 0, ack: 99, message: { kind: "heartbeat" } });
    expect(world.take(1)).toMatchObject([{ kind: "removed", reason: expect.stringContaining("never sent") }]);
  });

  it("aren't kept for ever for a peer that acknowledges nothing", () => {
    const world = World.of(1);
    for (let seq = 2; world.state.peers.size > 0; seq++) {
      if (seq > 2 * OUTBOX_MESSAGES_MAX) throw new Error("kept for ever");
      const message = { kind: "pending-vote", requestId: seq } as const;
      world.step({ kind: "message", connection: 1, seq, ack: 0, message });
    }
    expect(world.take(1).at(-1)).toMatchObject({ kind: "removed" });
  });
});

describe("a restarted coordinator", () => {
  it("knows its peers, gives each a lease to attach, and sends again what they lack", () => {
    const world = World.of(3);
    world.tick(0);
    world.die(3);
    world.ready(1);
    world.tick(10 * LEASE_MS);
    world.step({ kind: "restarted" });
    expect(world.probes.slice(-2)).toEqual([1, 2]);
    world.attach(10, 1);
    world.attach(20, 2, { received: 2 });
    expect(world.takeKinds(20)).toEqual(["attached", "prepare"]);
    world.ready(20);
    expect(world.takeKinds(10)).toEqual(["attached", "install"]);
    expect(world.state.installedEpoch).toBe(2);
  });

  it("removes who doesn't attach within a lease", () => {
    const world = World.of(2);
    world.step({ kind: "restarted" });
    world.tick(0);
    world.attach(10, 1);
    for (let i = 0; i < 3; i++) {
      world.say(10, { kind: "heartbeat" });
      world.tick(LEASE_MS / 2);
    }
    expect(world.ring()).toEqual([1]);
  });
});
