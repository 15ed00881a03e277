/**
 * Goal: one peer's outer steps are exactly the algorithm's, and what goes wrong is typed. Method: real
 * communicators and a real coordinator, all in this process.
 */
import { type Communicator, connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { DiLoCo, fromViews, OuterOptimizer, ParameterArena } from "@pccl/core/diloco";
import { afterEach, describe, expect, it, vi } from "vitest";
import { createParameters, INNER_STEPS, innerStep } from "./fixtures/toy-model.mjs";

const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const one of open.splice(0).toReversed()) await one.close();
});

/** A world of `size` admitted peers. */
async function world(size: number): Promise<Communicator[]> {
  const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: size });
  open.push(coordinator);
  const peers = await Promise.all(Array.from({ length: size }, () => connect(coordinator.address)));
  open.push(...peers);
  return peers;
}

function withCode(code: string): unknown {
  return expect.objectContaining({ code });
}

describe("a world of one", () => {
  it("trains bit for bit like local steps with the outer optimizer", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const arena = createParameters();
    const diloco = await DiLoCo.join(communicator, { parameters: arena, innerSteps: INNER_STEPS });
    expect(diloco.index).toBe(0);

    const { data: global } = createParameters();
    const momentum = new Float32Array(global.length);
    const optimizer = new OuterOptimizer();
    for (let outer = 1; outer <= 5; outer++) {
      let result: Awaited<ReturnType<DiLoCo["step"]>>;
      let lossSum = 0;
      for (let inner = 1; inner <= INNER_STEPS; inner++) {
        expect(result).toBeUndefined();
        const loss = innerStep(arena.data, 0);
        lossSum += loss;
        result = await diloco.step({ loss });
      }
      const local = global.slice();
      for (let inner = 0; inner < INNER_STEPS; inner++) innerStep(local, 0);
      optimizer.step(
        global,
        momentum,
        global.map((value, i) => value - (local[i] as number)),
      );
      expect([...arena.data]).toEqual([...global]);
      expect(result).toMatchObject({ index: outer, worldSize: 1, retriedOps: 0, repairedKeys: [] });
      expect(result?.loss).toBeCloseTo(lossSum / INNER_STEPS, 5);
      expect(result?.seconds.computing).toBeGreaterThanOrEqual(0);
      expect(result?.seconds.waiting).toBeGreaterThan(0);
    }
    expect(Object.keys(diloco.hashes)).toEqual(["parameters/w", "parameters/b", "momentum/w", "momentum/b"]);
  });

  it("refuses parameters with NaN before anything changes, and goes on with finite ones", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const weights = Float32Array.of(1, 2, 3);
    const bias = Float32Array.of(4);
    const diloco = await DiLoCo.join(communicator, {
      parameters: fromViews({ weights, bias }),
      outer: { learningRate: 1, momentum: 0 },
    });
    weights[1] = Number.NaN;
    await expect(diloco.outerStep()).rejects.toThrow(withCode("ERR_PCCL_NOT_FINITE"));
    await expect(diloco.outerStep()).rejects.toThrow(/"weights".*NaN at element 1/);
    expect(diloco.index).toBe(0);
    weights[1] = 7;
    expect(await diloco.outerStep()).toMatchObject({ index: 1, loss: undefined });
    expect([...weights, ...bias]).toEqual([1, 7, 3, 4]);
  });

  it("refuses a second outer step while one runs", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const diloco = await DiLoCo.join(communicator, { parameters: createParameters() });
    const first = diloco.outerStep();
    await expect(diloco.outerStep()).rejects.toThrow(withCode("ERR_PCCL_CALL_IN_PROGRESS"));
    expect((await first).index).toBe(1);
  });

  it("gives the same error again after one that is final", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const diloco = await DiLoCo.join(communicator, { parameters: createParameters() });
    await communicator.close();
    await expect(diloco.outerStep()).rejects.toThrow(withCode("ERR_PCCL_CLOSED"));
    await expect(diloco.step()).resolves.toBeUndefined();
    await expect(diloco.outerStep()).rejects.toThrow(withCode("ERR_PCCL_CLOSED"));
  });

  it.each([
    ["an unknown option", { innerStep: 5 }, "ERR_PCCL_UNKNOWN_OPTION"],
    ["NaN steps", { innerSteps: Number.NaN }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["no steps", { innerSteps: 0 }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["no time", { timeoutMs: 0 }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["an unknown outer option", { outer: { nesterov: true } }, "ERR_PCCL_UNKNOWN_OPTION"],
    ["a source that is none", { parameters: new Float32Array(3) }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["an infinite parameter", { parameters: infinite() }, "ERR_PCCL_NOT_FINITE"],
  ])("refuses %s at join, before the group is involved", async (_what, options, code) => {
    const [communicator] = (await world(1)) as [Communicator];
    const joining = DiLoCo.join(communicator, { parameters: createParameters(), ...options } as never);
    await expect(joining).rejects.toThrow(withCode(code));
    // The communicator is as usable as before.
    expect((await DiLoCo.join(communicator, { parameters: createParameters() })).index).toBe(0);
  });

  it("refuses a loss that is no number", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const diloco = await DiLoCo.join(communicator, { parameters: createParameters(), innerSteps: 1 });
    await expect(diloco.step({ loss: Number.NaN })).rejects.toThrow(withCode("ERR_PCCL_INVALID_ARGUMENT"));
    await expect(diloco.step({ los: 1 } as object)).rejects.toThrow(withCode("ERR_PCCL_UNKNOWN_OPTION"));
    expect((await diloco.step({ loss: 2 }))?.loss).toBe(2);
  });
});

describe("several peers", () => {
  it("average their work, and the losses of those that give one", async () => {
    const peers = await world(3);
    const outer = { learningRate: 1, momentum: 0 };
    const losses = [3, undefined, 5];
    const results = await Promise.all(
      peers.map(async (peer, i) => {
        const arena = new ParameterArena({ w: [2] });
        const diloco = await DiLoCo.join(peer, { parameters: arena, innerSteps: 1, outer });
        arena.view("w").set([3 * i, -6 * i]);
        const loss = losses[i];
        return { arena, step: await diloco.step(loss === undefined ? {} : { loss }), diloco };
      }),
    );
    for (const { arena, step, diloco } of results) {
      expect([...arena.data]).toEqual([3, -6]);
      expect(step).toMatchObject({ index: 1, worldSize: 3, retriedOps: 0 });
      expect(step?.loss).toBeCloseTo(4, 5);
      expect(diloco.hashes).toEqual(results[0]?.diloco.hashes);
    }
  });

  it("begin with the most frequent initial parameters", async () => {
    const peers = await world(3);
    const arenas = [5, 5, 8].map((value) => {
      const arena = new ParameterArena({ w: [4] });
      arena.data.fill(value);
      return arena;
    });
    await Promise.all(peers.map((peer, i) => DiLoCo.join(peer, { parameters: arenas[i] as ParameterArena })));
    expect(arenas.map(({ data }) => data[3])).toEqual([5, 5, 5]);
  });

  it("repair one that diverges, and tell it", async () => {
    const peers = await world(3);
    // The third applies another learning rate, as a wrongly configured peer would.
    const results = await Promise.all(
      peers.map(async (peer, i) => {
        const arena = createParameters();
        const diloco = await DiLoCo.join(peer, {
          parameters: arena,
          innerSteps: 1,
          outer: { learningRate: i === 2 ? 0.5 : 0.7 },
        });
        innerStep(arena.data, i);
        return { step: await diloco.step(), hashes: diloco.hashes, values: [...arena.data] };
      }),
    );
    expect(results.map(({ step }) => step?.repairedKeys)).toEqual([[], [], ["parameters/w", "parameters/b"]]);
    for (const { hashes, values } of results) {
      expect(hashes).toEqual(results[0]?.hashes);
      expect(values).toEqual(results[0]?.values);
    }
  });

  it("refuse each other when their models differ", async () => {
    const peers = await world(2);
    const arenas = [new ParameterArena({ w: [4] }), new ParameterArena({ w: [5] })];
    const joins = await Promise.allSettled(
      peers.map((peer, i) => DiLoCo.join(peer, { parameters: arenas[i] as ParameterArena })),
    );
    for (const join of joins) {
      expect(join).toMatchObject({ status: "rejected", reason: { code: "ERR_PCCL_STATE_MISMATCH" } });
    }
  });

  it("wait for one whose parameters aren't finite, until it calls again or leaves", async () => {
    const peers = await world(3);
    const arenas = peers.map(() => createParameters());
    const all = await Promise.all(
      peers.map((peer, i) => DiLoCo.join(peer, { parameters: arenas[i] as ParameterArena })),
    );
    const [last, arena] = [all[2] as DiLoCo, arenas[2] as ParameterArena];
    const finite = arena.data[0] as number;

    arena.data[0] = Number.NaN;
    const first = all.slice(0, 2).map((diloco) => diloco.outerStep());
    await expect(last.outerStep()).rejects.toThrow(withCode("ERR_PCCL_NOT_FINITE"));
    arena.data[0] = finite;
    for (const step of await Promise.all([...first, last.outerStep()])) {
      expect(step).toMatchObject({ index: 1, worldSize: 3 });
    }

    arena.data[0] = Number.POSITIVE_INFINITY;
    const second = all.slice(0, 2).map((diloco) => diloco.outerStep());
    await expect(last.outerStep()).rejects.toThrow(withCode("ERR_PCCL_NOT_FINITE"));
    await peers[2]?.close();
    for (const step of await Promise.all(second)) expect(step).toMatchObject({ index: 2, worldSize: 2 });
  });

  it("can bound an outer step in time, and go on when another one withdraws", async () => {
    const [first, second] = (await world(2)) as [Communicator, Communicator];
    const [patient, hasty] = await Promise.all([
      DiLoCo.join(first, { parameters: createParameters() }),
      DiLoCo.join(second, { parameters: createParameters(), timeoutMs: 60_000 }),
    ]);
    for (let attempt = 0; attempt < 2; attempt++) {
      // A minute that is over at once: the attempt at the end needs one that isn't.
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      const late = hasty.outerStep().catch((error: unknown) => error);
      await new Promise((resolve) => setImmediate(resolve));
      vi.advanceTimersByTime(60_000);
      vi.useRealTimers();
      expect(String(await late)).toMatch(
        new RegExp(`timed out after (59\\d{3}|60000) ms: .* not called yet by peer ${first.peerId}`),
      );
    }
    expect(hasty.index).toBe(0);
    // The other one finds that what it waits for has been withdrawn, and waits for the next attempt.
    for (const step of await Promise.all([patient.outerStep(), hasty.outerStep()])) {
      expect(step).toMatchObject({ index: 1, worldSize: 2 });
    }
  });

  it("can be stopped by a signal while they wait for the others", async () => {
    const [first, second] = (await world(2)) as [Communicator, Communicator];
    const stop = new AbortController();
    const reason = new Error("enough");
    const [diloco] = await Promise.all([
      DiLoCo.join(first, { parameters: createParameters(), signal: stop.signal }),
      DiLoCo.join(second, { parameters: createParameters() }),
    ]);
    const waiting = diloco.outerStep();
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(diloco.step()).rejects.toBe(reason);
  });
});

function infinite(): ParameterArena {
  const arena = createParameters();
  arena.view("b")[1] = Number.POSITIVE_INFINITY;
  return arena;
}
