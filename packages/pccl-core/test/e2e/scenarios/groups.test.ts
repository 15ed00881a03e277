/**
 * The original's end-to-end scenarios, by their numbers in its list. Here: groups, which share a world and nothing
 * else. Method: peers in this process, values of 1 KiB.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { Communicator, SharedState } from "@pccl/core";
import { codesOf, LocalWorld, stateOf, syncAll, VALUE_BYTES, value, valueOf } from "../local-world.js";

const TWO_PAIRS = [2, 2] as const;

/** Each group's peers and their states. */
function paired(
  world: LocalWorld,
  sizes: readonly number[],
  contents: (group: number, member: number) => Readonly<Record<string, number>>,
): { peers: Communicator[]; states: SharedState[] }[] {
  return sizes.map((_, group) => {
    const peers = world.group(group, ...sizes);
    return { peers, states: peers.map((_peer, member) => stateOf(contents(group, member))) };
  });
}

const nothingMoved = { rxBytes: 0, txBytes: 0, changedKeys: [] };

describe("groups", () => {
  it("7, 8 · two groups with the same or with different keys sync one after the other: nothing moves", async () => {
    await using world = await LocalWorld.start(...TWO_PAIRS);
    for (const [revision, keyOf] of [() => "key", (group: number) => `key of ${group}`].entries()) {
      for (const { peers, states } of paired(world, TWO_PAIRS, (group) => ({ [keyOf(group)]: 1 }))) {
        for (const state of states) state.revision = revision;
        expect(await syncAll(peers, states)).toMatchObject([nothingMoved, nothingMoved]);
      }
    }
  });

  it("9 · two groups with different keys sync at the same time: nothing moves", async () => {
    await using world = await LocalWorld.start(...TWO_PAIRS);
    const groups = paired(world, TWO_PAIRS, (group) => ({ [`key of ${group}`]: group }));
    const results = await Promise.all(groups.map(({ peers, states }) => syncAll(peers, states)));
    expect(results.flat()).toMatchObject([nothingMoved, nothingMoved, nothingMoved, nothingMoved]);
  });

  it("16 · two groups advance at their own pace: nothing moves", async () => {
    await using world = await LocalWorld.start(...TWO_PAIRS);
    const groups = paired(world, TWO_PAIRS, () => ({ key: 0 }));
    await Promise.all(
      groups.map(async ({ peers, states }, group) => {
        for (let revision = 0; revision < 5; revision++) {
          for (const state of states) {
            valueOf(state, "key").fill(revision * 10 + group);
            state.revision = revision;
          }
          expect(await syncAll(peers, states)).toMatchObject([nothingMoved, nothingMoved]);
          await delay(5 + 15 * group);
        }
      }),
    );
  });

  it("17 · a follower in each of three groups is dragged along at the same time", async () => {
    const sizes = [3, 3, 3];
    await using world = await LocalWorld.start(...sizes);
    const groups = paired(world, sizes, (group, member) => ({ key: member < 2 ? group : 99 }));
    await Promise.all(
      groups.map(async ({ peers, states }, group) => {
        for (let revision = 0; revision < 5; revision++) {
          for (const leader of states.slice(0, 2)) {
            valueOf(leader, "key").set(value(100 * group + revision));
            leader.revision = revision;
          }
          const results = await syncAll(peers, states);
          expect(results.map(({ changedKeys }) => changedKeys)).toEqual([[], [], ["key"]]);
          expect(results.map(({ txBytes }) => txBytes).sort((x, y) => x - y)).toEqual([0, 0, VALUE_BYTES]);
          // One of its own group has sent it.
          const [source] = results[2]?.sources ?? [];
          expect(peers.slice(0, 2).map(({ peerId }) => peerId)).toContain(source);
          expect(valueOf(states[2] as SharedState, "key")).toEqual(value(100 * group + revision));
          expect(states[2]?.revision).toBe(revision);
        }
      }),
    );
  });

  it("18 · the same key with another content in each group: no cross-talk", async () => {
    await using world = await LocalWorld.start(...TWO_PAIRS);
    const groups = paired(world, TWO_PAIRS, (group) => ({ key: group + 1 }));
    const results = await Promise.all(groups.map(({ peers, states }) => syncAll(peers, states)));
    expect(results.flat()).toMatchObject([nothingMoved, nothingMoved, nothingMoved, nothingMoved]);
    for (const [group, { states }] of groups.entries()) {
      for (const state of states) expect(valueOf(state, "key")).toEqual(value(group + 1));
    }
  });

  it("19 · a peer that joins a group between two steps takes part in the next", async () => {
    await using world = await LocalWorld.start(...TWO_PAIRS);
    const groups = paired(world, TWO_PAIRS, (group) => ({ key: group + 1 }));
    await Promise.all(groups.map(({ peers, states }) => syncAll(peers, states)));
    const { admitted } = await world.register({ group: 1 });
    const votes = await Promise.all(world.peers.map((peer) => peer.updateTopology()));
    expect(votes).toEqual([true, true, true, true]);
    const newcomer = await admitted;
    expect([newcomer.worldSize, newcomer.groupWorldSize]).toEqual([5, 3]);
    const [first, second] = groups as [(typeof groups)[number], (typeof groups)[number]];
    for (const state of [...first.states, ...second.states]) {
      state.revision = 1;
      valueOf(state, "key").fill(7);
    }
    const own = stateOf({ key: 0 });
    const [left, right] = await Promise.all([
      syncAll(first.peers, first.states),
      syncAll([...second.peers, newcomer], [...second.states, own]),
    ]);
    expect(left).toMatchObject([nothingMoved, nothingMoved]);
    expect(right.map(({ changedKeys }) => changedKeys)).toEqual([[], [], ["key"]]);
    expect(valueOf(own, "key").every((element) => element === 7)).toBe(true);
    expect(own.revision).toBe(1);
  });

  it("27 · what is refused in one group doesn't touch the other", async () => {
    await using world = await LocalWorld.start(...TWO_PAIRS);
    const [a, b] = paired(world, TWO_PAIRS, (group, member) => ({
      key: group === 0 ? member : 5,
    })) as never[];
    const offer = ({ peers, states }: { peers: Communicator[]; states: SharedState[] }): Promise<unknown>[] =>
      peers.map((peer, i) => peer.syncSharedState(states[i] as SharedState, { strategy: "send-only" }));
    const [refused, accepted] = await Promise.all([codesOf(offer(a as never)), codesOf(offer(b as never))]);
    expect(refused).toEqual(["ERR_PCCL_STATE_MISMATCH", "ERR_PCCL_STATE_MISMATCH"]);
    expect(accepted).toEqual(["resolved", "resolved"]);
    // The original removes the first two from the world.
    expect(world.peers.map(({ worldSize }) => worldSize)).toEqual([4, 4, 4, 4]);
  });

  it("45 · each peer knows its group's size and the world's, and reduces with its group only", async () => {
    const sizes = [1, 2, 3];
    await using world = await LocalWorld.start(...sizes);
    expect(world.peers.map(({ worldSize }) => worldSize)).toEqual(new Array(6).fill(6));
    expect(world.peers.map(({ groupWorldSize }) => groupWorldSize)).toEqual([1, 2, 2, 3, 3, 3]);
    expect(world.peers.map(({ rank }) => rank)).toEqual([0, 0, 1, 0, 1, 2]);
    const results = await Promise.all(
      world.peers.map(async (peer) => {
        const tensor = Int32Array.of(peer.peerId);
        return [(await peer.allReduce(tensor)).worldSize, tensor[0]];
      }),
    );
    expect(results).toEqual([
      [1, 1],
      [2, 5],
      [2, 5],
      [3, 15],
      [3, 15],
      [3, 15],
    ]);
  });
});
