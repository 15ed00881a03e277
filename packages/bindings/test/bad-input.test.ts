/** Goal: every refusal is an Error with the right code, and leaves the engine as it was. */
import { type Engine, type EngineEvent, type FetchCall, loadAddon, type Tensor } from "@pccl/bindings";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { pair, Peer, viewOf, within } from "./fixtures/peer.mjs";

const code = (name: string) => expect.objectContaining({ name: "Error", code: `ERR_PCCL_${name}` });
const INVALID = code("INVALID_ARGUMENT");
const f32 = (length: number): Float32Array<ArrayBuffer> => new Float32Array(length);
/** What a caller without types can pass. */
const any = <T>(value: unknown): T => value as T;
/** Its type is in the DOM library, which nothing else here needs. */
const WasmMemory = (
  globalThis as unknown as {
    WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } };
  }
).WebAssembly.Memory;
const HASH = "0".repeat(32);

let peers: [Peer, Peer];
beforeAll(async () => {
  peers = await pair();
});
afterAll(() => {
  for (const peer of peers) peer.close();
});

function detached(): Float32Array {
  const array = f32(4);
  structuredClone(array, { transfer: [array.buffer] });
  return array;
}

const resizable = (): Float32Array => {
  const options = { maxByteLength: 64 };
  return new Float32Array(
    new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer)(16, options),
  );
};

const growable = (): Float32Array => {
  const options = { maxByteLength: 64 };
  const shared = SharedArrayBuffer as unknown as new (n: number, o: object) => SharedArrayBuffer;
  return new Float32Array(new shared(16, options));
};

describe("allReduce refuses", () => {
  const tensors: [string, () => unknown][] = [
    ["nothing", () => undefined],
    ["an array", () => [1, 2, 3, 4]],
    ["a bare buffer", () => new ArrayBuffer(16)],
    ["a bare shared buffer", () => new SharedArrayBuffer(16)],
    ["a DataView", () => new DataView(new ArrayBuffer(16))],
    ["a Uint8ClampedArray", () => new Uint8ClampedArray(4)],
    ["an object with a hostile constructor", () => ({ constructor: undefined })],
    ["an object without a prototype", () => Object.create(null)],
    ["a detached array", detached],
    ["an array over a resizable buffer", resizable],
    ["an array over a growable shared buffer", growable],
    ["WebAssembly memory", () => new Float32Array(new WasmMemory({ initial: 1 }).buffer, 0, 4)],
  ];
  it.each(tensors)("%s as tensor", (_, make) => {
    const tensor = any<Tensor>(make());
    expect(() =>
      peers[0].engine.start({ kind: "all-reduce", send: tensor, recv: f32(4), op: "sum", tag: 1n }),
    ).toThrow(INVALID);
    expect(() =>
      peers[0].engine.start({ kind: "all-reduce", send: f32(4), recv: tensor, op: "sum", tag: 1n }),
    ).toThrow(INVALID);
    expect(() => peers[0].engine.exportState([{ name: "a", data: tensor }])).toThrow(INVALID);
  });

  const twice = f32(8);
  const calls: [string, (engine: Engine) => unknown][] = [
    [
      "different lengths",
      (engine) => engine.start({ kind: "all-reduce", send: f32(4), recv: f32(5), op: "sum", tag: 1n }),
    ],
    [
      "different types",
      (engine) =>
        engine.start({ kind: "all-reduce", send: f32(4), recv: new Int32Array(4), op: "sum", tag: 1n }),
    ],
    [
      "partial overlap",
      (engine) =>
        engine.start({
          kind: "all-reduce",
          send: twice.subarray(0, 4),
          recv: twice.subarray(2, 6),
          op: "sum",
          tag: 1n,
        }),
    ],
    [
      "an unknown op",
      (engine) =>
        engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: any("product"), tag: 1n }),
    ],
    [
      "an unknown dtype",
      (engine) =>
        engine.start({
          kind: "all-reduce",
          send: f32(4),
          recv: f32(4),
          op: "sum",
          tag: 1n,
          dtype: any("f8"),
        }),
    ],
    [
      "a dtype that the array doesn't hold",
      (engine) =>
        engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 1n, dtype: "bf16" }),
    ],
    [
      "a dtype of another size",
      (engine) =>
        engine.start({
          kind: "all-reduce",
          send: new Uint16Array(4),
          recv: new Uint16Array(4),
          op: "sum",
          tag: 1n,
          dtype: "f32",
        }),
    ],
    [
      "no op",
      (engine) =>
        engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: any(undefined), tag: 1n }),
    ],
    [
      "a number as tag",
      (engine) => engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: any(1) }),
    ],
    [
      "a negative tag",
      (engine) => engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: -1n }),
    ],
    [
      "a tag of 65 bits",
      (engine) => engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 2n ** 64n }),
    ],
  ];
  it.each(calls)("%s", (_, call) => {
    expect(() => call(peers[0].engine)).toThrow(INVALID);
  });
});

