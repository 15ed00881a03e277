/**
 * What is wrong on one rank is an error on all of them, and the group goes on afterwards: every test ends with a pass
 * that succeeds. Losing a rank is another matter: the survivors are told to make a new group, and do.
 */
import type { PcclError } from "@pccl/core";
import {
  ExpertGroup,
  type ExpertFormat,
  ExpertLayer,
  type ExpertLayerOptions,
  generateRouting,
  MoELayer,
  type Routing,
} from "@pccl/moe-ep";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { layerCase } from "./layer-case.js";
import { randomFloats } from "./random-floats.js";
import { withCommunicators } from "./ranks.js";

const RANKS = 3;
const EXPERTS = 7;
const TOKENS = 20;
const format: ExpertFormat = { kind: "swiglu", dtype: "f32", hiddenSize: 16, ffnSize: 8 };
const layer = layerCase(format, EXPERTS, TOKENS);
const x = layer.x as Float32Array;
const options: ExpertLayerOptions = {
  format,
  experts: EXPERTS,
  tensors: layer.tensors,
  training: true,
  plan: { planner: "lla", minChunkCopies: 1, minImbalance: 0 },
};

function routingFor(rank: number): Routing {
  return generateRouting({
    scenario: "80%:1",
    experts: EXPERTS,
    topK: 2,
    tokens: TOKENS,
    ranks: RANKS,
    rank,
  });
}

async function errorOf(call: Promise<unknown>): Promise<PcclError> {
  return await call.then(
    () => expect.fail("the call should have failed"),
    (error: unknown) => error as PcclError,
  );
}

/** The groups of one world, for tests after which it goes on. */
let groups: readonly ExpertGroup[] = [];
let endWorld: () => void = () => undefined;
let world: Promise<void>;
beforeAll(async () => {
  await new Promise<void>((ready, failed) => {
    world = withCommunicators(RANKS, {}, async (communicators) => {
      groups = await Promise.all(communicators.map((one) => ExpertGroup.connect(one)));
      ready();
      await new Promise<void>((resolve) => (endWorld = resolve));
    });
    world.catch(failed);
  });
});
afterAll(async () => {
  endWorld();
  await world;
});
const onAll = <T>(body: (group: ExpertGroup) => Promise<T>): Promise<T[]> => Promise.all(groups.map(body));

/** On every rank `call` has to fail with `code`, and a good pass to succeed afterwards. */
async function expectAllToFail(
  code: string,
  words: string,
  call: (layer: ExpertLayer, group: ExpertGroup) => Promise<unknown>,
): Promise<void> {
  const errors = await onAll(async (group) => {
    const mine = await ExpertLayer.create(group, options);
    const error = await errorOf(call(mine, group));
    await mine.forward(x, routingFor(group.rank));
    await mine.backward(x);
    return error;
  });
  for (const error of errors) {
    expect(error.code).toBe(code);
    expect(error.message).toContain(words);
  }
}

describe("bad input of one rank", () => {
  const bad = (change: (routing: Routing) => Partial<Routing>) => (mine: ExpertLayer, group: ExpertGroup) => {
    const good = routingFor(group.rank);
    return mine.forward(x, group.rank === 1 ? { ...good, ...change(good) } : good);
  };

  it.each<[string, (routing: Routing) => Partial<Routing>, string]>([
    ["an expert that doesn't exist", ({ experts }) => ({ experts: experts.with(3, EXPERTS) }), "expert 7"],
    ["a negative expert", ({ experts }) => ({ experts: experts.with(3, -1) }), "expert -1"],
    ["fewer gates than slots", ({ gates }) => ({ gates: gates.slice(1) }), "39 gates for 40 slots"],
    ["slots that fall", ({ firstSlot }) => ({ firstSlot: firstSlot.with(5, 39) }), "must not fall"],
    [
      "another number of tokens",
      ({ firstSlot }) => ({ firstSlot: firstSlot.slice(1).with(0, 0) }),
      "19 tokens, and x has 20",
    ],
  ])("%s fails on all", async (_name, change, words) => {
    await expectAllToFail("ERR_PCCL_INVALID_ARGUMENT", words, bad(change));
  });

  it("tokens of another dtype fail on all", async () => {
    await expectAllToFail("ERR_PCCL_INVALID_ARGUMENT", "Float32Array", (mine, { rank }) =>
      mine.forward(rank === 2 ? new Uint16Array(x.length) : x, routingFor(rank)),
    );
  });

  it("a backward pass with other tokens, or without a forward pass, fails on all", async () => {
    await expectAllToFail("ERR_PCCL_INVALID_ARGUMENT", "19 tokens", async (mine, { rank }) => {
      await mine.forward(x, routingFor(rank));
      await mine.backward(rank === 0 ? x.subarray(format.hiddenSize) : x);
    });
    await expectAllToFail("ERR_PCCL_INVALID_ARGUMENT", "no forward pass", (mine) => mine.backward(x));
  });

  it("different calls fail on all", async () => {
    await expectAllToFail("ERR_PCCL_CALL_MISMATCH", "backward of layer", async (mine, { rank }) => {
      await mine.forward(x, routingFor(rank));
      await (rank === 1 ? mine.backward(x) : mine.forward(x, routingFor(rank)));
    });
  });

  it("a call beside another one of the same rank fails on that rank alone", async () => {
    await onAll(async (group) => {
      const mine = await ExpertLayer.create(group, options);
      const first = mine.forward(x, routingFor(group.rank));
      expect((await errorOf(mine.forward(x, routingFor(group.rank)))).code).toBe("ERR_PCCL_CALL_IN_PROGRESS");
      await first;
    });
  });
});

