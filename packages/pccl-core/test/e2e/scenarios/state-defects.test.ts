/**
 * Each defect that was found in the original's shared state, shown to be absent here. Method: peers in this process;
 * native/test/state_test.cc has those that need a look inside.
 */
import { describe, expect, it } from "vitest";
import { type Communicator, type DType, SharedState, type SyncResult, type Tensor } from "@pccl/core";
import { codesOf, LocalWorld, stateOf, syncAll, value, valueOf } from "../local-world.js";

/** Two peers; the second one takes what the first one has. */
async function transfer(
  make: (peer: number) => Readonly<Record<string, Tensor | { data: Tensor; dtype: DType }>>,
): Promise<{ states: SharedState[]; results: SyncResult[] }> {
  await using world = await LocalWorld.start(2);
  const states = world.peers.map((_, i) => new SharedState(make(i), { revision: 1 - i }));
  return { states, results: await syncAll(world.peers, states) };
}

const bytes = (tensor: Tensor | undefined): Uint8Array =>
  new Uint8Array(tensor?.buffer ?? new ArrayBuffer(0), tensor?.byteOffset, tensor?.byteLength);

describe("the original's defects", () => {
  it("moves zero bytes of 16-bit types and reports success: here all types move", async () => {
    const kinds = {
      i8: Int8Array,
      u8: Uint8Array,
      i16: Int16Array,
      u16: Uint16Array,
      i32: Int32Array,
      u32: Uint32Array,
      i64: BigInt64Array,
      u64: BigUint64Array,
      f32: Float32Array,
      f64: Float64Array,
      f16: Uint16Array,
      bf16: Uint16Array,
    } as const;
    const { states, results } = await transfer((peer) =>
      Object.fromEntries(
        Object.entries(kinds).map(([dtype, Kind]) => {
          const data = new Kind(37);
          bytes(data).fill(peer === 0 ? dtype.length * 31 : 0);
          return [dtype, { data, dtype: dtype as DType }];
        }),
      ),
    );
    expect(results[1]?.changedKeys).toEqual(Object.keys(kinds));
    for (const name of Object.keys(kinds)) {
      expect(bytes(states[1]?.tensors.get(name))).toEqual(bytes(states[0]?.tensors.get(name)));
      expect(bytes(states[1]?.tensors.get(name)).every((byte) => byte === name.length * 31)).toBe(true);
    }
  });

  it("ends the process over tensors that aren't aligned to 16 bytes: here any alignment does", async () => {
    const { states } = await transfer((peer) =>
      Object.fromEntries(
        [1, 2, 3, 5, 11].map((offset) => {
          const data = new Uint8Array(new ArrayBuffer(200_000), offset, 150_004).fill(
            peer === 0 ? offset : 0,
          );
          return [`at ${offset}`, { data, dtype: "f32" as const }];
        }),
      ),
    );
    for (const offset of [1, 2, 3, 5, 11]) {
      expect(states[1]?.tensors.get(`at ${offset}`)?.[150_003]).toBe(offset);
    }
  });

  it("lets who lacks a key read past the end: here numbers of keys are compared first", async () => {
    await using world = await LocalWorld.start(3);
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`key ${i}`, i]));
    const states = [stateOf(many), stateOf(many), stateOf({ "key 0": 0 })];
    const codes = await codesOf(world.peers.map((peer, i) => peer.syncSharedState(states[i] as never)));
    expect(codes).toEqual(["resolved", "resolved", "ERR_PCCL_STATE_MISMATCH"]);
  });

  it("lets another length pass, and then everybody waits: here it is refused, and the others go on", async () => {
    await using world = await LocalWorld.start(3);
    const states = [256, 256, 255].map(
      (length) => new SharedState({ key: new Float32Array(length) }, { revision: 0 }),
    );
    const codes = await codesOf(world.peers.map((peer, i) => peer.syncSharedState(states[i] as never)));
    expect(codes).toEqual(["resolved", "resolved", "ERR_PCCL_STATE_MISMATCH"]);
  });

  it("stays broken for ever when the last holder leaves: here the group is seeded again", async () => {
    await using world = await LocalWorld.start(1);
    const [holder] = world.peers;
    await holder?.syncSharedState(stateOf({ key: 1 }, 7));
    const joins = [await world.register(), await world.register()];
    await holder?.updateTopology();
    const [first, second] = await Promise.all(joins.map(({ admitted }) => admitted));
    if (first === undefined || second === undefined) throw new Error("not admitted");
    const states = [stateOf({ key: 2 }, 3), stateOf({ key: 3 })] as const;
    const seeding = first.seedSharedState(states[0]);
    const refused = codesOf([seeding]);
    const others = syncAll([second, holder as Communicator], [states[1], stateOf({ key: 1 }, 7)]);
    // Not while it lives.
    expect(await refused).toEqual(["ERR_PCCL_STATE_STRATEGY"]);
    await others;
    // The second one holds revision 7 since, so it has to go too.
    await Promise.all([holder?.close(), second.close()]);
    expect(await codesOf([first.syncSharedState(states[0])])).toEqual(["ERR_PCCL_STATE_LOST"]);
    expect(await first.seedSharedState(states[0])).toMatchObject({ revision: 3, changedKeys: [] });
    expect(valueOf(states[0], "key")).toEqual(value(2));
  });

  it("asks one donor for everything: here any holder gives", async () => {
    await using world = await LocalWorld.start(4);
    const states = world.peers.map((_, i) => {
      const weights = new Float32Array(8_000_000).fill(i === 3 ? 0 : 1);
      return new SharedState({ weights }, { revision: i === 3 ? 0 : 1 });
    });
    const results = await syncAll(world.peers, states);
    // On one host a fast one may give it all before the others are connected; state-wan.test.ts has slow ones.
    const givers = results.slice(0, 3).flatMap(({ txBytes }, i) => (txBytes > 0 ? [i + 1] : []));
    expect(givers).toEqual(expect.arrayContaining([...(results[3]?.sources ?? [])]));
    expect(results[3]?.sources.length).toBeGreaterThan(0);
    expect(results[3]?.txBytes).toBe(0);
    expect(valueOf(states[3] as SharedState, "weights").every((element) => element === 1)).toBe(true);
  });

  it("sends whole tensors: here the leaves that differ, 1 % of them", async () => {
    const count = 6_553_600;
    const { results } = await transfer((peer) => {
      const weights = new Float32Array(count).fill(1);
      // Four of 400 leaves of 64 KiB.
      if (peer === 0) for (const leaf of [3, 77, 200, 399]) weights[leaf * 16_384 + 5] = 2;
      return { weights };
    });
    expect(results[1]?.changedKeys).toEqual(["weights"]);
    expect(results[1]?.rxBytes).toBeGreaterThan(4 * 65_536);
    expect(results[1]?.rxBytes).toBeLessThan(count * 4 * 0.011);
  });

  it("goes wrong with thousands of keys: here they sync at once", async () => {
    const { states, results } = await transfer((peer) =>
      Object.fromEntries(
        Array.from({ length: 5_000 }, (_, i) => [`layer ${i}`, Int32Array.of(i, i % 7 === 0 ? peer : 0)]),
      ),
    );
    expect(results[1]?.changedKeys).toHaveLength(715);
    for (const [name, tensor] of states[0]?.tensors ?? [])
      expect(states[1]?.tensors.get(name)).toEqual(tensor);
  });

  it("serves what is being written to: here the writer is told, and nobody takes it", async () => {
    await using world = await LocalWorld.start(2);
    const [writer, reader] = world.peers as [Communicator, Communicator];
    const weights = new Float32Array(100_000).fill(1);
    const own = new Float32Array(100_000);
    const serving = writer.syncSharedState(new SharedState({ weights }, { revision: 1 }));
    await expect.poll(() => world.coordinator.peers()[0]?.waitsIn).toBe("syncSharedState");
    // Hashed by now, and offered.
    weights[77_777] = 2;
    const fetching = reader.syncSharedState(new SharedState({ weights: own }, { revision: 0 }));
    expect(await codesOf([serving, fetching])).toEqual([
      "ERR_PCCL_STATE_CHANGED",
      "ERR_PCCL_STATE_FETCH_FAILED",
    ]);
    await expect(serving).rejects.toThrow(/tensor "weights" was written to/);
    expect(own).toEqual(new Float32Array(100_000));
    // What was fetched is kept: when the writer offers what it has now, the other leaves needn't come again.
    const states = [
      new SharedState({ weights }, { revision: 1 }),
      new SharedState({ weights: own }, { revision: 0 }),
    ];
    const [, again] = await syncAll(world.peers, states);
    expect(own).toEqual(weights);
    expect(again?.rxBytes).toBeLessThan(4 * 65_536);
  });
});

describe("allowInequality", () => {
  it("leaves a tensor alone, but for who joins", async () => {
    await using world = await LocalWorld.start(1);
    const state = (weights: number, own: number, revision: number): SharedState =>
      new SharedState(
        { weights: value(weights), own: { data: value(own), allowInequality: true } },
        { revision },
      );
    const first = state(1, 10, 0);
    await world.peers[0]?.syncSharedState(first);
    const { admitted } = await world.register();
    await world.peers[0]?.updateTopology();
    await admitted;
    const second = state(2, 20, 0);
    const joined = await syncAll(world.peers, [first, second]);
    expect(joined[1]?.changedKeys).toEqual(["weights", "own"]);
    valueOf(second, "own").set(value(30));
    expect((await syncAll(world.peers, [first, second])).map(({ changedKeys }) => changedKeys)).toEqual([
      [],
      [],
    ]);
    expect(valueOf(second, "own")).toEqual(value(30));
    expect(valueOf(first, "own")).toEqual(value(10));
  });
});
