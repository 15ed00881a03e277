/**
 * The original's end-to-end scenarios, by their numbers in its list. Here: the arithmetic of an all-reduce, element
 * by element against sums made here. Method: peers in this process; values whose sums are exact in every type.
 * Scenario 40, reduction over 8-bit codes, comes with quantization.
 */
import { afterAll, describe, expect, it } from "vitest";
import type { ReduceOp, Tensor } from "@pccl/core";
import { LocalWorld } from "../local-world.js";

/** Reduces leave nothing behind that another one could notice, so a world of each size is enough. */
const worlds = new Map<number, Promise<LocalWorld>>();

async function worldOf(size: number): Promise<LocalWorld> {
  const world = worlds.get(size) ?? LocalWorld.start(size);
  worlds.set(size, world);
  return await world;
}

afterAll(async () => {
  for (const world of worlds.values()) await (await world)[Symbol.asyncDispose]();
});

const KINDS = { f32: Float32Array, f64: Float64Array, i32: Int32Array } as const;
type Kind = keyof typeof KINDS;

const contribution = (peer: number, i: number): number => ((i * 7 + peer * 13) % 101) - 50;

function expected(op: ReduceOp, peers: number, i: number, kind: Kind): number {
  const values = Array.from({ length: peers }, (_, peer) => contribution(peer, i));
  if (op === "max") return Math.max(...values);
  if (op === "min") return Math.min(...values);
  const sum = values.reduce((a, b) => a + b, 0);
  if (op === "sum") return sum;
  // Adding 0 turns -0, which Math.trunc gives and an Int32Array can't hold, into 0.
  return kind === "i32" ? Math.trunc(sum / peers) + 0 : Math.fround(sum / peers);
}

/** One reduce on all peers, in place or not; every element of every result is compared. */
async function check(size: number, kind: Kind, op: ReduceOp, count: number, inPlace: boolean): Promise<void> {
  const { peers } = await worldOf(size);
  const tensor = (element: (i: number) => number): Tensor => {
    const values = new KINDS[kind](count);
    for (let i = 0; i < count; i++) values[i] = element(i);
    return values;
  };
  const sends = peers.map((_, peer) => tensor((i) => contribution(peer, i)));
  const recvs = inPlace ? sends : sends.map(() => new KINDS[kind](count));
  const results = await Promise.all(
    peers.map((peer, i) => peer.allReduce(sends[i] as Tensor, recvs[i] as Tensor, { op })),
  );
  expect(results.map(({ worldSize }) => worldSize)).toEqual(peers.map(() => size));
  expectEach(
    recvs,
    tensor((i) => expected(op, size, i, kind)),
    `${kind} ${op} of ${count} on ${size}`,
  );
  if (inPlace) return;
  // What is sent stays as it was.
  for (const [peer, send] of sends.entries())
    expectEach(
      [send],
      tensor((i) => contribution(peer, i)),
      "sent",
    );
}

/** vitest compares element by element and takes seconds for some hundred thousand. */
function expectEach(tensors: readonly Tensor[], want: Tensor, what: string): void {
  for (const tensor of tensors) {
    const index = [...tensor].findIndex((element, i) => element !== want[i]);
    expect(index, `${what}: the first wrong element`).toBe(-1);
  }
}

const ALL_KINDS = ["f32", "f64", "i32"] as const;

/** Numbers out of place and in place, peers, elements, operations. */
const SCENARIOS: readonly (readonly [string, string, number, number, readonly ReduceOp[]])[] = [
  ["28", "29", 2, 203_530, ["sum"]],
  ["30", "31", 3, 2, ["sum"]],
  ["32", "33", 3, 3, ["sum"]],
  ["34", "35", 4, 2, ["sum"]],
  ["36, 37, 38", "36, 37, 38 (beyond the list)", 2, 1_024, ["avg", "min", "max"]],
  ["39", "39 (beyond the list)", 3, 1_025, ["sum"]],
];

describe("all-reduce", () => {
  for (const [outNumber, inNumber, size, count, ops] of SCENARIOS) {
    for (const inPlace of [false, true]) {
      const title = `${ops.join(", ")} of ${count} elements of every type on ${size} peers`;
      it(`${inPlace ? inNumber : outNumber} · ${title}, ${inPlace ? "in" : "out of"} place`, async () => {
        for (const kind of ALL_KINDS) {
          for (const op of ops) await check(size, kind, op, count, inPlace);
        }
      });
    }
  }

  it.each([1, 5, 8, 10])("beyond the list · many chunks, and one element, on %i peers", async (size) => {
    for (const inPlace of [false, true]) {
      await check(size, "f32", "sum", 300_001, inPlace);
      await check(size, "i32", "max", 1, inPlace);
    }
  });
});
