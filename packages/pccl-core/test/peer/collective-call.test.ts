/** Goal: what can't work is refused before anything is started, with a word about what is wrong. Method: the checks alone. */
import { describe, expect, it } from "vitest";
import {
  callName,
  checkAllGather,
  checkAllReduce,
  checkAllToAll,
  checkBarrier,
  checkBroadcast,
  checkGather,
  checkRecv,
  checkReduceScatter,
  checkScatter,
  checkSend,
} from "../../src/peer/collective-call.js";

const f32 = (length: number): Float32Array => new Float32Array(length);
/** Peer 7 of three; ranks 0, 1 and 2. */
const group = { peerId: 7, peers: [3, 7, 5] };
const INVALID = "ERR_PCCL_INVALID_ARGUMENT";

describe("checks of collectives", () => {
  const whole = f32(30);
  const refused: [string, () => unknown, RegExp, string?][] = [
    ["no tensor", () => checkAllReduce([1], undefined), /^allReduce: send must be one of .*, got Array/],
    [
      "another length",
      () => checkAllReduce(f32(2), f32(3)),
      /send \(Float32Array of 2\) .* same type and length/,
    ],
    ["another type", () => checkAllReduce(f32(2), new Int32Array(2)), /same type and length/],
    ["an unknown op", () => checkAllReduce(f32(1), undefined, { op: "or" as "sum" }), /op must be one of/],
    [
      "a strange option",
      () => checkAllReduce(f32(1), undefined, { root: 1 } as object),
      /"root"/,
      "ERR_PCCL_UNKNOWN_OPTION",
    ],
    [
      "a negative tag",
      () => checkBarrier({ tag: -1 }),
      /^barrier: tag must be an integer from 0 to 2\^64-1, got -1/,
    ],
    ["a tag that is too large", () => checkBarrier({ tag: 2n ** 64n }), /tag must be/],
    [
      "a dtype for a barrier",
      () => checkBarrier({ dtype: "f32" } as object),
      /"dtype"/,
      "ERR_PCCL_UNKNOWN_OPTION",
    ],
    [
      "a reduceScatter of equal lengths",
      () => checkReduceScatter(group, f32(3), f32(3), {}),
      /reduceScatter: send \(Float32Array of 3\) and recv \(Float32Array of 3\) don't fit: with 3 members in the group send must have 3 times the length of recv/,
    ],
    ["a block of itself", () => checkReduceScatter(group, whole, whole.subarray(0, 10), {}), /overlap/],
    [
      "an allGather of other types",
      () => checkAllGather(group, f32(1), new Float64Array(3), {}),
      /same type/,
    ],
    [
      "an allGather that is short",
      () => checkAllGather(group, f32(2), f32(5), {}),
      /recv must have 3 times .* send/,
    ],
    [
      "an allGather from another one's block",
      () => checkAllGather(group, whole.subarray(0, 10), whole, {}),
      /send and recv overlap/,
    ],
    [
      "a broadcast without a root",
      () => checkBroadcast(group, f32(1), {} as { root: number }),
      /root must be .* \(3, 7, 5\), got undefined/,
    ],
    ["a broadcast without options", () => checkBroadcast(group, f32(1), undefined as never), /root must be/],
    [
      "a root that isn't there",
      () => checkBroadcast(group, f32(1), { root: 4 }),
      /member of the group \(3, 7, 5\), got 4/,
    ],
    ["a rank as root", () => checkGather(group, f32(1), f32(3), { root: 0 }), /got 0/],
    [
      "a gather's recv that isn't the root's",
      () => checkGather(group, f32(1), f32(3), { root: 3 }),
      /recv is for the root \(peer 3\) alone/,
    ],
    [
      "a root without recv",
      () => checkGather(group, f32(1), undefined, { root: 7 }),
      /recv must be one of .*, got undefined/,
    ],
    [
      "a gather that is short",
      () => checkGather(group, f32(2), f32(4), { root: 7 }),
      /recv must have 3 times/,
    ],
    [
      "a scatter's send that isn't the root's",
      () => checkScatter(group, f32(3), f32(1), { root: 5 }),
      /send is for the root \(peer 5\) alone/,
    ],
    [
      "a scatter that is short",
      () => checkScatter(group, f32(4), f32(2), { root: 7 }),
      /send must have 3 times/,
    ],
    [
      "a scatter within one array",
      () => checkScatter(group, whole, whole.subarray(10, 20), { root: 7 }),
      /overlap/,
    ],
    [
      "blocks that aren't whole",
      () => checkAllToAll(group, f32(4), f32(4), {}),
      /4 elements can't be cut into 3 equal blocks/,
    ],
    ["an allToAll in place", () => checkAllToAll(group, whole, whole, {}), /overlap/],
    [
      "one of two counts",
      () => checkAllToAll(group, f32(3), f32(3), { sendCounts: [1, 1, 1] }),
      /recvCounts must be an array with a count for each of the 3 members, got undefined/,
    ],
    [
      "too few counts",
      () => checkAllToAll(group, f32(2), f32(3), { sendCounts: [1, 1], recvCounts: [1, 1, 1] }),
      /sendCounts must .* got 2 of them/,
    ],
    [
      "half an element",
      () => checkAllToAll(group, f32(3), f32(3), { sendCounts: [1.5, 1, 0.5], recvCounts: [1, 1, 1] }),
      /sendCounts\[0\] must be an integer/,
    ],
    [
      "a negative count",
      () => checkAllToAll(group, f32(1), f32(3), { sendCounts: [-1, 1, 1], recvCounts: [1, 1, 1] }),
      /sendCounts\[0\]/,
    ],
    [
      "counts that don't fill the buffer",
      () => checkAllToAll(group, f32(4), f32(3), { sendCounts: [1, 1, 1], recvCounts: [1, 1, 1] }),
      /sendCounts add up to 3, and send has 4 elements/,
    ],
    [
      "another count for oneself",
      () => checkAllToAll(group, f32(3), f32(3), { sendCounts: [1, 1, 1], recvCounts: [1, 0, 2] }),
      /of this peer itself \(rank 1\) differ: 1 and 0/,
    ],
    ["a send to oneself", () => checkSend(group, f32(1), { to: 7 }), /send: to is this peer itself \(7\)/],
    ["a send to nobody", () => checkSend(group, f32(1), undefined as never), /to must be the id of a member/],
    ["a recv from a stranger", () => checkRecv(group, f32(1), { from: 9 }), /from must be .* got 9/],
    ["an empty send", () => checkSend(group, f32(0), { to: 3 }), /at least 1 element, got 0/],
    [
      "an op for a send",
      () => checkSend(group, f32(1), { to: 3, op: "sum" } as { to: number }),
      /"op"/,
      "ERR_PCCL_UNKNOWN_OPTION",
    ],
    [
      "f16 in another array",
      () => checkSend(group, f32(1), { to: 3, dtype: "f16" }),
      /dtype of a Float32Array must be one of f32/,
    ],
  ];
  it.each(refused)("refuse %s", (_, check, message, code = INVALID) => {
    expect(check).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  it("give what the engine takes, with defaults filled in", () => {
    const [send, recv] = [f32(10), f32(30)];
    expect(checkAllReduce(send, undefined)).toEqual({
      kind: "all-reduce",
      send,
      recv: send,
      op: "sum",
      dtype: "f32",
      tag: 0n,
    });
    expect(checkReduceScatter(group, recv, send, { op: "max", tag: 3 })).toMatchObject({
      op: "max",
      tag: 3n,
    });
    const bits = new Uint16Array(4);
    expect(checkBroadcast(group, bits, { root: 5, dtype: "bf16" })).toEqual({
      kind: "broadcast",
      data: bits,
      root: 5,
      dtype: "bf16",
      tag: 0n,
    });
    expect(checkGather(group, send, undefined, { root: 3 })).not.toHaveProperty("recv");
    expect(checkScatter(group, recv, send, { root: 7 })).toMatchObject({ send: recv, recv: send });
    expect(checkRecv(group, send, { from: 3, tag: 2n ** 64n - 1n })).toMatchObject({
      from: 3,
      tag: 2n ** 64n - 1n,
    });
  });

  it("take the own block in place, counts of 0, and buffers next to each other", () => {
    expect(() => checkAllGather(group, whole.subarray(10, 20), whole, {})).not.toThrow();
    expect(() =>
      checkScatter(group, whole.subarray(0, 15), whole.subarray(15, 20), { root: 7 }),
    ).not.toThrow();
    const counts = { sendCounts: [0, 0, 0], recvCounts: [2, 0, 0] };
    expect(checkAllToAll(group, f32(0), f32(2), counts)).toMatchObject(counts);
  });

  it("name calls as the methods are", () => {
    expect(["all-to-all", "reduce-scatter", "send"].map((kind) => callName(kind as "send"))).toEqual([
      "allToAll",
      "reduceScatter",
      "send",
    ]);
  });
});