describe("other calls refuse", () => {
  const source = () => peers[1].member;
  const fetch: FetchCall = {
    exportId: 12_345,
    targets: [{ tensor: 0, hash: HASH }],
    sources: [{ peerId: 2, host: "127.0.0.1", port: 1, complete: true }],
    share: 0,
    shares: 1,
  };
  const calls: [string, (peer: Peer) => unknown][] = [
    [
      "ops from the control side",
      ({ control }) => control.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 1n }),
    ],
    ["views from the creating side", ({ engine }) => engine.prepare(viewOf(2, 1, [source()]), 1_000)],
    ["an install from the creating side", ({ engine }) => engine.install(2, [])],
    ["a second control side", ({ engine }) => loadAddon().attachEngine(engine.id, () => {})],
    ["an engine without number", () => loadAddon().attachEngine(any("1"), () => {})],
    [
      "an engine without callback",
      () => loadAddon().createEngine({ host: "127.0.0.1", port: 0 }, any(undefined)),
    ],
    ["a port out of range", () => loadAddon().createEngine({ host: "127.0.0.1", port: 65_536 }, () => {})],
    [
      "a host that is no address",
      () => loadAddon().createEngine({ host: "no such host", port: 0 }, () => {}),
    ],
    [
      "more connections than there may be",
      () => loadAddon().createEngine({ host: "127.0.0.1", port: 0, connectionsPerPeer: 65 }, () => {}),
    ],
    [
      "no ops in flight",
      () => loadAddon().createEngine({ host: "127.0.0.1", port: 0, opsInFlightMax: 0 }, () => {}),
    ],
    ["no options", () => loadAddon().createEngine(any(undefined), () => {})],
    ["an op id that is no integer", ({ engine }) => engine.cancel(0.5)],
    ["tensors that are no list", ({ engine }) => engine.exportState(any({}))],
    ["a tensor that is null", ({ engine }) => engine.exportState([any(null)])],
    ["a tensor without name", ({ engine }) => engine.exportState([any({ data: f32(1) })])],
    ["hashes of no export", ({ engine }) => engine.hashes(12_345)],
    ["a release of no export", ({ engine }) => engine.releaseState(12_345)],
    ["a fetch of nothing", ({ engine }) => engine.fetchState(any(undefined))],
    ["a fetch from nowhere", ({ engine }) => engine.fetchState({ ...fetch, sources: [] })],
    ["a fetch from null", ({ engine }) => engine.fetchState({ ...fetch, sources: [any(null)] })],
    ["a fetch of null", ({ engine }) => engine.fetchState({ ...fetch, targets: [any(null)] })],
    ["a fetch for no export", ({ engine }) => engine.fetchState(fetch)],
    ["a share out of range", ({ engine }) => engine.fetchState({ ...fetch, share: 1 })],
    ["a commit of no export", ({ engine }) => engine.commitState(12_345)],
    ["a changed tensor of no export", ({ engine }) => engine.changedTensor(12_345)],
    [
      "a hash too short",
      ({ engine }) => engine.fetchState({ ...fetch, targets: [{ tensor: 0, hash: "00" }] }),
    ],
    [
      "a hash that isn't hex",
      ({ engine }) => engine.fetchState({ ...fetch, targets: [{ tensor: 0, hash: "g".repeat(32) }] }),
    ],
    ["no view", ({ control }) => control.prepare(any(undefined), 1_000)],
    ["an epoch that isn't exact", ({ control }) => control.prepare(viewOf(2 ** 53, 1, [source()]), 1_000)],
    ["a negative peer id", ({ control }) => control.prepare(viewOf(2, -1, [source()]), 1_000)],
    ["a ring without this peer", ({ control }) => control.prepare(viewOf(2, 1, [source()]), 1_000)],
    [
      "a key of another length",
      ({ control, member }) => control.prepare({ ...viewOf(2, 1, [member]), key: new Uint8Array(15) }, 1_000),
    ],
    [
      "a silence shorter than can be watched for",
      ({ control, member }) => control.prepare({ ...viewOf(2, 1, [member]), silenceMs: 499 }, 1_000),
    ],
    [
      "a relay for this peer itself",
      ({ control, member }) =>
        control.prepare({ ...viewOf(2, 1, [member]), relays: [{ a: 1, b: 2 }] }, 1_000),
    ],
    ["a world older than the view", ({ control }) => control.setWorld(0, 2)],
    ["a world without peers", ({ control }) => control.setWorld(1, 0)],
    ["a world from the creating side", ({ engine }) => engine.setWorld(1, 2)],
    ["an abort from the creating side", ({ engine }) => engine.abortIfMissing(1, { tag: 1n, seq: 0 }, 2)],
    ["no timeout", ({ control, member }) => control.prepare(viewOf(2, 1, [member]), any(undefined))],
    ["an install of what isn't prepared", ({ control }) => control.install(77, [])],
    ["a verdict without tag", ({ control }) => control.install(77, [any({ seq: 0, commit: true })])],
  ];
  it.each(calls)("%s", (_, call) => {
    expect(() => call(peers[0])).toThrow(INVALID);
  });

  it("an address that isn't this machine's, and a port that is taken", () => {
    const listen = (host: string, port: number) => () => loadAddon().createEngine({ host, port }, () => {});
    // From the block that RFC 5737 keeps for documentation.
    expect(listen("192.0.2.1", 0)).toThrow(code("LISTEN_FAILED"));
    expect(listen("127.0.0.1", peers[0].engine.port)).toThrow(code("LISTEN_FAILED"));
  });

  it("ops before the first view", () => {
    const events: EngineEvent[] = [];
    const engine = loadAddon().createEngine({ host: "127.0.0.1", port: 0 }, (batch) => events.push(...batch));
    expect(engine.view()).toBeUndefined();
    expect(() =>
      engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 1n }),
    ).toThrow(code("NOT_INSTALLED"));
    engine.close();
    expect(() =>
      engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 1n }),
    ).toThrow(code("CLOSED"));
    expect(events).toEqual([]);
  });
});

