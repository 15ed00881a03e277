/** The coordinator's membership: registration, leases, admission, views, link failures, verdicts. */
import { describe, expect, it } from "vitest";
import {
  ADMISSION_ATTEMPTS_MAX,
  FULLY_LINKED_MAX,
  PREPARE_ATTEMPTS_MAX,
  PREPARE_TIMEOUT_MS,
  PROTOCOL_VERSION,
} from "../../src/base/limits.js";
import { linkedPeers } from "../../src/membership/ring.js";
import { LEASE_MS, lost, op, pairOp, World } from "./world.js";

describe("registration", () => {
  it("gives ids 1, 2, 3 and the lease, and fills in the seen address", () => {
    const world = new World({ minPeers: 3 });
    world.join(1);
    world.join(2);
    const secret = new Uint8Array(16).fill(2);
    expect(world.take(2)).toEqual([{ kind: "registered", peerId: 2, leaseMs: LEASE_MS, secret }]);
    expect(world.state.peers.get(2)?.endpoint).toEqual({ host: "10.0.0.2", port: 1_002 });
  });

  it.each([0, PROTOCOL_VERSION + 1])(
    "refuses protocol version %d, naming both versions",
    (protocolVersion) => {
      const world = new World();
      world.connect(1);
      world.say(1, {
        kind: "register",
        protocolVersion,
        group: 0,
        endpoint: { host: "h", port: 1 },
        hostId: "",
      });
      expect(world.take(1)).toEqual([
        {
          kind: "rejected",
          code: "ERR_PCCL_VERSION_MISMATCH",
          message: expect.stringMatching(`version ${protocolVersion}.*coordinator ${PROTOCOL_VERSION}`),
        },
      ]);
      expect(world.ended(1)).toBe(true);
      expect(world.state.peers.size).toBe(0);
    },
  );

  it("refuses a stream that speaks before it registers", () => {
    const world = new World();
    world.connect(1);
    world.say(1, { kind: "heartbeat" });
    expect(world.take(1)).toMatchObject([{ kind: "rejected", code: "ERR_PCCL_INVALID_ARGUMENT" }]);
  });

  it("removes a peer that registers twice", () => {
    const world = World.of(2);
    const endpoint = { host: "h", port: 1 };
    world.say(2, { kind: "register", protocolVersion: PROTOCOL_VERSION, group: 0, endpoint, hostId: "" });
    expect(world.take(2)).toMatchObject([{ kind: "removed", reason: expect.stringContaining("twice") }]);
    expect(world.ring()).toEqual([1]);
  });

  it("has a limit on peers, and on streams that haven't registered", () => {
    const world = new World({ peersMax: 2, minPeers: 2 });
    for (const id of [1, 2, 3]) world.join(id);
    expect(world.take(3)).toMatchObject([{ kind: "rejected", message: expect.stringContaining("2 peers") }]);
    for (const connection of [10, 11, 12]) world.connect(connection);
    expect([10, 11, 12].map((connection) => world.ended(connection))).toEqual([false, false, true]);
  });

  it("ends a stream with an invalid message, before and after registration", () => {
    const world = World.of(2);
    world.connect(9);
    for (const connection of [9, 2]) world.step({ kind: "invalid", connection, reason: "nonsense" });
    expect(world.take(9)).toMatchObject([{ kind: "rejected", message: expect.stringContaining("nonsense") }]);
    expect(world.take(2)).toMatchObject([{ kind: "removed", reason: expect.stringContaining("nonsense") }]);
    expect(world.ring()).toEqual([1]);
  });
});

