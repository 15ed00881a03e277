/**
 * Goal: calls that overlap in time on one communicator end as each would alone, or with their own error.
 * Method: two peers in this process, and the overlaps that a training loop with work in the background makes.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Communicator, connect, PcclError, SharedState } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";

let coordinator: Coordinator;
let a: Communicator;
let b: Communicator;

beforeEach(async () => {
  coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 2 });
  [a, b] = await Promise.all([connect(coordinator.address), connect(coordinator.address)]);
});

afterEach(async () => {
  await Promise.all([a.close(), b.close()]);
  await coordinator.close();
});

const tensor = (): Float32Array => new Float32Array(100).fill(1);

describe("overlapping calls", () => {
  it("lets ops start while hasPendingPeers waits for the others", async () => {
    const asked = a.hasPendingPeers();
    const op = a.allReduce(tensor());
    expect((await b.allReduce(tensor())).worldSize).toBe(2);
    expect((await op).worldSize).toBe(2);
    expect(await b.hasPendingPeers()).toBe(false);
    expect(await asked).toBe(false);
  });

  it("may abort the signal of an op right after closing", async () => {
    const controller = new AbortController();
    const op = a.allReduce(tensor(), undefined, { signal: controller.signal });
    const closing = a.close();
    controller.abort();
    await expect(op).rejects.toMatchObject({ code: "ERR_PCCL_CLOSED" });
    await closing;
  });

  it("says that the coordinator is gone, not that the sync's export is", async () => {
    const sync = a.syncSharedState(new SharedState({ w: tensor() }, { revision: 0 }));
    const outcome = sync.catch((error: unknown) => error);
    while (coordinator.peers().every(({ waitsIn }) => waitsIn === undefined)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await coordinator.close();
    const error = (await outcome) as PcclError;
    expect(error).toBeInstanceOf(PcclError);
    expect(error.code).toMatch(/ERR_PCCL_(REMOVED|COORDINATOR_LOST)/);
  });

  it("starts nothing of a list with a bad call in it", async () => {
    const good = { send: tensor() };
    const lists: [unknown, RegExp][] = [
      [[good, { send: new Float32Array(0) }], /calls\[1\]/],
      [[good, undefined], /calls\[1\]/],
      [[good, { send: tensor(), tag: 0 }], /tag 0/],
      [[good, { send: tensor(), op: "mean" }], /"mean"/],
    ];
    for (const [list, message] of lists) {
      const call = a.allReduceAll(list as { send: Float32Array }[]);
      await expect(call).rejects.toMatchObject({ code: "ERR_PCCL_INVALID_ARGUMENT" });
      await expect(call).rejects.toThrow(message);
    }
    // Had one been started, the tags' numbers would differ between the peers, and this would be cancelled.
    const both = await Promise.all([a.allReduceAll([good]), b.allReduceAll([{ send: tensor() }])]);
    expect(both.map(({ retriedOps }) => retriedOps)).toEqual([0, 0]);
  });

  it("warns of nothing when many ops share one signal", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    const { signal } = new AbortController();
    const calls = (): { send: Float32Array }[] => Array.from({ length: 16 }, () => ({ send: tensor() }));
    await Promise.all([a, b].map((peer) => peer.allReduceAll(calls(), { maxInFlight: 16, signal })));
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });

  it("refuses what is no signal", async () => {
    const signal = {} as AbortSignal;
    const code = "ERR_PCCL_INVALID_ARGUMENT";
    await expect(a.allReduce(tensor(), undefined, { signal })).rejects.toMatchObject({ code });
    await expect(a.allReduceAll([], { signal })).rejects.toMatchObject({ code });
    await expect(connect(coordinator.address, { signal })).rejects.toMatchObject({ code });
    const onPending = 5 as unknown as () => void;
    await expect(connect(coordinator.address, { onPending })).rejects.toMatchObject({ code });
  });
});
