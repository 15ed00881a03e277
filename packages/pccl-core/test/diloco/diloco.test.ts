/**
 * Goal: one peer's outer steps are exactly the algorithm's, and what goes wrong is typed. Method: real
 * communicators and a real coordinator, all in this process.
 */
import type { Communicator } from "@pccl/core";
import { Diloco, fromViews, ParameterArena } from "@pccl/core/diloco";
import { describe, expect, it, vi } from "vitest";
import { nesterovStep } from "./fixtures/reference.mjs";
import { createParameters, INNER_STEPS, innerStep } from "./fixtures/toy-model.mjs";
import { innerAndOuter, startWorld, withCode, world } from "./fixtures/world.js";

describe("a world of one", () => {
  it("trains bit for bit like local steps with the outer optimizer", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const arena = createParameters();
    const diloco = new Diloco({ communicator, parameters: arena, innerSteps: INNER_STEPS });
    await diloco.join();
    expect(diloco.index).toBe(0);

    const { data: global } = createParameters();
    const momentum = new Float32Array(global.length);
    for (let outer = 1; outer <= 5; outer++) {
      let result: Awaited<ReturnType<Diloco["endStep"]>>;
      let lossSum = 0;
      for (let inner = 1; inner <= INNER_STEPS; inner++) {
        expect(result).toBeUndefined();
        await diloco.beginStep();
        const loss = innerStep(arena.data, 0);
        lossSum += loss;
        result = await diloco.endStep({ loss });
      }
      const local = global.slice();
      for (let inner = 0; inner < INNER_STEPS; inner++) innerStep(local, 0);
      const delta = global.map((value, i) => value - (local[i] as number));
      nesterovStep(global, momentum, delta, 0.7, 0.9);
      expect([...arena.data]).toEqual([...global]);
      expect([...diloco.parameters]).toEqual([...global]);
      expect(result).toMatchObject({ index: outer, worldSize: 1, contributors: 1, retriedOps: 0 });
      expect(result).toMatchObject({ repairedKeys: [], suspects: [], digest: diloco.digest });
      expect(result?.loss).toBeCloseTo(lossSum / INNER_STEPS, 5);
      expect(result?.seconds.computing).toBeGreaterThanOrEqual(0);
      expect(result?.seconds.waiting).toBeGreaterThan(0);
    }
    expect(diloco.digest).toMatch(/^[0-9a-f]{32}$/);
  });

  it("runs the loop itself, over views of the caller's, and tells every outer step", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const arena = createParameters();
    const [w, b] = [arena.view("w").slice(), arena.view("b").slice()];
    const diloco = new Diloco({ communicator, parameters: fromViews({ w, b }), innerSteps: INNER_STEPS });
    const steps: number[] = [];
    diloco.on("outerStep", ({ index }) => steps.push(index));
    const flat = new Float32Array(8);
    await diloco.run({
      outerSteps: 3,
      innerStep: () => {
        flat.set([...w, ...b]);
        const loss = innerStep(flat, 0);
        w.set(flat.subarray(0, 6));
        b.set(flat.subarray(6));
        return { loss };
      },
    });
    expect(steps).toEqual([1, 2, 3]);
    expect([...w, ...b]).toEqual([...diloco.parameters]);
  });

  it("refuses a second call while one runs, and calls out of turn", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const diloco = new Diloco({ communicator, parameters: createParameters(), innerSteps: 1 });
    await expect(diloco.endStep()).rejects.toThrow(withCode("ERR_PCCL_INVALID_ARGUMENT"));
    await diloco.beginStep();
    await expect(diloco.beginStep()).rejects.toThrow(withCode("ERR_PCCL_INVALID_ARGUMENT"));
    const first = diloco.endStep();
    await expect(diloco.endStep()).rejects.toThrow(withCode("ERR_PCCL_CALL_IN_PROGRESS"));
    expect((await first)?.index).toBe(1);
  });

  it("gives the same error again after one that is final", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const diloco = new Diloco({ communicator, parameters: createParameters(), innerSteps: 1 });
    await diloco.beginStep();
    await communicator.close();
    await expect(diloco.endStep()).rejects.toThrow(withCode("ERR_PCCL_CLOSED"));
    await expect(diloco.beginStep()).rejects.toThrow(withCode("ERR_PCCL_CLOSED"));
    await expect(diloco.finish()).rejects.toThrow(withCode("ERR_PCCL_CLOSED"));
  });

  const refused: readonly (readonly [string, object, string])[] = [
    ["an unknown option", { innerStep: 5 }, "ERR_PCCL_UNKNOWN_OPTION"],
    ["NaN steps", { innerSteps: Number.NaN }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["no steps", { innerSteps: 0 }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["no time", { timeoutMs: 0 }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["an unknown outer option", { outer: { kind: "sgd", momentum: 1 } }, "ERR_PCCL_UNKNOWN_OPTION"],
    ["an unknown outer optimizer", { outer: { kind: "lion" } }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["an unknown schedule", { schedule: "sometimes" }, "ERR_PCCL_INVALID_ARGUMENT"],
    [
      "fragments that don't divide the steps",
      { schedule: streaming({ fragments: 3 }) },
      "ERR_PCCL_INVALID_ARGUMENT",
    ],
    ["too long a delay", { schedule: streaming({ delaySteps: 6 }) }, "ERR_PCCL_INVALID_ARGUMENT"],
    [
      "a fragment of no parameter",
      { schedule: streaming({ fragments: [["w"], ["c"]] }) },
      "ERR_PCCL_INVALID_ARGUMENT",
    ],
    [
      "a parameter in no fragment",
      { schedule: streaming({ fragments: [["w"]] }) },
      "ERR_PCCL_INVALID_ARGUMENT",
    ],
    ["an unknown wire", { wire: "f8" }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["a source that is none", { parameters: new Float32Array(3) }, "ERR_PCCL_INVALID_ARGUMENT"],
    ["no communicator", { communicator: {} }, "ERR_PCCL_INVALID_ARGUMENT"],
  ];
  it("refuses bad options at once", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    for (const [what, options, code] of refused) {
      const all = { communicator, parameters: createParameters(), innerSteps: 10, ...options } as never;
      expect(() => new Diloco(all), what).toThrow(withCode(code));
    }
  });

  it("refuses to join with parameters that aren't finite, before the group is involved", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const parameters = createParameters();
    parameters.view("b")[1] = Number.POSITIVE_INFINITY;
    const diloco = new Diloco({ communicator, parameters });
    await expect(diloco.join()).rejects.toThrow(/"b" has the value Infinity at element 1/);
    parameters.view("b")[1] = 1;
    await diloco.join();
    expect(diloco.index).toBe(0);
  });

  it("refuses a loss that is no number and asks for tokens that count", async () => {
    const [communicator] = (await world(1)) as [Communicator];
    const parameters = createParameters();
    const diloco = new Diloco({ communicator, parameters, innerSteps: 1, weighting: "tokens" });
    await diloco.beginStep();
    await expect(diloco.endStep({ loss: "2" } as never)).rejects.toThrow(
      withCode("ERR_PCCL_INVALID_ARGUMENT"),
    );
    await expect(diloco.endStep({ loss: 2 })).rejects.toThrow(/tokens/);
    await expect(diloco.endStep({ los: 1 } as object)).rejects.toThrow(withCode("ERR_PCCL_UNKNOWN_OPTION"));
    expect((await diloco.endStep({ loss: 2, tokens: 64 }))?.loss).toBe(2);
  });

  it("waits for another one if it is asked to", async () => {
    const coordinator = await startWorld();
    const first = await coordinator.connect();
    const waiting = new Diloco({
      communicator: first,
      parameters: createParameters(),
      innerSteps: 1,
      alone: "wait",
    });
    const joined = waiting.join();
    const second = await coordinator.connect();
    const other = new Diloco({ communicator: second, parameters: createParameters(), innerSteps: 1 });
    await Promise.all([joined, other.join()]);
    for (const step of await innerAndOuter([waiting, other])) expect(step?.worldSize).toBe(2);
  });
});

describe("several peers", () => {
  const plain = { kind: "sgd", learningRate: 1 } as const;

  /** Peers whose work in the only inner step is what they set their parameters to. */
  async function together(
    values: readonly (readonly number[])[],
    options: (i: number) => object,
    step: (i: number) => object,
  ) {
    const peers = await world(values.length);
    return await Promise.all(
      peers.map(async (communicator, i) => {
        const arena = new ParameterArena({ w: [2] });
        const diloco = new Diloco({
          communicator,
          parameters: arena,
          innerSteps: 1,
          outer: plain,
          ...options(i),
        });
        await diloco.beginStep();
        arena.data.set(values[i] as number[]);
        return { arena, diloco, step: await diloco.endStep(step(i)) };
      }),
    );
  }

  it("average their work, and the losses of those that give one", async () => {
    const losses = [3, undefined, 5];
    const results = await together(
      [
        [0, 0],
        [3, -6],
        [6, -12],
      ],
      () => ({}),
      (i) => (losses[i] === undefined ? {} : { loss: losses[i] }),
    );
    for (const { arena, step, diloco } of results) {
      expect(arena.data[0]).toBeCloseTo(3, 6);
      expect(arena.data[1]).toBeCloseTo(-6, 6);
      expect(step).toMatchObject({ index: 1, worldSize: 3, contributors: 3, retriedOps: 0, loss: 4 });
      expect(diloco.digest).toBe(results[0]?.diloco.digest);
      expect([...arena.data]).toEqual([...(results[0]?.arena.data ?? [])]);
    }
  });

  it("count by tokens, and an observer and one without tokens not at all", async () => {
    const tokens = [30, 10, 0, 50];
    const results = await together(
      [
        [4, 8],
        [8, 16],
        [100, 100],
        [200, 200],
      ],
      (i) => ({ weighting: "tokens", observer: i === 3 }),
      (i) => ({ tokens: tokens[i], loss: i }),
    );
    for (const { arena, step } of results) {
      expect([...arena.data]).toEqual([5, 10]);
      expect(step).toMatchObject({ worldSize: 4, contributors: 2, loss: 0.5 });
    }
  });

  it("leave out what isn't finite, tell who it was, and that peer goes on with the group", async () => {
    const suspects: unknown[] = [];
    const results = await together(
      [
        [2, 4],
        [Number.NaN, 1],
        [4, 8],
      ],
      () => ({ onSuspect: (suspect: object) => suspects.push(suspect) }),
      () => ({ loss: 1 }),
    );
    const culprit = results[1]?.step?.suspects[0]?.peerId;
    for (const { arena, step, diloco } of results) {
      expect([...arena.data]).toEqual([3, 6]);
      expect(step).toMatchObject({ worldSize: 3, contributors: 2, digest: results[0]?.diloco.digest });
      expect(step?.suspects).toEqual([
        { peerId: culprit, reason: "non-finite", norm: Number.NaN, medianNorm: undefined },
      ]);
      expect(diloco.digest).toBe(results[0]?.diloco.digest);
    }
    expect(suspects).toHaveLength(3);
  });

  it("leave out an outlier once they know what is usual, and take it for usual if it stays", async () => {
    const peers = await world(3);
    const arenas = peers.map(() => new ParameterArena({ w: [4] }));
    const all = peers.map(
      (communicator, i) =>
        new Diloco({ communicator, parameters: arenas[i] as ParameterArena, innerSteps: 1, outer: plain }),
    );
    const seen: (readonly [number, string][])[] = [];
    for (let step = 0; step < 14; step++) {
      const results = await innerAndOuter(all, (i) => {
        // From the fifth step on the third peer takes steps a thousand times too long, and in the end all do.
        const { data } = arenas[i] as ParameterArena;
        for (let k = 0; k < 4; k++)
          data[k] = (data[k] as number) + (step >= 8 || (i === 2 && step >= 4) ? 1000 : 1);
      });
      expect(new Set(results.map((result) => result?.digest)).size).toBe(1);
      seen.push((results[0]?.suspects ?? []).map(({ peerId, reason }) => [peerId, reason]));
    }
    const third = peers[2]?.peerId;
    expect(seen.slice(0, 4)).toEqual([[], [], [], []]);
    expect(seen.slice(4, 8)).toEqual(Array.from({ length: 4 }, () => [[third, "outlier"]]));
    expect(seen[8]).toHaveLength(3);
    expect(seen.at(-1)).toEqual([]);
    expect(arenas[2]?.data[0]).toBeGreaterThan(1000);
  });

  it("begin with the most frequent initial parameters", async () => {
    const peers = await world(3);
    const arenas = [5, 5, 8].map((value) => {
      const arena = new ParameterArena({ w: [4] });
      arena.data.fill(value);
      return arena;
    });
    await Promise.all(
      peers.map((communicator, i) =>
        new Diloco({ communicator, parameters: arenas[i] as ParameterArena }).join(),
      ),
    );
    expect(arenas.map(({ data }) => data[3])).toEqual([5, 5, 5]);
  });

  it.each(["sync", "async", "eager", streaming({ fragments: 2, delaySteps: 1 })] as const)(
    "repair one whose memory has changed before its next contribution counts: %j",
    async (schedule) => {
      const peers = await world(3);
      const arenas = peers.map(() => createParameters());
      const all = peers.map(
        (communicator, i) =>
          new Diloco({ communicator, parameters: arenas[i] as ParameterArena, innerSteps: 2, schedule }),
      );
      const step = async () =>
        await innerAndOuter(all, (i) => innerStep((arenas[i] as ParameterArena).data, i));
      for (let i = 0; i < 6; i++) await step();
      const damaged = (all[2] as Diloco).parameters;
      damaged[7] = (damaged[7] as number) + 1;
      // What the outer step itself computes is on the digest; a change from outside is seen when it is hashed again.
      const repaired: string[][] = [[], [], []];
      for (let i = 0; i < 8; i++) {
        for (const [peer, result] of (await step()).entries())
          repaired[peer]?.push(...(result?.repairedKeys ?? []));
      }
      expect(repaired).toEqual([[], [], expect.arrayContaining(["parameters/b"])]);
      await Promise.all(all.map((diloco) => diloco.finish()));
      expect(new Set(all.map(({ digest }) => digest)).size).toBe(1);
      for (const diloco of all) expect([...diloco.parameters]).toEqual([...(all[0] as Diloco).parameters]);
    },
  );

  it.each([
    ["models", [{}, { parameters: new ParameterArena({ w: [5] }) }]],
    ["settings", [{}, { outer: { kind: "nesterov", learningRate: 0.5 } }]],
  ])("refuse each other when their %s differ", async (_what, options) => {
    const peers = await world(2);
    const joins = await Promise.allSettled(
      peers.map((communicator, i) =>
        new Diloco({
          communicator,
          parameters: new ParameterArena({ w: [4] }),
          ...options[i],
        } as never).join(),
      ),
    );
    for (const join of joins) {
      expect(join).toMatchObject({ status: "rejected", reason: { code: "ERR_PCCL_STATE_MISMATCH" } });
    }
  });

  it("go on without a newcomer whose settings differ", async () => {
    const coordinator = await startWorld();
    const communicator = await coordinator.connect();
    const arena = createParameters();
    const diloco = new Diloco({ communicator, parameters: arena, innerSteps: 1 });
    await innerAndOuter([diloco]);
    const arrival = coordinator.connect();
    await coordinator.pending(1);
    const joining = arrival.then(async (newcomer) => {
      const other = new Diloco({ communicator: newcomer, parameters: createParameters(), innerSteps: 2 });
      const error: unknown = await other.join().catch((reason: unknown) => reason);
      await newcomer.close();
      return error;
    });
    await innerAndOuter([diloco]);
    expect(await joining).toMatchObject({ code: "ERR_PCCL_STATE_MISMATCH" });
    const [last] = await innerAndOuter([diloco]);
    expect(last).toMatchObject({ index: 3, worldSize: 1 });
  });

  it("can bound an outer step in time, and go on when another one withdraws", async () => {
    const [first, second] = (await world(2)) as [Communicator, Communicator];
    const patient = new Diloco({ communicator: first, parameters: createParameters(), innerSteps: 1 });
    const hasty = new Diloco({
      communicator: second,
      parameters: createParameters(),
      innerSteps: 1,
      timeoutMs: 60_000,
    });
    await Promise.all([patient.beginStep(), hasty.beginStep()]);
    for (let attempt = 0; attempt < 2; attempt++) {
      // A minute that is over at once: the attempt at the end needs one that isn't.
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      const late = hasty.endStep().catch((error: unknown) => error);
      // The op's limit and the call's own.
      while (vi.getTimerCount() < 2) await new Promise((resolve) => setImmediate(resolve));
      vi.advanceTimersByTime(60_000);
      vi.useRealTimers();
      expect(String(await late)).toMatch(/timed out after (59\d{3}|60000) ms/);
    }
    expect(hasty.index).toBe(0);
    // The other one finds that what it waits for has been withdrawn, and waits for the next attempt.
    for (const step of await Promise.all([patient.endStep(), hasty.endStep()])) {
      expect(step).toMatchObject({ index: 1, worldSize: 2, contributors: 2 });
    }
  });

  it("can be stopped by a signal while they wait for the others", async () => {
    const [first, second] = (await world(2)) as [Communicator, Communicator];
    const stop = new AbortController();
    const reason = new Error("enough");
    const parameters = createParameters();
    const diloco = new Diloco({ communicator: first, parameters, innerSteps: 1, signal: stop.signal });
    const other = new Diloco({ communicator: second, parameters: createParameters(), innerSteps: 1 });
    await Promise.all([diloco.beginStep(), other.join()]);
    const waiting = diloco.endStep();
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(diloco.beginStep()).rejects.toBe(reason);
  });
});

function streaming(options: object): { kind: "streaming"; fragments: number } {
  return { kind: "streaming", fragments: 2, ...options };
}