describe("leases", () => {
  it("removes who is silent for longer than the lease, and says so", () => {
    const world = World.of(2);
    world.tick(0);
    world.tick(LEASE_MS / 2);
    world.say(1, { kind: "heartbeat" });
    expect(world.take(1)).toEqual([{ kind: "heartbeat" }]);
    world.tick(LEASE_MS / 2);
    expect(world.take(2)).toEqual([]);
    world.tick(1);
    expect(world.take(2)).toMatchObject([
      { kind: "removed", reason: expect.stringContaining("silent for 1001 ms") },
    ]);
    expect(world.ended(2)).toBe(true);
    expect(world.takeKinds(1)).toEqual(["prepare"]);
    expect(world.ring()).toEqual([1]);
  });

  it("renews a lease with any message", () => {
    const world = World.of(1);
    for (let i = 0; i < 10; i++) {
      world.tick(LEASE_MS / 2);
      world.vote(1, "pending-vote", i);
    }
    expect(world.state.peers.size).toBe(1);
  });

  it("doesn't take its own pause for the peers' silence", () => {
    const world = World.of(2);
    world.tick(0);
    world.tick(60 * LEASE_MS);
    expect(world.state.peers.size).toBe(2);
    world.say(1, { kind: "heartbeat" });
    world.tick(LEASE_MS / 2);
    world.tick(1);
    expect([...world.state.peers.keys()]).toEqual([1]);
  });

  it("doesn't count its own pause against those who are to prepare a view", () => {
    const world = World.of(2);
    world.tick(0);
    world.join(3);
    for (const peerId of [1, 2]) world.vote(peerId, "topology-vote", 1);
    world.tick(60_000);
    expect([...world.state.peers.keys()]).toEqual([1, 2, 3]);
  });

  it("turns away who doesn't register within a lease", () => {
    const world = new World();
    world.tick(0);
    world.connect(1);
    world.tick(LEASE_MS);
    expect(world.take(1)).toEqual([]);
    world.tick(1);
    expect(world.take(1)).toMatchObject([{ kind: "rejected", code: "ERR_PCCL_TIMEOUT" }]);
  });

  it("tells everybody when it shuts down", () => {
    const world = World.of(2);
    world.connect(3);
    world.step({ kind: "shutdown" });
    for (const id of [1, 2]) {
      expect(world.take(id)).toEqual([{ kind: "removed", reason: "the coordinator is shutting down" }]);
    }
    expect([1, 2, 3].every((id) => world.ended(id))).toBe(true);
  });
});

describe("admission", () => {
  it("admits the first world together, once minPeers are there", () => {
    const world = new World({ minPeers: 2 });
    world.join(1);
    expect(world.takeKinds(1)).toEqual(["registered"]);
    world.join(2);
    expect(world.takeKinds(1)).toEqual(["prepare"]);
    world.ready(1);
    expect(world.takeKinds(1)).toEqual([]);
    world.ready(2);
    expect(world.takeKinds(1)).toEqual(["install"]);
    expect(world.takeKinds(2)).toEqual(["registered", "prepare", "install"]);
  });

  it("waits again when a member of the first world is gone before its install", () => {
    const world = new World({ minPeers: 2 });
    world.join(1);
    world.join(2);
    world.take(1);
    world.die(2);
    world.ready(1);
    expect(world.takeKinds(1)).toEqual([]);
    world.join(3);
    expect(world.takeKinds(1)).toEqual(["prepare"]);
    expect(world.ring()).toEqual([1, 3]);
  });

  it("lets a newcomer in only when every admitted peer of every group has voted", () => {
    const world = World.of(3, (id) => id % 2);
    world.join(4, 1);
    world.vote(1, "topology-vote");
    world.vote(3, "topology-vote");
    expect(world.takeKinds(4)).toEqual(["registered"]);
    world.vote(2, "topology-vote");
    expect(world.takeKinds(4)).toEqual(["prepare"]);
    // The ring of group 0 stays as it is.
    for (const id of [1, 3, 4]) world.ready(id);
    expect(world.takeKinds(4)).toEqual(["install"]);
    expect(world.takeKinds(1)).toEqual(["prepare", "install", "topology-answer"]);
    expect(world.takeKinds(2)).toEqual(["install", "topology-answer"]);
    expect(world.ring(1)).toEqual([1, 3, 4]);
    expect(world.ring(0)).toEqual([2]);
  });

  it("answers updateTopology with no change when nobody is pending", () => {
    const world = World.of(2);
    world.vote(1, "topology-vote", 5);
    world.vote(2, "topology-vote", 6);
    expect(world.take(1)).toEqual([{ kind: "topology-answer", requestId: 5, changed: false }]);
    expect(world.state.change).toBeUndefined();
  });

  it("answers hasPendingPeers alike to all, when the last one has called", () => {
    const world = World.of(2);
    world.vote(1, "pending-vote", 5);
    world.join(3);
    expect(world.take(1)).toEqual([]);
    world.vote(2, "pending-vote", 6);
    expect(world.take(1)).toEqual([{ kind: "pending-answer", requestId: 5, pending: true }]);
    expect(world.take(2)).toEqual([{ kind: "pending-answer", requestId: 6, pending: true }]);
  });

  it("doesn't wait for the vote of a peer that is gone", () => {
    const world = World.of(3);
    world.vote(1, "pending-vote");
    world.vote(2, "pending-vote");
    world.die(3);
    expect(world.takeKinds(1)).toEqual(["pending-answer", "prepare"]);
  });

  it("admits pending peers without votes when the world has emptied", () => {
    const world = World.of(1);
    world.join(2);
    world.die(1);
    expect(world.takeKinds(2)).toEqual(["registered", "prepare"]);
  });

  it("begins the emptied world with all pending peers when its last member is gone during an admission", () => {
    const world = World.of(1);
    world.join(2);
    world.vote(1, "topology-vote");
    world.join(3);
    world.die(1);
    expect(world.ring()).toEqual([2, 3]);
  });
});

