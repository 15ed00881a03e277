/**
 * The original's end-to-end scenarios, by their numbers in its list. Here: shared state within one group.
 * Where it kicks the peer at fault, we refuse this peer's call, say why, and keep it (I8 in docs/protocol.md); the
 * others go on. Method: peers in this process, values of 1 KiB.
 */
import { describe, expect, it } from "vitest";
import { PcclError, type SyncOptions } from "@pccl/core";
import { codesOf, LocalWorld, stateOf, syncAll, VALUE_BYTES, value, valueOf } from "../local-world.js";

type Strategy = NonNullable<SyncOptions["strategy"]>;

describe("shared state", () => {
  it("2 · two peers with different content: one sends, the other receives the value", async () => {
    await using world = await LocalWorld.start(2);
    const states = [stateOf({ key: 1 }), stateOf({ key: 2 })];
    const results = await syncAll(world.peers, states);
    const senders = results.filter(({ txBytes }) => txBytes > 0);
    expect(senders).toMatchObject([{ txBytes: VALUE_BYTES, rxBytes: 0, changedKeys: [] }]);
    const receivers = results.filter((result) => !senders.includes(result));
    expect(receivers).toMatchObject([{ txBytes: 0, changedKeys: ["key"] }]);
    // Framing comes on top.
    expect(receivers[0]?.rxBytes).toBeGreaterThanOrEqual(VALUE_BYTES);
    expect(receivers[0]?.rxBytes).toBeLessThan(2 * VALUE_BYTES);
    const [a, b] = states.map((state) => valueOf(state, "key"));
    expect(a).toEqual(b);
    expect([value(1), value(2)]).toContainEqual(a);
    expect(results[0]?.hashes).toEqual(results[1]?.hashes);
  });

  it("3 · identical content: nothing moves", async () => {
    await using world = await LocalWorld.start(3);
    const states = world.peers.map(() => stateOf({ key: 1, other: 2 }));
    for (const result of await syncAll(world.peers, states)) {
      expect(result).toMatchObject({ rxBytes: 0, txBytes: 0, changedKeys: [], sources: [] });
      expect(result.hashes["key"]).toMatch(/^[0-9a-f]{32}$/);
    }
  });

  it("4 · two keys, one dirty: only that key moves", async () => {
    await using world = await LocalWorld.start(2);
    const states = [stateOf({ same: 1, dirty: 2 }), stateOf({ same: 1, dirty: 3 })];
    const results = await syncAll(world.peers, states);
    expect(results.map(({ txBytes }) => txBytes).sort((x, y) => x - y)).toEqual([0, VALUE_BYTES]);
    expect(results.flatMap(({ changedKeys }) => changedKeys)).toEqual(["dirty"]);
  });

  it("5 · the odd one of three loses, although it offers first", async () => {
    await using world = await LocalWorld.start(3);
    const [odd, ...others] = world.peers;
    const states = [stateOf({ key: 9 }), stateOf({ key: 1 }), stateOf({ key: 1 })];
    const first = odd?.syncSharedState(states[0] as never);
    while (world.coordinator.peers()[0]?.waitsIn === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const rest = await syncAll(others, states.slice(1));
    expect((await first)?.changedKeys).toEqual(["key"]);
    expect(rest.map(({ changedKeys }) => changedKeys)).toEqual([[], []]);
    expect(valueOf(states[0] as never, "key")).toEqual(value(1));
  });

  it("6 · many keys, the first four dirty on one peer: only those are overwritten", async () => {
    await using world = await LocalWorld.start(3);
    const keys = Array.from({ length: 12 }, (_, i) => `key ${i}`);
    const clean = Object.fromEntries(keys.map((key, i) => [key, i]));
    const dirty = Object.fromEntries(keys.map((key, i) => [key, i < 4 ? 100 + i : i]));
    const states = [stateOf(dirty), stateOf(clean), stateOf(clean)];
    const results = await syncAll(world.peers, states);
    expect(results.map(({ changedKeys }) => changedKeys)).toEqual([keys.slice(0, 4), [], []]);
    for (const [i, key] of keys.entries()) expect(valueOf(states[0] as never, key)).toEqual(value(i));
    expect(results.reduce((sum, { txBytes }) => sum + txBytes, 0)).toBe(4 * VALUE_BYTES);
  });

  it("10 · five revisions of identical updates: nothing moves", async () => {
    await using world = await LocalWorld.start(2);
    const states = world.peers.map(() => stateOf({ key: 0 }));
    for (let revision = 0; revision < 5; revision++) {
      for (const state of states) {
        valueOf(state, "key").fill(revision);
        state.revision = revision;
      }
      const results = await syncAll(world.peers, states);
      expect(results).toMatchObject([
        { revision, rxBytes: 0, txBytes: 0 },
        { revision, rxBytes: 0, txBytes: 0 },
      ]);
    }
  });

  it("11 · drags a follower along whose leaders' content stays the same", async () => {
    await using world = await LocalWorld.start(3);
    const states = [stateOf({ key: 1 }), stateOf({ key: 1 }), stateOf({ key: 9 })];
    const [leaderA, leaderB, follower] = states;
    for (let revision = 0; revision < 5; revision++) {
      for (const leader of [leaderA, leaderB]) if (leader !== undefined) leader.revision = revision;
      const results = await syncAll(world.peers, states);
      expect(results.map(({ changedKeys }) => changedKeys)).toEqual([[], [], revision === 0 ? ["key"] : []]);
      expect(results.slice(0, 2).map(({ rxBytes }) => rxBytes)).toEqual([0, 0]);
      expect(follower?.revision).toBe(revision);
    }
  });

  it("12 · drags a follower along whose leaders' content advances", async () => {
    await using world = await LocalWorld.start(3);
    const states = [stateOf({ key: 1 }), stateOf({ key: 1 }), stateOf({ key: 9 })];
    const [leaderA, leaderB, follower] = states as [never, never, ReturnType<typeof stateOf>];
    for (let revision = 0; revision < 5; revision++) {
      for (const leader of [leaderA, leaderB] as ReturnType<typeof stateOf>[]) {
        valueOf(leader, "key").set(value(revision + 1));
        leader.revision = revision;
      }
      const results = await syncAll(world.peers, states);
      expect(results.map(({ changedKeys }) => changedKeys)).toEqual([[], [], ["key"]]);
      expect(results.map(({ txBytes }) => txBytes).sort((x, y) => x - y)).toEqual([0, 0, VALUE_BYTES]);
      expect(follower.revision).toBe(revision);
      expect(valueOf(follower, "key")).toEqual(value(revision + 1));
    }
  });

  it("13 · a revision that skips is refused, and the other one goes on", async () => {
    await using world = await LocalWorld.start(2);
    const states = [stateOf({ key: 1 }), stateOf({ key: 1 })] as const;
    await syncAll(world.peers, states);
    states[0].revision = 2;
    states[1].revision = 1;
    valueOf(states[0], "key").set(value(7));
    const [skipping, other] = world.peers.map((peer, i) => peer.syncSharedState(states[i] as never));
    await expect(skipping).rejects.toBeInstanceOf(PcclError);
    await expect(skipping).rejects.toMatchObject({
      code: "ERR_PCCL_STATE_REVISION",
      message: expect.stringMatching(/peer 1 offers revision 2.* 0 or 1 can follow/),
    });
    expect(await other).toMatchObject({ revision: 1, changedKeys: [] });
    expect(valueOf(states[1], "key")).toEqual(value(1));
    // The original removes the peer at fault; here it comes back, and takes what the other one holds.
    states[0].revision = 1;
    expect((await syncAll(world.peers, states)).map(({ revision }) => revision)).toEqual([1, 1]);
    expect(valueOf(states[0], "key")).toEqual(value(1));
  });

  it("14 · the first revision may be any, and the highest one wins", async () => {
    await using world = await LocalWorld.start(2);
    const states = [stateOf({ key: 1 }, 0), stateOf({ key: 2 }, 13)] as const;
    const results = await syncAll(world.peers, states);
    expect(results.map(({ revision }) => revision)).toEqual([13, 13]);
    expect(results.map(({ changedKeys }) => changedKeys)).toEqual([["key"], []]);
    expect(states[0].revision).toBe(13);
    expect(valueOf(states[0], "key")).toEqual(value(2));
  });

  it("15 · other keys are refused, and the others go on without the one at fault", async () => {
    await using world = await LocalWorld.start(3);
    const states = [stateOf({ key: 1 }), stateOf({ key: 1 }), stateOf({ other: 1 })];
    for (const revision of [0, 1]) {
      for (const state of states) state.revision = revision;
      const calls = world.peers.map((peer, i) => peer.syncSharedState(states[i] as never));
      await expect(calls[2]).rejects.toMatchObject({
        code: "ERR_PCCL_STATE_MISMATCH",
        message: expect.stringMatching(/peer 3 has tensor "other", peer 1 doesn't/),
      });
      expect((await Promise.all(calls.slice(0, 2))).map((result) => result.revision)).toEqual([
        revision,
        revision,
      ]);
    }
    // The original removes it; here it corrects itself.
    const corrected = [...states.slice(0, 2), stateOf({ key: 5 })];
    expect((await syncAll(world.peers, corrected)).map(({ changedKeys }) => changedKeys)).toEqual([
      [],
      [],
      ["key"],
    ]);
  });
});

describe("strategies", () => {
  async function outcome(
    strategies: readonly Strategy[],
    contents: readonly number[],
  ): Promise<{ codes: unknown[]; values: number[] }> {
    await using world = await LocalWorld.start(strategies.length);
    const states = contents.map((content) => stateOf({ key: content }));
    const calls = world.peers.map((peer, i) =>
      peer.syncSharedState(states[i] as never, { strategy: strategies[i] as Strategy }),
    );
    const codes = await codesOf(calls);
    const values = states.map((state) => (valueOf(state, "key")[0] as number) / 1_000);
    // Whatever happened, all of them are still there and can agree.
    const again = contents.map(() => stateOf({ key: 5 }, 1));
    expect((await syncAll(world.peers, again)).map(({ revision }) => revision)).toEqual(
      contents.map(() => 1),
    );
    return { codes, values };
  }
  const ok = "resolved";
  const mismatch = "ERR_PCCL_STATE_MISMATCH";
  const strategy = "ERR_PCCL_STATE_STRATEGY";

  it.each<[string, Strategy[], number[], unknown[], number[]]>([
    [
      "20 · two send-only, different content: both refused",
      ["send-only", "send-only"],
      [1, 2],
      [mismatch, mismatch],
      [1, 2],
    ],
    [
      "21 · two receive-only, different content: both refused",
      ["receive-only", "receive-only"],
      [1, 2],
      [strategy, strategy],
      [1, 2],
    ],
    [
      "22 · two receive-only, the same content: both refused",
      ["receive-only", "receive-only"],
      [1, 1],
      [strategy, strategy],
      [1, 1],
    ],
    [
      "23 · popular and receive-only: the latter refused",
      ["enforce-popular", "receive-only"],
      [1, 2],
      [ok, strategy],
      [1, 2],
    ],
    [
      "24 · popular and send-only: the latter refused",
      ["enforce-popular", "send-only"],
      [1, 2],
      [ok, strategy],
      [1, 2],
    ],
    [
      "25 · popular and two send-only: both of these refused",
      ["enforce-popular", "send-only", "send-only"],
      [1, 2, 2],
      [ok, strategy, strategy],
      [1, 2, 2],
    ],
    [
      "26 · popular, send-only and receive-only: the last two refused",
      ["enforce-popular", "send-only", "receive-only"],
      [1, 2, 3],
      [ok, strategy, strategy],
      [1, 2, 3],
    ],
    ["send-only and receive-only go together", ["send-only", "receive-only"], [1, 2], [ok, ok], [1, 1]],
  ])("%s", async (_, strategies, contents, codes, values) => {
    expect(await outcome(strategies, contents)).toEqual({ codes, values });
  });
});
