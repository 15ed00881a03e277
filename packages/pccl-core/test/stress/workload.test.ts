/** Goal: no wrong element of a result goes unnoticed. Method: sums of peers' contributions made here, then spoilt. */
import { describe, expect, it } from "vitest";
import { Workload } from "../../src/stress/workload.js";

const IDS = [3, 14, 159, 2_653];

/** What an all-reduce would leave in the tensors of one peer. */
function reduced(ids: readonly number[]): Workload {
  const mine = new Workload();
  const others = ids.map((id) => new Workload().calls(id));
  mine.calls(ids[0] as number);
  mine.tensors.forEach(({ recv }, op) => {
    recv.fill(0);
    for (const calls of others) {
      const { send } = calls[op] as { send: Float32Array };
      for (let i = 0; i < recv.length; i++) recv[i] = (recv[i] as number) + (send[i] as number);
    }
  });
  return mine;
}

const sizes = (count: number): number[] => new Array<number>(11).fill(count);

describe("the workload of a stress run", () => {
  it("is ten matrices of 128 × 128 and one tensor of 4 MiB", () => {
    expect(new Workload().tensors.map(({ send }) => send.length)).toEqual([
      ...new Array<number>(10).fill(128 * 128),
      2 ** 20,
    ]);
  });

  it("accepts right sums, of any set of peers", () => {
    expect(reduced(IDS).wrong(sizes(4))).toBeUndefined();
    expect(reduced([7]).wrong(sizes(1))).toBeUndefined();
  });

  it.each([
    ["one element is off by one", (t: Float32Array) => t.set([(t[777] as number) + 1], 777)],
    ["one element lacks its last contribution", (t: Float32Array) => t.set([0], 1_234)],
    ["two chunks have changed places", (t: Float32Array) => t.copyWithin(8_192, 4_096, 8_192)],
    ["the ids don't fit", (t: Float32Array) => t.set([5], 1)],
  ])("notices that %s", (_, spoil) => {
    for (const op of [0, 1, 10]) {
      const work = reduced(IDS);
      spoil((work.tensors[op] as { recv: Float32Array }).recv);
      expect(work.wrong(sizes(4))).toMatch(new RegExp(`^op ${op}: element`));
    }
  });

  it("notices a result of fewer peers than it says, and one of another step", () => {
    expect(reduced(IDS).wrong(sizes(3))).toBe("op 0: combined 4 contributions, but says that there were 3");
    const work = reduced(IDS);
    work.steps[0] = 1;
    expect(work.wrong(sizes(4))).toMatch(/^op 0: element/);
  });

  it("makes every result a part of the state", () => {
    const before = reduced(IDS);
    before.fold();
    expect(before.steps[0]).toBe(1);
    for (let op = 0; op < 11; op++) {
      const work = reduced(IDS);
      const { recv } = work.tensors[op] as { recv: Float32Array };
      recv.set([(recv[999] as number) + 1], 999);
      work.fold();
      expect(work.hash(), `op ${op}`).not.toBe(before.hash());
    }
  });
});
