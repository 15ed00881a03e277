/** Goal: exported tensors reach another engine bit for bit, and stay pinned as long as they are exported. */
import type { OpEvent } from "@pccl/bindings";
import { afterEach, beforeEach, expect, it } from "vitest";
import { pair, type Peer, within } from "./fixtures/peer.mjs";

let peers: [Peer, Peer];
beforeEach(async () => {
  peers = await pair();
});
afterEach(() => {
  for (const peer of peers) peer.close();
});

const ended = async (op: { ended: Promise<OpEvent> }): Promise<OpEvent> =>
  await within("the op's end", op.ended);

it("hashes, serves and fetches tensors by name", async () => {
  const [source, sink] = peers;
  const weights = Float32Array.from({ length: 100_003 }, (_, i) => Math.sin(i));
  const steps = Int32Array.from({ length: 7 }, (_, i) => i - 3);
  const exported = source.start((engine) =>
    engine.exportState([
      { name: "weights", data: weights },
      { name: "steps", data: steps },
    ]),
  );
  expect(await ended(exported)).toMatchObject({ type: "op-done" });
  const hashes = source.engine.hashes(exported.id);
  expect(hashes.map(({ name }) => name)).toEqual(["weights", "steps"]);
  for (const { hash } of hashes) expect(hash).toMatch(/^[0-9a-f]{32}$/);

  const into = [new Float32Array(weights.length), new Int32Array(steps.length)] as const;
  const fetched = sink.start((engine) =>
    engine.fetchState(
      source.member,
      hashes.map(({ name, hash }, i) => ({ name, hash, into: into[i] as Float32Array | Int32Array })),
    ),
  );
  const bytes = weights.byteLength + steps.byteLength;
  expect(await ended(fetched)).toMatchObject({ type: "op-done", rxBytes: bytes });
  expect(into).toEqual([weights, steps]);
  expect(source.engine.releaseState(exported.id)).toBe(bytes);
  expect(() => source.engine.hashes(exported.id)).toThrow(
    expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
  );
});

it("hashes the XXH3-128 of the bytes", async () => {
  const [source] = peers;
  const data = Int32Array.of(1, 2, 3);
  const exported = source.start((engine) => engine.exportState([{ name: "steps", data }]));
  await ended(exported);
  // What the reference implementation gives for these 12 little-endian bytes, in its canonical form.
  const hash = "a76f94d1118f3bcfe6d1006dda205ce7";
  expect(source.engine.hashes(exported.id)).toEqual([{ name: "steps", hash }]);
});

it("ends an export that is released while it is being hashed", async () => {
  const [source] = peers;
  const exported = source.start((engine) =>
    engine.exportState([{ name: "large", data: new Float32Array(1 << 24) }]),
  );
  expect(source.engine.releaseState(exported.id)).toBe(0);
  expect(await ended(exported)).toMatchObject({ id: exported.id });
  expect(() => source.engine.releaseState(exported.id)).toThrow(
    expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
  );
});

it("refuses bytes that don't have the announced hash, and a name that isn't exported", async () => {
  const [source, sink] = peers;
  const exported = source.start((engine) =>
    engine.exportState([{ name: "weights", data: new Float32Array(100).fill(1) }]),
  );
  await ended(exported);
  for (const [name, hash] of [
    ["weights", "0".repeat(32)],
    ["biases", source.engine.hashes(exported.id)[0]?.hash as string],
  ] as const) {
    const into = new Float32Array(100).fill(5);
    const fetched = sink.start((engine) => engine.fetchState(source.member, [{ name, hash, into }]));
    expect(await ended(fetched)).toMatchObject({
      type: "op-failed",
      error: { code: "ERR_PCCL_STATE_FETCH_FAILED" },
    });
  }
});
