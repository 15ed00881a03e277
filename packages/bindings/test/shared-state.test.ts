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
  const own = sink.start((engine) => engine.exportState(into.map((data, i) => ({ name: `own ${i}`, data }))));
  await ended(own);
  const fetched = sink.start((engine) =>
    engine.fetchState({
      exportId: own.id,
      targets: hashes.map(({ hash }, tensor) => ({ tensor, hash })),
      sources: [{ ...source.member, complete: true }],
      share: 0,
      shares: 1,
    }),
  );
  expect(await ended(fetched)).toMatchObject({ type: "op-done", sources: [source.member.peerId] });
  // Nothing has changed before the commit.
  expect(into[1]).toEqual(new Int32Array(steps.length));
  expect(await ended(sink.start((engine) => engine.commitState(own.id)))).toMatchObject({ type: "op-done" });
  expect(into).toEqual([weights, steps]);
  const bytes = weights.byteLength + steps.byteLength;
  // And the hashes of seven leaves.
  expect(source.engine.releaseState(exported.id)).toBe(bytes + 7 * 16);
  expect(() => source.engine.hashes(exported.id)).toThrow(
    expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }),
  );
});

it("gives the root of the tree of XXH3-128", async () => {
  const [source] = peers;
  const data = Int32Array.of(1, 2, 3);
  const exported = source.start((engine) => engine.exportState([{ name: "steps", data }]));
  await ended(exported);
  // The one leaf's hash is a76f94d1118f3bcfe6d1006dda205ce7; this is what the reference implementation gives for
  // these 16 bytes, in its canonical form.
  const hash = "c12f6592cb96e1234e824defd5ebe75e";
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

it("keeps the tensors as they are when nobody exports what is wanted", async () => {
  const [source, sink] = peers;
  const weights = new Float32Array(100).fill(5);
  const own = sink.start((engine) => engine.exportState([{ name: "weights", data: weights }]));
  await ended(own);
  const fetched = sink.start((engine) =>
    engine.fetchState({
      exportId: own.id,
      targets: [{ tensor: 0, hash: "0".repeat(32) }],
      sources: [{ ...source.member, complete: true }],
      share: 0,
      shares: 1,
    }),
  );
  expect(await ended(fetched)).toMatchObject({
    type: "op-failed",
    error: { code: "ERR_PCCL_STATE_FETCH_FAILED" },
  });
  sink.engine.releaseState(own.id);
  expect(weights).toEqual(new Float32Array(100).fill(5));
});
