/** Shared state: elections, plans, and syncs that fail. */
import { describe, expect, it } from "vitest";
import type { StateEntry, SyncStrategy } from "../../src/membership/messages.js";
import { elect, type Election, type Offer } from "../../src/membership/sync.js";
import { World } from "./world.js";

/** Tensors by name, each with a letter for its content. */
function entries(contents: Record<string, string>, count = 4, dtype = "f32"): StateEntry[] {
  return Object.entries(contents).map(([name, letter]) => ({ name, dtype, count, hash: letter.repeat(32) }));
}

function offer(
  peerId: number,
  revision: number,
  contents: Record<string, string>,
  strategy: SyncStrategy = "enforce-popular",
): Offer {
  return { peerId, revision, strategy, entries: entries(contents) };
}

/** Who fetches what from whom, in short. */
function plansOf(election: Election): Record<number, string> {
  if (!election.ok) throw new Error(election.reason);
  return Object.fromEntries(
    election.plans.map(({ peerId, source, fetches }) => [
      peerId,
      fetches.length === 0 ? "" : `${fetches.map(({ name, hash }) => name + hash[0]).join()} from ${source}`,
    ]),
  );
}

const holders = (...ids: number[]): { revision: number; holders: Set<number> } => ({
  revision: 5,
  holders: new Set(ids),
});

