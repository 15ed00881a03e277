/**
 * Goal: every call ends by its signal or its timeout, says for whom it waited, leaves nothing half done, and can be
 * made again. Method: two peers in this process, of which one doesn't call.
 */
import { execFile } from "node:child_process";
import { createServer } from "node:net";
import { promisify } from "node:util";
import { connect, CoordinatorUnreachableError, PcclTimeoutError, SharedState } from "@pccl/core";
import type { CallOptions, Communicator } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { describe, expect, it } from "vitest";
import { closing, until, waiting, world } from "./world.js";

const tensor = (value = 1): Float32Array => new Float32Array(100).fill(value);
const state = (): SharedState => new SharedState({ w: tensor() }, { revision: 0 });

/** Every collective call. */
const CALLS: readonly [string, (peer: Communicator, options: CallOptions) => Promise<unknown>][] = [
  ["hasPendingPeers", (peer, options) => peer.hasPendingPeers(options)],
  ["updateTopology", (peer, options) => peer.updateTopology(options)],
  ["syncSharedState", (peer, options) => peer.syncSharedState(state(), options)],
  ["allReduce", (peer, options) => peer.allReduce(tensor(), undefined, options)],
  ["allReduceAll", (peer, options) => peer.allReduceAll([{ send: tensor() }, { send: tensor() }], options)],
];

/** Ops are matched by their order: the other peer's next one is the one that was withdrawn. */
async function expectWithdrawn(call: Promise<unknown>): Promise<void> {
  await expect(call).rejects.toMatchObject({ code: "ERR_PCCL_CANCELLED", peerId: 1, epoch: 1 });
}

describe.each(CALLS)("%s", (name, call) => {
  it("times out when the other peer doesn't call it, and can be made again", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const error = await call(a, { timeoutMs: 50 }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(PcclTimeoutError);
    expect(error).toMatchObject({ code: "ERR_PCCL_TIMEOUT", retryable: true, cause: expect.any(Error) });
    expect((error as Error).message).toMatch(new RegExp(`^${name}.*: timed out after 50 ms: .*peer 2`));
    if (name.startsWith("allReduce")) await expectWithdrawn(call(b, {}));
    await Promise.all([a, b].map((peer) => call(peer, { timeoutMs: 60_000 })));
  });

  it("rejects with the signal's reason, and can be made again", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const controller = new AbortController();
    const reason = new Error("enough");
    const waits = call(a, { signal: controller.signal, timeoutMs: 60_000 });
    setTimeout(() => controller.abort(reason), 20);
    await expect(waits).rejects.toBe(reason);
    await expect(call(a, { signal: controller.signal })).rejects.toBe(reason);
    if (name.startsWith("allReduce")) await expectWithdrawn(call(b, {}));
    await Promise.all([a, b].map((peer) => call(peer, {})));
  });

  it("takes no limit that is none", async () => {
    const { peers } = await world(1);
    const [a] = peers as [Communicator];
    for (const timeoutMs of [0, -1, 1.5, Number.NaN, 2 ** 31, "5" as unknown as number]) {
      await expect(call(a, { timeoutMs })).rejects.toMatchObject({
        code: "ERR_PCCL_INVALID_ARGUMENT",
        message: expect.stringContaining("timeoutMs must be an integer from 1 to 2147483647"),
      });
    }
    const signal = {} as AbortSignal;
    await expect(call(a, { signal })).rejects.toMatchObject({ code: "ERR_PCCL_INVALID_ARGUMENT" });
    const mistyped = { timeout: 5 } as CallOptions;
    await expect(call(a, mistyped)).rejects.toMatchObject({ code: "ERR_PCCL_UNKNOWN_OPTION" });
    await expect(call(a, 5 as CallOptions)).rejects.toMatchObject({ code: "ERR_PCCL_INVALID_ARGUMENT" });
    await call(a, { timeoutMs: 2 ** 31 - 1, signal: undefined });
  });
});