describe("calls", () => {
  it("reports a mismatch to all, with what each one waits in", () => {
    const world = World.of(3);
    world.vote(1, "pending-vote", 1);
    world.vote(2, "topology-vote", 2);
    expect(world.take(1)).toEqual([]);
    world.vote(3, "pending-vote", 3);
    for (const [id, requestId] of [
      [1, 1],
      [2, 2],
      [3, 3],
    ] as const) {
      expect(world.take(id)).toEqual([
        {
          kind: "call-failed",
          requestId,
          code: "ERR_PCCL_CALL_MISMATCH",
          message: expect.stringMatching(/hasPendingPeers \(peers 1, 3\).*updateTopology \(peer 2\)/),
        },
      ]);
    }
  });

  it("reports a mismatch inside one group while another group goes on", () => {
    const world = World.of(3, (id) => (id === 3 ? 1 : 0));
    world.vote(1, "topology-vote", 1);
    const strategy = "enforce-popular";
    world.say(2, { kind: "sync-offer", requestId: 2, revision: 0, strategy, background: false, entries: [] });
    expect(world.take(1)).toMatchObject([{ code: "ERR_PCCL_CALL_MISMATCH" }]);
    expect(world.take(2)).toMatchObject([{ code: "ERR_PCCL_CALL_MISMATCH" }]);
    expect(world.take(3)).toEqual([]);
  });

  it("finds the mismatch when the one that still computed is gone", () => {
    const world = World.of(3);
    world.vote(1, "pending-vote");
    world.vote(2, "topology-vote");
    world.die(3);
    expect(world.takeKinds(1)).toEqual(["prepare", "call-failed"]);
  });

  it("refuses a second call of a peer that waits, and a call of a pending peer", () => {
    const world = World.of(2);
    world.vote(1, "pending-vote", 1);
    world.vote(1, "topology-vote", 2);
    expect(world.take(1)).toMatchObject([{ requestId: 2, code: "ERR_PCCL_CALL_IN_PROGRESS" }]);
    world.join(3);
    world.take(3);
    world.vote(3, "pending-vote", 1);
    expect(world.take(3)).toMatchObject([{ requestId: 1, code: "ERR_PCCL_NOT_INSTALLED" }]);
    world.vote(2, "pending-vote", 1);
    expect(world.take(1)).toMatchObject([{ kind: "pending-answer", requestId: 1 }]);
  });
});

