/**
 * Goal: bad input gives a typed error that says what to do, before anything changes, and leaves nothing running.
 * Method: one communicator in this process, a table of calls, and a good call after each.
 */
import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Communicator, connect, PcclError, SharedState } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";

let coordinator: Coordinator;
let comm: Communicator;

beforeAll(async () => {
  coordinator = await Coordinator.start({ listen: "127.0.0.1:0" });
  comm = await connect(coordinator.address);
});

afterAll(async () => {
  await comm.close();
  await coordinator.close();
});

async function failure(call: () => unknown): Promise<PcclError> {
  try {
    await call();
  } catch (error) {
    expect(error).toBeInstanceOf(PcclError);
    return error as PcclError;
  }
  throw new Error("the call did not fail");
}

function detached(): Float32Array {
  const array = new Float32Array(4);
  structuredClone(array, { transfer: [array.buffer] });
  return array;
}

const bad = <T>(value: unknown): T => value as T;

describe("allReduce", () => {
  const good = (): Float32Array => new Float32Array(4);
  const resizable = new Float32Array(
    new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer)(16, { maxByteLength: 64 }),
  );
  // Its type is in the DOM library, which nothing else here needs.
  const { WebAssembly } = globalThis as unknown as {
    WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } };
  };
  const wasm = new Float32Array(new WebAssembly.Memory({ initial: 1 }).buffer, 0, 4);
  const table: [string, () => Promise<unknown>, string, RegExp][] = [
    ["no tensor", () => comm.allReduce(bad(undefined)), "ERR_PCCL_INVALID_ARGUMENT", /send must be/],
    ["a plain array", () => comm.allReduce(bad([1, 2])), "ERR_PCCL_INVALID_ARGUMENT", /Array/],
    [
      "an unsupported type",
      () => comm.allReduce(bad(new Uint8ClampedArray(4))),
      "ERR_PCCL_INVALID_ARGUMENT",
      /got Uint8ClampedArray/,
    ],
    [
      "f16 in a Float32Array",
      () => comm.allReduce(good(), good(), { dtype: "f16" }),
      "ERR_PCCL_INVALID_ARGUMENT",
      /dtype of a Float32Array must be one of f32, got "f16"/,
    ],
    [
      "f32 in a Uint16Array",
      () => comm.allReduce(new Uint16Array(4), new Uint16Array(4), { dtype: "f32" }),
      "ERR_PCCL_INVALID_ARGUMENT",
      /dtype of a Uint16Array must be one of u16, f16, bf16/,
    ],
    ["count 0", () => comm.allReduce(new Float32Array(0)), "ERR_PCCL_INVALID_ARGUMENT", /at least 1/],
    [
      "lengths",
      () => comm.allReduce(good(), new Float32Array(5)),
      "ERR_PCCL_INVALID_ARGUMENT",
      /same type and length/,
    ],
    [
      "types",
      () => comm.allReduce(good(), new Float64Array(4)),
      "ERR_PCCL_INVALID_ARGUMENT",
      /same type and length/,
    ],
    ["a detached buffer", () => comm.allReduce(detached()), "ERR_PCCL_INVALID_ARGUMENT", /detached/],
    ["a resizable buffer", () => comm.allReduce(resizable), "ERR_PCCL_INVALID_ARGUMENT", /resizable/],
    ["WebAssembly memory", () => comm.allReduce(wasm), "ERR_PCCL_INVALID_ARGUMENT", /WebAssembly/],
    [
      "an unknown option",
      () => comm.allReduce(good(), good(), bad({ opp: "sum" })),
      "ERR_PCCL_UNKNOWN_OPTION",
      /"opp"/,
    ],
    [
      "an unknown op",
      () => comm.allReduce(good(), good(), { op: bad("mean") }),
      "ERR_PCCL_INVALID_ARGUMENT",
      /"mean"/,
    ],
    [
      "a NaN tag",
      () => comm.allReduce(good(), good(), { tag: Number.NaN }),
      "ERR_PCCL_INVALID_ARGUMENT",
      /NaN/,
    ],
    ["a negative tag", () => comm.allReduce(good(), good(), { tag: -1 }), "ERR_PCCL_INVALID_ARGUMENT", /-1/],
    [
      "a tag of 2^64",
      () => comm.allReduce(good(), good(), { tag: 2n ** 64n }),
      "ERR_PCCL_INVALID_ARGUMENT",
      /tag/,
    ],
  ];

  it.each(table)("refuses %s", async (_name, call, code, message) => {
    const error = await failure(call);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect((await comm.allReduce(good())).worldSize).toBe(1);
  });

  it("refuses buffers that overlap partly", async () => {
    const memory = new Float32Array(6);
    const error = await failure(() => comm.allReduce(memory.subarray(0, 4), memory.subarray(2, 6)));
    expect(error.code).toBe("ERR_PCCL_INVALID_ARGUMENT");
  });
});

