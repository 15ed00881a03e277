/** Goal: a buffer can't be taken from under native code by transferring it. */
import { markAsUntransferable } from "node:worker_threads";
import { loadAddon } from "@pccl/bindings";
import { afterAll, beforeAll, expect, it } from "vitest";
import { pair, type Peer } from "./fixtures/peer.mjs";

let peers: [Peer, Peer];
beforeAll(async () => {
  peers = await pair();
});
afterAll(() => {
  for (const peer of peers) peer.close();
});

function tryToTransfer(array: Float32Array<ArrayBuffer>): void {
  try {
    structuredClone(0, { transfer: [array.buffer] });
  } catch {
    // Node 20 ignores a marked buffer in a transfer list, later versions refuse it.
  }
}

it("keeps the buffer of an op in flight where it is", () => {
  const [send, recv, exported] = [1, 2, 3].map((value) => new Float32Array(4).fill(value)) as [
    Float32Array<ArrayBuffer>,
    Float32Array<ArrayBuffer>,
    Float32Array<ArrayBuffer>,
  ];
  const { engine } = peers[0];
  const id = engine.start({ kind: "all-reduce", send, recv, op: "sum", tag: 1n });
  const exportId = engine.exportState([{ name: "a", data: exported }]);
  for (const array of [send, recv, exported]) {
    tryToTransfer(array);
    expect(array.length).toBe(4);
  }
  engine.cancel(id);
  engine.releaseState(exportId);
});

it("leaves a buffer alone that native code refused", () => {
  const array = new Float32Array(4);
  expect(() =>
    peers[0].engine.start({ kind: "all-reduce", send: array, recv: new Float32Array(5), op: "sum", tag: 1n }),
  ).toThrow();
  tryToTransfer(array);
  expect(array.length).toBe(0);
});

it("accepts buffers of whole WebAssembly pages, used before or marked by their owner", () => {
  const engine = loadAddon().createEngine({ host: "127.0.0.1", port: 0 }, () => {});
  const pages = new Float32Array(2 * 65_536);
  for (const round of [0, 1]) engine.exportState([{ name: `pages ${round}`, data: pages }]);
  const buffer = new ArrayBuffer(65_536 - 4);
  markAsUntransferable(buffer);
  engine.exportState([{ name: "marked", data: new Float32Array(buffer) }]);
  engine.close();
});