describe("allReduce", () => {
  it("gives an array in place back when it times out, and the others retry without harm", async () => {
    const { peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    const values = tensor(3);
    await expect(a.allReduce(values, undefined, { timeoutMs: 20 })).rejects.toThrow(PcclTimeoutError);
    expect([...new Set(values)]).toEqual([3]);
    await expectWithdrawn(b.allReduce(tensor(4)));
    const other = tensor(4);
    await Promise.all([a.allReduce(values), b.allReduce(other)]);
    expect([...new Set([...values, ...other])]).toEqual([7]);
  });

  it("times out while it waits for a free slot's op in a list, without making it again", async () => {
    const { peers } = await world(2);
    const [a] = peers as [Communicator];
    const sends = [1, 2, 3].map(tensor);
    const list = a.allReduceAll(
      sends.map((send) => ({ send })),
      { maxInFlight: 1, timeoutMs: 50 },
    );
    await expect(list).rejects.toThrow(
      /^allReduceAll: timed out after 50 ms: allReduce with tag 0 .*not called yet by peer 2/,
    );
    expect(sends.map(([first]) => first)).toEqual([1, 2, 3]);
  });
});

describe("syncSharedState", () => {
  it("may be withdrawn while it hashes", async () => {
    const { peers } = await world(1);
    const [a] = peers as [Communicator];
    const large = new SharedState({ w: new Float32Array(1 << 22) }, { revision: 0 });
    const controller = new AbortController();
    const sync = a.syncSharedState(large, { signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(sync).rejects.toThrow("enough");
    expect(await a.syncSharedState(large)).toMatchObject({ revision: 0 });
  });
});

describe("connect", () => {
  it("times out while it waits for admission, and leaves", async () => {
    const coordinator = closing(await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 2 }));
    // Longer each time, until it comes as far as to wait.
    let message = "hasn't registered";
    for (let timeoutMs = 200; message.includes("hasn't registered"); timeoutMs *= 2) {
      const error = await connect(coordinator.address, { timeoutMs }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(PcclTimeoutError);
      ({ message } = error as Error);
    }
    expect(message).toMatch(
      /^connect: timed out after \d+ ms: peer \d+, .* every member calls updateTopology/,
    );
    await until(() => coordinator.peers().length === 0);
  });

  it("times out on a server that accepts and says nothing", async () => {
    const silent = createServer().listen(0, "127.0.0.1");
    await until(() => silent.listening);
    const { port } = silent.address() as { port: number };
    try {
      const address = `127.0.0.1:${port}`;
      await expect(connect(address, { timeoutMs: 100 })).rejects.toThrow(/timed out .* hasn't registered/);
      // The time to reach it at all is another limit.
      await expect(connect(address, { connectTimeoutMs: 100, timeoutMs: 60_000 })).rejects.toThrow(
        CoordinatorUnreachableError,
      );
    } finally {
      silent.close();
    }
  });

  it("rejects with the signal's reason, whenever it aborts", async () => {
    const coordinator = closing(await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 2 }));
    const reason = new Error("enough");
    await expect(connect(coordinator.address, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const joining = connect(coordinator.address, {
      signal: controller.signal,
      timeoutMs: 60_000,
      onPending: () => controller.abort(reason),
    });
    await expect(joining).rejects.toBe(reason);
    await until(() => coordinator.peers().length === 0);
  });

  it.each([
    ["maxOpsInFlight", [0, 257, 1.5]],
    ["connectionsPerPeer", [0, 65, Number.NaN]],
    ["coordinatorTimeoutMs", [0, 2 ** 31]],
    ["timeoutMs", [0, 2 ** 31]],
  ])("refuses %s of %j", async (name, values) => {
    for (const value of values) {
      await expect(connect("127.0.0.1:1", { [name]: value })).rejects.toMatchObject({
        code: "ERR_PCCL_INVALID_ARGUMENT",
        message: expect.stringContaining(`${name} must be an integer from 1 to`),
      });
    }
  });
});

describe("a limit that isn't reached", () => {
  it("keeps no process alive", async () => {
    const coordinator = closing(await Coordinator.start({ listen: "127.0.0.1:0" }));
    const program = `
      import { connect } from "@pccl/core";
      const limits = { timeoutMs: 2 ** 31 - 1, signal: new AbortController().signal };
      const peer = await connect("${coordinator.address}", limits);
      await peer.updateTopology(limits);
      await peer.allReduce(new Float32Array(4), undefined, limits);
      console.log("done");`;
    const args = ["--input-type=module", "--eval", program];
    expect((await promisify(execFile)(process.execPath, args, { timeout: 50_000 })).stdout).toBe("done\n");
  });
});

describe("a withdrawn vote", () => {
  it("is taken back: the others' call waits for the next one", async () => {
    const { coordinator, peers } = await world(2);
    const [a, b] = peers as [Communicator, Communicator];
    await expect(a.updateTopology({ timeoutMs: 20 })).rejects.toThrow(PcclTimeoutError);
    const other = b.updateTopology();
    await waiting(coordinator, 2);
    expect(await Promise.all([a.updateTopology(), other])).toEqual([false, false]);
  });
});