describe("layers that can't be made", () => {
  const router = { kind: "mixtral", experts: EXPERTS, topK: 2 } as const;
  const whole = {
    format,
    tensors: layer.tensors,
    router,
    routerWeight: randomFloats(EXPERTS * format.hiddenSize, 3),
  };

  it.each<[string, (rank: number) => Parameters<typeof MoELayer.create>[1], string]>([
    ["more experts per token than there are", () => ({ ...whole, router: { ...router, topK: 8 } }), "topK"],
    [
      "fewer experts than ranks",
      () => ({
        ...whole,
        router: { ...router, experts: 2 },
        routerWeight: new Float32Array(2 * format.hiddenSize),
      }),
      "2 experts can't be shared by 3 ranks",
    ],
    ["another dtype on one rank", (rank) => ({ ...whole, ...(rank === 1 ? inBf16 : {}) }), "rank 1 has"],
    [
      "another plan on one rank",
      (rank) => ({ ...whole, plan: { minChunkCopies: 1 + rank } }),
      "another plan",
    ],
    [
      "a tensor of the wrong size on one rank",
      (rank) => ({
        ...whole,
        tensors: (expert) => ({
          ...layer.tensors(expert),
          ...(rank === 2 ? { up: new Float32Array(3) } : {}),
        }),
      }),
      "up must be a Float32Array of 128 elements",
    ],
  ])("%s fail on all ranks", async (_name, optionsOf, words) => {
    const errors = await onAll((group) => errorOf(MoELayer.create(group, optionsOf(group.rank))));
    for (const error of errors) {
      expect(error.code).toBe("ERR_PCCL_INVALID_ARGUMENT");
      expect(error.message).toContain(words);
    }
  });

  const bf16 = layerCase({ ...format, dtype: "bf16" }, EXPERTS, TOKENS);
  const inBf16 = { format: bf16.format, tensors: bf16.tensors };

  it("logits that are no numbers fail on all ranks, in a layer that goes on", async () => {
    const errors = await onAll(async (group) => {
      const mine = await MoELayer.create(group, whole);
      const error = await errorOf(mine.forward(group.rank === 1 ? x.with(5, Number.NaN) : x));
      await mine.forward(x);
      return error;
    });
    for (const error of errors) {
      expect(error.code).toBe("ERR_PCCL_INVALID_ARGUMENT");
      expect(error.message).toContain("token 0");
    }
  });
});

describe("ranks", () => {
  it("that two members want fail on all", async () => {
    const errors = await withCommunicators(2, {}, (communicators) =>
      Promise.all(communicators.map((one) => errorOf(ExpertGroup.connect(one, { rank: 1 })))),
    );
    for (const error of errors) expect(error.message).toContain("got 1, 1");
  });
});

describe("a rank that is lost", () => {
  it("is a retryable error on the others, who go on in a new group", async () => {
    await withCommunicators(RANKS, {}, async (communicators) => {
      const outputs = await Promise.all(
        communicators.map(async (communicator) => {
          const group = await ExpertGroup.connect(communicator);
          const mine = await ExpertLayer.create(group, options);
          const routing = routingFor(group.rank);
          await mine.forward(x, routing);
          if (group.rank === 2) {
            await communicator.close();
            return undefined;
          }
          const error = await errorOf(mine.forward(x, routing));
          expect([error.code, error.retryable]).toEqual(["ERR_PCCL_PEER_LOST", true]);
          expect((await errorOf(mine.forward(x, routing))).code).toBe("ERR_PCCL_PEER_LOST");
          const smaller = await ExpertLayer.create(await ExpertGroup.connect(communicator), options);
          return { y: await smaller.forward(x, routing), routing };
        }),
      );
      const alone = await ExpertLayer.create(ExpertGroup.alone(), options);
      const survivors = outputs.filter((output) => output !== undefined);
      expect(survivors).toHaveLength(2);
      for (const { y, routing } of survivors) expect(y).toEqual(await alone.forward(x, routing));
    });
  });
});