describe("views", () => {
  it("keeps the ring order and appends newcomers", () => {
    const world = World.of(3);
    world.die(2);
    for (const id of [1, 3]) world.ready(id);
    world.join(4);
    for (const id of [1, 3]) world.vote(id, "topology-vote");
    expect(world.ring()).toEqual([1, 3, 4]);
  });

  it("starts again with a higher epoch when a member is gone, and ignores answers to the old one", () => {
    const world = World.of(3);
    world.die(3);
    const old = world.state.epoch;
    world.ready(1);
    world.die(2);
    expect(world.state.epoch).toBe(old + 1);
    world.ready(1, { epoch: old });
    expect(world.state.installedEpoch).toBe(1);
    world.ready(1);
    expect(world.state.installedEpoch).toBe(old + 1);
  });

  it("builds a view with the same members when a link between living ones breaks", () => {
    const world = World.of(2);
    world.say(1, { kind: "link-lost", epoch: 1, peerId: 2, reason: "reset" });
    expect(world.take(2)).toMatchObject([
      { kind: "prepare", view: { epoch: 2, ring: { peerIds: [1, 2] }, members: [{ peerId: 1 }] } },
    ]);
    world.say(2, { kind: "link-lost", epoch: 1, peerId: 1, reason: "reset" });
    for (const id of [1, 2]) world.ready(id);
    expect(world.state.installedEpoch).toBe(2);
    expect(world.state.change).toBeUndefined();
  });

  it.each([
    ["an old epoch", { epoch: 1, peerId: 1 }],
    ["somebody who isn't a member", { epoch: 2, peerId: 9 }],
  ])("ignores a lost link of %s", (_, { epoch, peerId }) => {
    const world = World.of(3);
    world.die(3);
    for (const id of [1, 2]) world.ready(id);
    world.say(2, { kind: "link-lost", epoch, peerId, reason: "reset" });
    expect(world.state.change).toBeUndefined();
  });

  it("takes a link that breaks between ready and install as a failed attempt", () => {
    const world = World.of(3);
    world.die(3);
    const { epoch } = world.state;
    world.ready(1);
    world.say(1, { kind: "link-lost", epoch, peerId: 2, reason: "reset" });
    world.ready(2);
    expect(world.state.installedEpoch).toBe(1);
    expect(world.state.change).toMatchObject({ attempt: 2, epoch: epoch + 1 });
  });

  it("removes a newcomer that can't be linked with anybody, never the old member", () => {
    const world = World.of(2);
    world.join(3);
    for (const id of [1, 2]) world.vote(id, "topology-vote");
    for (let attempt = 1; attempt <= ADMISSION_ATTEMPTS_MAX; attempt++) {
      expect(world.state.change?.attempt).toBe(attempt);
      world.ready(1, { failures: [lost(3, "no route")] });
      world.ready(2, { failures: [lost(3, "no route")] });
      world.ready(3);
    }
    expect(world.take(3).at(-1)).toMatchObject({
      kind: "removed",
      reason: expect.stringMatching(/no route/),
    });
    for (const id of [1, 2]) world.ready(id);
    expect(world.takeKinds(1).slice(-2)).toEqual(["install", "topology-answer"]);
    expect(world.ring()).toEqual([1, 2]);
  });

  it("says that a loopback address is why a peer can't be reached", () => {
    const world = World.of(1);
    world.connect(2);
    const endpoint = { host: "127.0.0.1", port: 5 };
    world.say(2, { kind: "register", protocolVersion: PROTOCOL_VERSION, group: 0, endpoint, hostId: "" });
    world.vote(1, "topology-vote");
    for (let attempt = 1; attempt <= ADMISSION_ATTEMPTS_MAX; attempt++) {
      world.ready(1, { failures: [lost(2)] });
      world.ready(2);
    }
    expect(world.take(2).at(-1)).toMatchObject({ reason: expect.stringContaining("advertises 127.0.0.1") });
  });

  it("say which members are on one host, the same number for each of them", () => {
    const world = new World({ minPeers: 5 });
    for (const [index, hostId] of ["b", "", "a", "b", ""].entries()) world.join(index + 1, 0, hostId);
    world.allReady();
    expect(world.state.rings).toMatchObject([{ peerIds: [1, 2, 3, 4, 5], hosts: [0, 1, 2, 0, 3] }]);
    // Without the first one, and with another one of its host.
    world.join(6, 0, "a");
    world.die(1);
    world.allReady();
    for (const id of [2, 3, 4, 5]) world.vote(id, "topology-vote");
    world.allReady();
    expect(world.state.rings).toMatchObject([{ peerIds: [2, 3, 4, 5, 6], hosts: [0, 1, 2, 3, 1] }]);
  });

  it("keeps old members apart in the ring when that does without their link", () => {
    const size = FULLY_LINKED_MAX + 2;
    const world = World.of(size);
    const neighbour = world.ring()[1] as number;
    world.say(1, { kind: "link-lost", epoch: 1, peerId: neighbour, reason: "reset" });
    expect(linkedPeers(world.ring(), 1)).not.toContain(neighbour);
    world.allReady();
    expect(world.state.change).toBeUndefined();
    expect(world.state.peers.size).toBe(size);
    expect(new Set(world.ring())).toEqual(new Set(world.state.peers.keys()));
  });

  it("gives a relay to two members whom every ring order links, and another one if that fails", () => {
    const world = World.of(4);
    world.say(1, { kind: "link-lost", epoch: 1, peerId: 2, reason: "reset" });
    const relays = (): unknown =>
      world.take(1).flatMap((message) => (message.kind === "prepare" ? message.view.relays : []));
    expect(relays()).toEqual([{ a: 1, b: 2, via: 4 }]);
    for (const id of [1, 2, 3, 4]) world.ready(id, { failures: id === 2 ? [lost(1)] : [] });
    expect(relays()).toEqual([{ a: 1, b: 2, via: 3 }]);
    world.allReady();
    expect(world.state.change).toBeUndefined();
    expect(world.state.peers.size).toBe(4);
    // The relay dies: another one takes its place, as far as there is one.
    world.die(4);
    for (const id of [1, 2, 3]) world.ready(id, { failures: id === 2 ? [lost(1)] : [] });
    expect(world.state.change?.attempt).toBe(2);
  });

  it("removes the younger of two old members when nothing does without their link", () => {
    const world = World.of(2);
    world.say(1, { kind: "link-lost", epoch: 1, peerId: 2, reason: "reset" });
    for (let attempt = 1; attempt <= PREPARE_ATTEMPTS_MAX; attempt++) {
      expect(world.state.change?.attempt).toBe(attempt);
      for (const id of [1, 2]) world.ready(id, { failures: id === 1 ? [lost(2)] : [] });
    }
    expect(world.take(2).at(-1)).toMatchObject({ kind: "removed" });
    expect(world.ring()).toEqual([1]);
  });

  it("isn't kept from an end by a peer that reports links which the view doesn't have", () => {
    const world = World.of(2);
    world.die(2);
    world.ready(1, { failures: [lost(1), lost(77)] });
    expect(world.state.change).toBeUndefined();
  });

  it("removes a member that lives but never gets ready", () => {
    const world = World.of(2);
    world.join(3);
    world.tick(0);
    for (const id of [1, 2]) world.vote(id, "topology-vote");
    for (const id of [1, 2]) world.ready(id);
    expect(world.state.change?.preparing.size).toBe(3);
    for (let spent = 0; spent <= 2 * PREPARE_TIMEOUT_MS + LEASE_MS; spent += LEASE_MS / 2) {
      for (const id of [1, 2, 3]) world.say(id, { kind: "heartbeat" });
      world.tick(LEASE_MS / 2);
    }
    expect(world.take(3).at(-1)).toMatchObject({ reason: expect.stringContaining("did not prepare") });
  });
});