it("an engine that is closed by one of the call's own arguments refuses the call", () => {
  const open = () => loadAddon().createEngine({ host: "127.0.0.1", port: 0 }, () => {});
  const closing = (engine: Engine, entry: object) =>
    Object.defineProperty(entry, "name", {
      get: () => {
        engine.close();
        return "a";
      },
    });
  const exporting = open();
  expect(() => exporting.exportState([any(closing(exporting, { data: f32(1) }))])).toThrow(code("CLOSED"));
  const fetching = open();
  const call = { targets: [{ tensor: 0, hash: HASH }], sources: [], share: 0, shares: 1 };
  const closes = Object.defineProperty(call, "exportId", { get: () => (fetching.close(), 1) });
  expect(() => fetching.fetchState(any(closes))).toThrow(code("CLOSED"));
  const reducing = open();
  const tensor = f32(1);
  Object.defineProperty(tensor.buffer, "resizable", { get: () => reducing.close() });
  expect(() =>
    reducing.start({ kind: "all-reduce", send: tensor, recv: tensor, op: "sum", tag: 1n }),
  ).toThrow(code("CLOSED"));
});

describe("an op in flight", () => {
  let ids: number[] = [];
  const hold = (engine: Engine, tag: bigint, tensor = f32(4)): Float32Array => {
    ids.push(engine.start({ kind: "all-reduce", send: tensor, recv: tensor, op: "sum", tag }));
    return tensor;
  };
  afterEach(() => {
    for (const id of ids) expect(peers[0].engine.cancel(id)).toBe(true);
    ids = [];
  });

  it("holds its buffers and its tag", () => {
    const { engine } = peers[0];
    const tensor = hold(engine, 1n);
    expect(() =>
      engine.start({ kind: "all-reduce", send: tensor, recv: tensor, op: "sum", tag: 2n }),
    ).toThrow(code("BUFFER_IN_USE"));
    const overlapping = new Float32Array(tensor.buffer, 8, 2);
    expect(() =>
      engine.start({ kind: "all-reduce", send: f32(2), recv: overlapping, op: "sum", tag: 2n }),
    ).toThrow(code("BUFFER_IN_USE"));
    expect(() =>
      engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 1n }),
    ).toThrow(code("TAG_IN_USE"));
  });

  it("is one of a limited number", () => {
    const { engine } = peers[0];
    const fill = (): void => {
      for (let tag = 0n; tag < 1_000n; tag++) hold(engine, tag);
    };
    expect(fill).toThrow(code("TOO_MANY_OPS"));
    expect(ids.length).toBeGreaterThanOrEqual(16);
  });
});

// With tags of their own: an op is told apart by how often its tag was used, on either peer.
describe("an op fails on both peers", () => {
  const failure = (name: string) => ({ type: "op-failed", error: { code: `ERR_PCCL_${name}` } });

  it("when their calls differ", async () => {
    const sizes = [4, 5];
    const ops = peers.map((peer, i) => {
      const tensor = f32(sizes[i] as number).fill(i);
      return {
        tensor,
        ...peer.start((engine) =>
          engine.start({ kind: "all-reduce", send: tensor, recv: tensor, op: "sum", tag: 5_000n }),
        ),
      };
    });
    const ends = await within("the ops' end", Promise.all(ops.map(({ ended }) => ended)));
    expect(ends).toMatchObject([failure("DESCRIPTOR_MISMATCH"), failure("DESCRIPTOR_MISMATCH")]);
    expect(ops.map(({ tensor }) => [...tensor])).toEqual([
      [0, 0, 0, 0],
      [1, 1, 1, 1, 1],
    ]);
  });

  it("when one is cancelled", async () => {
    const [first, second] = peers;
    const start = (peer: Peer) =>
      peer.start((engine) =>
        engine.start({ kind: "all-reduce", send: f32(4), recv: f32(4), op: "sum", tag: 6_000n }),
      );
    const op = start(first);
    expect(first.engine.cancel(op.id)).toBe(true);
    expect(await within("the cancelled op's end", op.ended)).toMatchObject(failure("CANCELLED"));
    expect(await within("its partner's end", start(second).ended)).toMatchObject(failure("CANCELLED"));
    expect(first.engine.cancel(op.id)).toBe(false);
  });
});