describe("two peers in this process", () => {
  it("refuses a buffer or tag of an op in flight, and calls that exclude each other", async () => {
    await using own = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 2 });
    const peers = await Promise.all([connect(own.address), connect(own.address)]);
    const [a, b] = peers;
    try {
      const buffer = new Float32Array(100).fill(1);
      const op = a.allReduce(buffer, undefined, { tag: 1 });
      expect((await failure(() => a.allReduce(buffer, undefined, { tag: 2 }))).code).toBe(
        "ERR_PCCL_BUFFER_IN_USE",
      );
      const inside = buffer.subarray(10, 20);
      expect((await failure(() => a.allReduce(inside, undefined, { tag: 2 }))).code).toBe(
        "ERR_PCCL_BUFFER_IN_USE",
      );
      const other = new Float32Array(100);
      expect((await failure(() => a.allReduce(other, undefined, { tag: 1 }))).code).toBe(
        "ERR_PCCL_TAG_IN_USE",
      );
      expect((await failure(() => a.updateTopology())).code).toBe("ERR_PCCL_OPS_IN_FLIGHT");
      await b.allReduce(new Float32Array(100).fill(2), undefined, { tag: 1 });
      await op;
      expect(buffer.every((value) => value === 3)).toBe(true);
      const vote = a.updateTopology();
      expect((await failure(() => a.allReduce(other))).code).toBe("ERR_PCCL_CALL_IN_PROGRESS");
      expect((await failure(() => a.hasPendingPeers())).code).toBe("ERR_PCCL_CALL_IN_PROGRESS");
      await b.updateTopology();
      expect(await vote).toBe(false);
    } finally {
      await Promise.all(peers.map((peer) => peer.close()));
    }
  });

  it("refuses more ops in flight than the limit, and runs the rest", async () => {
    await using own = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 2 });
    const peers = await Promise.all([connect(own.address), connect(own.address)]);
    const [a, b] = peers;
    try {
      const ops = Array.from({ length: 16 }, (_, tag) =>
        a.allReduce(new Float32Array(8), undefined, { tag }),
      );
      const error = await failure(() => a.allReduce(new Float32Array(8), undefined, { tag: 16 }));
      expect(error.code).toBe("ERR_PCCL_TOO_MANY_OPS");
      await Promise.all(ops.map((_, tag) => b.allReduce(new Float32Array(8), undefined, { tag })));
      await Promise.all(ops);
    } finally {
      await Promise.all(peers.map((peer) => peer.close()));
    }
  });
});

describe("other calls", () => {
  it("refuses bad lists and options of allReduceAll", async () => {
    expect((await failure(() => comm.allReduceAll(bad({})))).code).toBe("ERR_PCCL_INVALID_ARGUMENT");
    expect((await failure(() => comm.allReduceAll([], { maxInFlight: Number.NaN }))).code).toBe(
      "ERR_PCCL_INVALID_ARGUMENT",
    );
    const misspelt = bad<{ send: Float32Array }>({ send: new Float32Array(1), receive: new Float32Array(1) });
    expect((await failure(() => comm.allReduceAll([misspelt]))).code).toBe("ERR_PCCL_UNKNOWN_OPTION");
  });

  it("refuses bad shared states", async () => {
    const tensors = { w: new Float32Array(4) };
    for (const revision of [Number.NaN, -1, 1.5, undefined]) {
      expect((await failure(() => new SharedState(tensors, { revision: bad(revision) }))).code).toBe(
        "ERR_PCCL_INVALID_ARGUMENT",
      );
    }
    expect((await failure(() => new SharedState({}, { revision: 0 }))).code).toBe(
      "ERR_PCCL_INVALID_ARGUMENT",
    );
    expect((await failure(() => new SharedState({ w: bad([1]) }, { revision: 0 }))).code).toBe(
      "ERR_PCCL_INVALID_ARGUMENT",
    );
    expect((await failure(() => comm.syncSharedState(bad(tensors)))).code).toBe("ERR_PCCL_INVALID_ARGUMENT");
  });

  it("is of no use after close, except for its last view", async () => {
    await using own = await Coordinator.start({ listen: "127.0.0.1:0" });
    const closed = await connect(own.address);
    await closed.close();
    await closed.close();
    expect((await failure(() => closed.allReduce(new Float32Array(1)))).code).toBe("ERR_PCCL_CLOSED");
    expect((await failure(() => closed.hasPendingPeers())).code).toBe("ERR_PCCL_CLOSED");
    expect(closed.worldSize).toBe(1);
  });
});

describe("connect", () => {
  it.each(["", "host:", "host:99999", "a b:1", ":1", 5])("refuses the address %j", async (address) => {
    expect((await failure(() => connect(bad(address)))).code).toBe("ERR_PCCL_INVALID_ARGUMENT");
  });

  it("refuses unknown and ill-typed options", async () => {
    const address = coordinator.address;
    expect((await failure(() => connect(address, bad({ grp: 1 })))).code).toBe("ERR_PCCL_UNKNOWN_OPTION");
    expect((await failure(() => connect(address, { group: Number.NaN }))).code).toBe(
      "ERR_PCCL_INVALID_ARGUMENT",
    );
    expect((await failure(() => connect(address, { listen: "nonsense:x" }))).code).toBe(
      "ERR_PCCL_INVALID_ARGUMENT",
    );
  });

  it("says that no coordinator answers", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    const error = await failure(() => connect(`127.0.0.1:${port}`, { connectTimeoutMs: 500 }));
    expect(error.code).toBe("ERR_PCCL_COORDINATOR_UNREACHABLE");
    expect(error.message).toContain(String(port));
  });

  it("says that what answers is no coordinator", async () => {
    const server = createServer((socket) =>
      socket
        .resume()
        .on("error", () => {})
        .end("HTTP/1.1 400 Bad Request\r\n\r\n"),
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const error = await failure(() => connect(`127.0.0.1:${port}`, { connectTimeoutMs: 500 }));
    expect(error.code).toBe("ERR_PCCL_COORDINATOR_UNREACHABLE");
    await new Promise((resolve) => server.close(resolve));
  });

  it("says that the data port is taken", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const error = await failure(() => connect(coordinator.address, { listen: `127.0.0.1:${port}` }));
    expect(error.code).toBe("ERR_PCCL_LISTEN_FAILED");
    await new Promise((resolve) => server.close(resolve));
  });

  it("gives up waiting for admission when the signal fires", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    await expect(
      connect(coordinator.address, { signal: controller.signal, onPending: () => controller.abort(reason) }),
    ).rejects.toBe(reason);
    expect(await comm.hasPendingPeers()).toBe(false);
  });
});