describe("verdicts", () => {
  it("come with the install, for the receiver's group, from the survivors' reports", () => {
    const world = World.of(5, (id) => (id > 3 ? 1 : 0));
    world.die(3);
    world.ready(1, { ops: [op(1, 1n, "done"), op(1, 2n, "done"), op(1, 3n, "committed")] });
    world.ready(2, { ops: [op(1, 1n, "done"), op(1, 2n, "not-done"), op(1, 3n, "done")] });
    const verdict = (tag: bigint, commit: boolean): object => ({ epoch: 1, tag, seq: 0, commit });
    for (const id of [1, 2]) {
      expect(world.take(id).at(-1)).toMatchObject({
        kind: "install",
        epoch: 2,
        verdicts: [verdict(1n, true), verdict(2n, false), verdict(3n, true)],
      });
    }
    // The other group goes on: it only hears of the new world.
    expect(world.take(4)).toEqual([
      {
        kind: "install",
        epoch: 2,
        worldSize: 4,
        verdicts: [],
        joined: [],
        lost: [{ peerId: 3, group: 0, reason: expect.stringContaining("process has ended") }],
      },
    ]);
  });

  it("leave out what a member reports of an op that it takes no part in", () => {
    const world = World.of(3);
    world.die(3);
    world.ready(1, { ops: [pairOp(1, 2, 3, "committed")] });
    world.ready(2, { ops: [pairOp(1, 2, 3, "not-done")] });
    expect(world.take(2).at(-1)).toMatchObject({ verdicts: [{ from: 2, to: 3, commit: false }] });
  });

  it("count reports of a Prepare that was restarted, and none of another epoch", () => {
    const world = World.of(3);
    world.die(3);
    world.ready(1, { ops: [op(1, 1n, "committed"), op(9, 2n, "committed")] });
    world.die(2);
    world.ready(1);
    expect(world.take(1).at(-1)).toMatchObject({ verdicts: [{ tag: 1n, commit: true }] });
    // The next epoch starts with none.
    world.join(4);
    world.vote(1, "topology-vote");
    for (const id of [1, 4]) world.ready(id);
    expect(world.take(1)).toContainEqual({
      kind: "install",
      epoch: 4,
      worldSize: 2,
      verdicts: [],
      joined: [{ peerId: 4, group: 0 }],
      lost: [],
    });
  });
});
