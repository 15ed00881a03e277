/** Shared state: a group's sync from the offers to the last member that has fetched. */
import { describe, expect, it } from "vitest";
import type { SyncStrategy } from "../../src/membership/messages.js";
import { World } from "./world.js";

describe("a sync", () => {
  function sync(
    world: World,
    id: number,
    revision: number,
    letter: string,
    options: { strategy?: SyncStrategy; background?: boolean; requestId?: number } = {},
  ): void {
    const { strategy = "enforce-popular", background = false, requestId = 10 + id } = options;
    const entries = [{ name: "w", dtype: "f32", count: 4, hash: letter.repeat(32), allowInequality: false }];
    world.say(id, { kind: "sync-offer", requestId, revision, strategy, background, entries });
  }
  const done = (world: World, id: number, ok = true): void =>
    world.say(id, { kind: "sync-done", requestId: 10 + id, ok, reason: ok ? "" : "bad hash" });

  it("plans when the whole group has offered, and completes when all are done", () => {
    const world = World.of(3, (id) => (id === 3 ? 1 : 0));
    sync(world, 1, 0, "a");
    expect(world.take(1)).toEqual([]);
    sync(world, 2, 0, "b");
    expect(world.take(1)).toEqual([
      { kind: "sync-plan", requestId: 11, revision: 0, sources: [], share: 0, shares: 1, fetches: [] },
    ]);
    expect(world.take(2)).toEqual([
      {
        kind: "sync-plan",
        requestId: 12,
        revision: 0,
        sources: [
          { member: { peerId: 1, group: 0, endpoint: { host: "10.0.0.1", port: 1_001 } }, complete: true },
        ],
        share: 0,
        shares: 1,
        fetches: [{ name: "w", hash: "a".repeat(32) }],
      },
    ]);
    done(world, 1);
    expect(world.take(1)).toEqual([]);
    done(world, 2);
    expect(world.take(1)).toEqual([{ kind: "sync-complete", requestId: 11, revision: 0 }]);
    expect(world.take(2)).toEqual([{ kind: "sync-complete", requestId: 12, revision: 0 }]);
    expect(world.state.records.get(0)).toEqual({ revision: 0, holders: new Set([1, 2]) });
    expect(world.take(3)).toEqual([]);
  });

  it("goes on without a peer that is gone before the plans", () => {
    const world = World.of(3);
    sync(world, 1, 0, "a");
    sync(world, 2, 0, "b");
    world.die(3);
    expect(world.takeKinds(1)).toContain("sync-plan");
  });

  it("goes on without a peer that is gone after the plans", () => {
    const world = World.of(3);
    for (const id of [1, 2, 3]) sync(world, id, 0, "a");
    for (const id of [1, 2]) world.take(id);
    done(world, 1);
    world.die(3);
    expect(world.takeKinds(1)).not.toContain("sync-complete");
    done(world, 2);
    for (const id of [1, 2]) expect(world.takeKinds(id)).toContain("sync-complete");
    expect(world.state.records.get(0)?.holders).toEqual(new Set([1, 2]));
  });

  it("fails at once, and alone, for who couldn't fetch or gave up", () => {
    const world = World.of(4);
    sync(world, 1, 0, "a");
    for (const id of [2, 3, 4]) sync(world, id, 0, "b".repeat(1 + (id % 2)).slice(0, 1));
    for (const id of [1, 2, 3, 4]) world.take(id);
    done(world, 2, false);
    expect(world.take(2)).toEqual([
      {
        kind: "call-failed",
        requestId: 12,
        code: "ERR_PCCL_STATE_FETCH_FAILED",
        message: expect.stringMatching(/peer 2.*bad hash/),
      },
    ]);
    world.say(3, { kind: "withdraw", requestId: 13 });
    expect(world.take(3)).toMatchObject([{ requestId: 13, code: "ERR_PCCL_CANCELLED" }]);
    // What crosses that is too late.
    done(world, 3);
    done(world, 1);
    expect(world.take(1)).toEqual([]);
    done(world, 4);
    for (const id of [1, 4]) expect(world.takeKinds(id)).toEqual(["sync-complete"]);
    expect(world.state.records.get(0)?.holders).toEqual(new Set([1, 4]));
  });

  it("leaves the group's record as it was when all have failed", () => {
    const world = World.of(2);
    for (const id of [1, 2]) sync(world, id, 0, "a");
    for (const id of [1, 2]) done(world, id);
    for (const id of [1, 2]) sync(world, id, 1, "b", { requestId: 20 + id });
    for (const id of [1, 2]) world.say(id, { kind: "withdraw", requestId: 20 + id });
    expect(world.state.records.get(0)).toEqual({ revision: 0, holders: new Set([1, 2]) });
    expect(world.state.syncs.size).toBe(0);
  });

  it("refuses who is at fault, and the others go on", () => {
    const world = World.of(3);
    sync(world, 1, 0, "a");
    sync(world, 2, 0, "a", { strategy: "receive-only" });
    sync(world, 3, 0, "a");
    expect(world.take(2)).toMatchObject([{ requestId: 12, code: "ERR_PCCL_STATE_STRATEGY" }]);
    for (const id of [1, 3]) done(world, id);
    for (const id of [1, 3]) expect(world.takeKinds(id)).toEqual(["sync-plan", "sync-complete"]);
    expect(world.state.records.get(0)?.holders).toEqual(new Set([1, 3]));
  });

  it("doesn't keep those in the background, and tells them of the end", () => {
    const world = World.of(2);
    sync(world, 1, 0, "a", { background: true });
    sync(world, 2, 0, "b", { background: true });
    for (const id of [1, 2]) world.take(id);
    done(world, 1);
    expect(world.takeKinds(1)).toEqual(["sync-complete"]);
    // It is free for other calls, and whoever fetches isn't taken for one who waits for it.
    world.say(1, { kind: "stalled", epoch: world.state.rings[0]?.epoch ?? 0, tag: 1n, seq: 0, missing: [2] });
    expect(world.take(1)).toEqual([]);
    world.vote(1, "topology-vote");
    expect(world.take(1)).toEqual([]);
    done(world, 2);
    expect(world.takeKinds(2)).toEqual(["sync-complete", "sync-ended"]);
    expect(world.take(1)).toEqual([{ kind: "sync-ended", requestId: 11, revision: 0 }]);
    expect(world.state.records.get(0)?.holders).toEqual(new Set([1, 2]));
  });

  it("forgets the record of a group with no members left", () => {
    const world = World.of(2, (id) => id);
    for (const id of [1, 2]) {
      sync(world, id, 7, "a");
      done(world, id);
    }
    expect([...world.state.records.keys()]).toEqual([1, 2]);
    world.die(2);
    expect([...world.state.records.keys()]).toEqual([1]);
    world.die(1);
    expect(world.state.records.size).toBe(0);
  });

  it("isn't taken for a mismatch while another group waits in a vote", () => {
    const world = World.of(2, (id) => id);
    sync(world, 1, 0, "a");
    world.vote(2, "topology-vote");
    expect(world.takeKinds(1)).toEqual(["sync-plan"]);
    expect(world.take(2)).toEqual([]);
    done(world, 1);
    expect(world.takeKinds(1)).toEqual(["sync-complete"]);
  });
});
