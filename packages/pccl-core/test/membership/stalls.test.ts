/** Peers that wait for each other, one in an op and one in a call; and callers that don't wait any longer. */
import { describe, expect, it } from "vitest";
import type { PeerMessage } from "../../src/membership/messages.js";
import { World } from "./world.js";

const stall = { epoch: 1, tag: 7n, seq: 0 } as const;

function offer(requestId: number): PeerMessage {
  const strategy = "enforce-popular";
  return { kind: "sync-offer", requestId, revision: 0, strategy, background: false, entries: [] };
}

describe("an op that waits for a peer in a call", () => {
  it.each([
    ["updateTopology", { kind: "topology-vote", requestId: 5 } as const],
    ["syncSharedState", offer(5)],
  ])("is aborted, and both sides hear of it: %s", (kind, call) => {
    const world = World.of(3);
    world.say(1, { kind: "stalled", ...stall, missing: [2] });
    expect(world.take(1)).toEqual([]);
    world.say(2, call);
    expect(world.take(1)).toEqual([{ kind: "abort-op", ...stall, missing: 2 }]);
    expect(world.take(2)).toEqual([]);
    world.say(1, { kind: "abort-answer", ...stall, aborted: true });
    expect(world.take(2)).toEqual([
      {
        kind: "call-failed",
        requestId: 5,
        code: "ERR_PCCL_CALL_MISMATCH",
        message: expect.stringMatching(
          new RegExp(`${kind} \\(peer 2\\).*an op of the group with tag 7 \\(peer 1\\)`),
        ),
      },
    ]);
  });

  it("may be one between two members", () => {
    const world = World.of(3);
    const [forth, back] = [
      { ...stall, from: 1, to: 2 },
      { ...stall, from: 2, to: 1 },
    ];
    world.vote(2, "topology-vote", 5);
    for (const op of [forth, back]) world.say(1, { kind: "stalled", ...op, missing: [2] });
    expect(world.take(1)).toEqual([
      { kind: "abort-op", ...forth, missing: 2 },
      { kind: "abort-op", ...back, missing: 2 },
    ]);
    world.say(1, { kind: "abort-answer", ...back, aborted: false });
    expect(world.take(2)).toEqual([]);
    world.say(1, { kind: "abort-answer", ...forth, aborted: true });
    expect(world.take(2)).toMatchObject([
      {
        message: expect.stringMatching(/updateTopology \(peer 2\), a send from peer 1 to peer 2 with tag 7/),
      },
    ]);
  });

  it("goes on when the report was out of date", () => {
    const world = World.of(3);
    world.vote(2, "topology-vote");
    world.say(1, { kind: "stalled", ...stall, missing: [3, 2] });
    expect(world.takeKinds(1)).toEqual(["abort-op"]);
    world.say(1, { kind: "abort-answer", ...stall, aborted: false });
    expect(world.take(2)).toEqual([]);
    world.vote(1, "topology-vote");
    world.vote(3, "topology-vote");
    expect(world.takeKinds(2)).toEqual(["topology-answer"]);
  });

  it("isn't touched while the other one may still start it, or its call is about to end", () => {
    const world = World.of(2);
    world.say(1, { kind: "stalled", ...stall, missing: [2] });
    world.vote(2, "pending-vote");
    expect(world.take(1)).toEqual([]);
    world.vote(1, "pending-vote");
    world.take(1);
    world.join(3);
    for (const id of [1, 2]) world.vote(id, "topology-vote");
    expect(world.takeKinds(1)).toEqual(["prepare"]);
  });

  it("is forgotten with its ring", () => {
    const world = World.of(3);
    world.say(1, { kind: "stalled", ...stall, missing: [2] });
    world.die(3);
    world.allReady();
    world.take(1);
    world.say(1, { kind: "stalled", ...stall, missing: [2] });
    world.vote(2, "topology-vote");
    expect(world.take(1)).toEqual([]);
  });
});

describe("a caller that doesn't wait any longer", () => {
  it("hears who had not called, and the others wait on", () => {
    const world = World.of(4);
    world.vote(1, "topology-vote", 5);
    world.vote(2, "topology-vote", 6);
    world.say(1, { kind: "withdraw", requestId: 5 });
    expect(world.take(1)).toEqual([
      {
        kind: "call-failed",
        requestId: 5,
        code: "ERR_PCCL_CANCELLED",
        message: expect.stringContaining("while peers 3, 4 had not called it"),
      },
    ]);
    for (const id of [3, 4]) world.vote(id, "topology-vote");
    expect(world.take(2)).toEqual([]);
    world.vote(1, "topology-vote", 7);
    expect(world.takeKinds(2)).toEqual(["topology-answer"]);
  });

  it("is too late once the answer is given, or what it asked for has begun", () => {
    const world = World.of(1);
    world.vote(1, "topology-vote", 5);
    world.say(1, { kind: "withdraw", requestId: 5 });
    expect(world.takeKinds(1)).toEqual(["topology-answer"]);
    world.join(2);
    world.vote(1, "topology-vote", 6);
    world.say(1, { kind: "withdraw", requestId: 6 });
    world.allReady();
    expect(world.takeKinds(1)).toEqual(["prepare", "install", "topology-answer"]);
  });

  it("may call again although its vote counts already, since it gave up while it had no stream", () => {
    const world = World.of(2);
    world.join(3);
    for (const id of [1, 2]) world.vote(id, "topology-vote", 5);
    for (const id of [1, 2]) world.say(id, { kind: "withdraw", requestId: 5 });
    world.vote(1, "topology-vote", 6);
    world.vote(2, "pending-vote", 7);
    world.allReady();
    expect(world.take(1)).toMatchObject([
      { kind: "prepare" },
      { kind: "install" },
      { kind: "topology-answer", requestId: 6 },
    ]);
    expect(world.takeKinds(2)).toEqual(["prepare", "install"]);
    world.vote(1, "pending-vote", 8);
    world.vote(3, "pending-vote", 9);
    expect(world.take(2)).toEqual([{ kind: "pending-answer", requestId: 7, pending: false }]);
  });

  it("leaves a sync alone, also one that has begun to fetch", () => {
    const world = World.of(2);
    world.say(1, offer(5));
    world.say(1, { kind: "withdraw", requestId: 5 });
    expect(world.take(1)).toMatchObject([
      { code: "ERR_PCCL_CANCELLED", message: expect.stringContaining("peer 2 had not called it") },
    ]);
    for (const id of [1, 2]) world.say(id, offer(6));
    world.say(1, { kind: "withdraw", requestId: 6 });
    expect(world.take(1)).toMatchObject([
      { kind: "sync-plan" },
      { kind: "call-failed", requestId: 6, code: "ERR_PCCL_CANCELLED" },
    ]);
    world.say(2, { kind: "sync-done", requestId: 6, ok: true, reason: "" });
    expect(world.takeKinds(2)).toEqual(["sync-plan", "sync-complete"]);
  });
});