describe("elect", () => {
  it("takes the most frequent content, ties by ring order", () => {
    const popular = elect(
      [offer(1, 0, { w: "a" }), offer(2, 0, { w: "b" }), offer(3, 0, { w: "b" })],
      undefined,
    );
    expect(plansOf(popular)).toEqual({ 1: "wb from 2", 2: "", 3: "" });
    const tie = elect([offer(3, 0, { w: "c" }), offer(1, 0, { w: "a" })], undefined);
    expect(plansOf(tie)).toEqual({ 3: "", 1: "wc from 3" });
  });

  it("takes the highest revision before the most frequent content", () => {
    const offers = [offer(1, 3, { w: "a" }), offer(2, 3, { w: "a" }), offer(3, 4, { w: "b" })];
    const election = elect(offers, undefined);
    expect(election).toMatchObject({ revision: 4 });
    expect(plansOf(election)).toEqual({ 1: "wb from 3", 2: "wb from 3", 3: "" });
  });

  it("fetches only what differs, and spreads receivers over the holders", () => {
    const same = { v: "1", w: "a" };
    const offers = [
      offer(1, 5, same),
      offer(2, 5, same),
      ...[3, 4, 5].map((id) => offer(id, 0, { w: "x", v: "1" })),
    ];
    expect(plansOf(elect(offers, holders(1, 2)))).toEqual({
      1: "",
      2: "",
      3: "wa from 1",
      4: "wa from 2",
      5: "wa from 1",
    });
  });

  it("listens only to holders while one lives, however many newcomers agree", () => {
    const newcomers = [2, 3, 4].map((id) => offer(id, 6, { w: "n" }));
    const election = elect([...newcomers, offer(1, 6, { w: "a" })], holders(1, 99));
    expect(plansOf(election)).toEqual({ 1: "", 2: "wa from 1", 3: "wa from 1", 4: "wa from 1" });
  });

  it("never elects what is offered receive-only", () => {
    const offers = [offer(1, 9, { w: "a" }, "receive-only"), offer(2, 0, { w: "b" })];
    expect(plansOf(elect(offers, undefined))).toEqual({ 1: "wb from 2", 2: "" });
    for (const record of [undefined, holders(1)]) {
      expect(elect([offer(1, 5, { w: "a" }, "receive-only")], record)).toMatchObject({
        code: "ERR_PCCL_STATE_LOST",
        reason: expect.stringContaining("receive-only"),
      });
    }
  });

  it.each([
    ["a holder that skips", 1, 7],
    ["a holder that goes back", 1, 4],
    ["a newcomer that is ahead", 2, 7],
  ])("refuses %s, and names it", (_, offender, revision) => {
    const offers = [1, 2].map((id) => offer(id, id === offender ? revision : 6, { w: "a" }));
    expect(elect(offers, holders(1))).toMatchObject({
      code: "ERR_PCCL_STATE_REVISION",
      reason: expect.stringMatching(`peer ${offender} offers revision ${revision}.*5 or 6`),
    });
  });

  it("goes on after the last holder only with an explicit send-only, at any revision", () => {
    const offers = [offer(1, 0, { w: "a" }), offer(2, 3, { w: "b" })];
    expect(elect(offers, holders(99))).toMatchObject({
      code: "ERR_PCCL_STATE_LOST",
      reason: expect.stringContaining("revision 5"),
    });
    const restart = elect([offer(1, 0, { w: "a" }, "send-only"), offer(2, 3, { w: "b" })], holders(99));
    expect(restart).toMatchObject({ ok: true, revision: 0 });
    expect(plansOf(restart)).toEqual({ 1: "", 2: "wa from 1" });
  });

  it("refuses a send-only whose content isn't the elected one", () => {
    const offers = [offer(1, 6, { v: "1", w: "a" }), offer(2, 0, { v: "1", w: "b" }, "send-only")];
    expect(elect(offers, holders(1))).toMatchObject({
      code: "ERR_PCCL_STATE_MISMATCH",
      reason: expect.stringMatching(/peer 2 offers send-only.*peer 1.*"w"/),
    });
  });

  it.each<[string, StateEntry[], RegExp]>([
    ["a missing tensor", entries({ v: "1" }), /peer 1 has tensor "w", peer 2 doesn't/],
    ["a tensor too many", entries({ v: "1", w: "a", x: "2" }), /peer 2 has tensor "x", peer 1 doesn't/],
    ["another length", entries({ v: "1", w: "a" }, 5), /"v" has 5 × f32 on peer 2, 4 × f32 on peer 1/],
    ["another type", entries({ v: "1", w: "a" }, 4, "f64"), /"v" has 4 × f64 on peer 2, 4 × f32 on peer 1/],
  ])("refuses %s, naming the first difference and the peers", (_, other, reason) => {
    const first = offer(1, 0, { v: "1", w: "a" });
    expect(elect([first, { ...first, peerId: 2, entries: other }], undefined)).toMatchObject({
      code: "ERR_PCCL_STATE_MISMATCH",
      reason: expect.stringMatching(reason),
    });
  });

  it("doesn't mind the order of the tensors", () => {
    const offers = [offer(1, 0, { v: "1", w: "a" }), offer(2, 0, { w: "a", v: "1" })];
    expect(plansOf(elect(offers, undefined))).toEqual({ 1: "", 2: "" });
  });
});

describe("a sync", () => {
  function sync(world: World, id: number, revision: number, letter: string, strategy?: SyncStrategy): void {
    const { peerId: _, ...rest } = offer(id, revision, { w: letter }, strategy);
    world.say(id, { kind: "sync-offer", requestId: 10 + id, ...rest });
  }
  const done = (world: World, id: number, ok = true): void =>
    world.say(id, { kind: "sync-done", requestId: 10 + id, ok, reason: ok ? "" : "bad hash" });

  it("plans when the whole group has offered, and completes when all are done", () => {
    const world = World.of(3, (id) => (id === 3 ? 1 : 0));
    sync(world, 1, 0, "a");
    expect(world.take(1)).toEqual([]);
    sync(world, 2, 0, "b");
    expect(world.take(1)).toEqual([
      { kind: "sync-plan", requestId: 11, revision: 0, source: undefined, fetches: [] },
    ]);
    expect(world.take(2)).toEqual([
      {
        kind: "sync-plan",
        requestId: 12,
        revision: 0,
        source: { peerId: 1, group: 0, endpoint: { host: "10.0.0.1", port: 1_001 } },
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

  it("fails for all, retryably, when a peer is gone after the plans", () => {
    const world = World.of(3);
    for (const id of [1, 2, 3]) sync(world, id, 0, "a");
    for (const id of [1, 2]) world.take(id);
    done(world, 1);
    world.die(3);
    for (const id of [1, 2]) {
      expect(world.take(id)).toContainEqual(
        expect.objectContaining({ requestId: 10 + id, code: "ERR_PCCL_PEER_LOST" }),
      );
    }
    expect(world.state.records.size).toBe(0);
    // A done that crossed the failure belongs to no sync; the retry is a new one.
    done(world, 2);
    for (const id of [1, 2]) sync(world, id, 0, "a");
    for (const id of [1, 2]) done(world, id);
    expect(world.state.records.get(0)?.holders).toEqual(new Set([1, 2]));
  });

  it("fails for all when one peer couldn't fetch", () => {
    const world = World.of(2);
    sync(world, 1, 0, "a");
    sync(world, 2, 0, "b");
    for (const id of [1, 2]) world.take(id);
    done(world, 1);
    done(world, 2, false);
    for (const id of [1, 2]) {
      expect(world.take(id)).toEqual([
        {
          kind: "call-failed",
          requestId: 10 + id,
          code: "ERR_PCCL_STATE_FETCH_FAILED",
          message: expect.stringMatching(/peer 2.*bad hash/),
        },
      ]);
    }
  });

  it("tells all members why an election failed", () => {
    const world = World.of(2);
    sync(world, 1, 0, "a", "receive-only");
    sync(world, 2, 0, "a", "receive-only");
    for (const id of [1, 2]) expect(world.take(id)).toMatchObject([{ code: "ERR_PCCL_STATE_LOST" }]);
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
