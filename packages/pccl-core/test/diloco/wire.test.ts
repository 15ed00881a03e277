/**
 * Goal: every wire format gives all peers the same bits, near the exact average, for the bytes that it promises, and
 * error feedback brings across what rounding left. Method: real peers that contribute known numbers.
 */
import { Diloco, ParameterArena, type WireOptions } from "@pccl/core/diloco";
import { describe, expect, it } from "vitest";
import { innerAndOuter, world } from "./fixtures/world.js";

const LENGTH = 5000;
const plain = { kind: "sgd", learningRate: 1 } as const;

/** The progress of each peer is the same in every round. */
function progressOf(peer: number): Float32Array {
  return Float32Array.from({ length: LENGTH }, (_, i) => Math.sin(1 + i * (peer + 1)) * (1 + (i % 7)));
}

interface Trained {
  /** Parameters after each round. */
  readonly parameters: readonly Float32Array[];
  readonly txBytes: number;
}

async function train(wire: WireOptions, rounds: number, tokens: readonly number[]): Promise<Trained> {
  const peers = await world(tokens.length);
  const arenas = peers.map(() => new ParameterArena({ w: [LENGTH] }));
  const all = peers.map(
    (communicator, i) =>
      new Diloco({
        communicator,
        parameters: arenas[i] as ParameterArena,
        innerSteps: 1,
        outer: plain,
        weighting: "tokens",
        wire,
      }),
  );
  const parameters: Float32Array[] = [];
  let txBytes = 0;
  for (let round = 0; round < rounds; round++) {
    const steps = await Promise.all(
      all.map(async (diloco, i) => {
        await diloco.beginStep();
        const { data } = arenas[i] as ParameterArena;
        for (const [k, value] of progressOf(i).entries()) data[k] = (data[k] as number) + value;
        return await diloco.endStep({ tokens: tokens[i] as number });
      }),
    );
    expect(new Set(steps.map((step) => step?.digest)).size).toBe(1);
    txBytes = steps[0]?.txBytes ?? 0;
    parameters.push((all[0] as Diloco).parameters.slice());
  }
  return { parameters, txBytes };
}

/** ‖a − b‖ / ‖b‖. */
function distance(a: Float32Array, b: (i: number) => number): number {
  let [off, size] = [0, 0];
  for (let i = 0; i < LENGTH; i++) {
    off += ((a[i] as number) - b(i)) ** 2;
    size += b(i) ** 2;
  }
  return Math.sqrt(off / size);
}

describe("wire formats", () => {
  const tokens = [3, 1, 0];
  const works = tokens.map((_, peer) => progressOf(peer));
  const mean = (i: number): number => (3 * (works[0]?.[i] as number) + (works[1]?.[i] as number)) / 4;

  // The most that one round may be off, and its bytes beside f32's, the roster's among them. With 15 steps from -7 to 7
  // an element is off by 0.27 (root mean square) each of the two times that it is rounded, and the mean is 2.4 large.
  it.each([
    ["f32", 1e-6, 1],
    ["bf16", 4e-3, 0.53],
    ["8-bit", 9e-3, 0.3],
    ["4-bit", 0.15, 0.18],
  ] as const)("%s averages by weight, near the exact average", async (wire, error, bytes) => {
    const { parameters, txBytes } = await train(wire, 1, tokens);
    expect(distance(parameters[0] as Float32Array, mean)).toBeLessThan(error);
    const f32 = wire === "f32" ? txBytes : (await train("f32", 1, tokens)).txBytes;
    expect(txBytes / f32).toBeLessThanOrEqual(bytes);
  });

  it("4-bit with error feedback loses less over many rounds than without", async () => {
    const rounds = 12;
    const total = (i: number): number => rounds * mean(i);
    const off = async (errorFeedback: number): Promise<number> => {
      const { parameters } = await train({ format: "4-bit", errorFeedback }, rounds, tokens);
      return distance(parameters.at(-1) as Float32Array, total);
    };
    expect(await off(1)).toBeLessThan(0.7 * (await off(0)));
  });

  it("top-k sends the greatest elements, and all of them in the course of time", async () => {
    // In one round each chunk's greatest eighth; without decay the rest is sent later.
    const wire = { format: "top-k", keep: 512, errorFeedback: 1 } as const;
    const { parameters, txBytes } = await train(wire, 24, tokens);
    const once = parameters[0] as Float32Array;
    expect(once.filter((value) => value !== 0).length).toBeLessThanOrEqual(2 * (512 + 512));
    expect(distance(parameters.at(-1) as Float32Array, (i) => 24 * mean(i))).toBeLessThan(0.25);
    expect(distance(once, mean)).toBeGreaterThan(0.3);
    // What each of the two others gets: an id, two chunks of a scale, 512 indices and as many codes; and the roster.
    expect(txBytes).toBeLessThan(2 * (8 + 2 * (4 + 3 * 512)) + 1000);
  });

  it("leave alone what is not finite", async () => {
    for (const wire of ["4-bit", "top-k"] as const) {
      const peers = await world(2);
      const arenas = peers.map(() => new ParameterArena({ w: [LENGTH] }));
      const all = peers.map(
        (communicator, i) =>
          new Diloco({
            communicator,
            parameters: arenas[i] as ParameterArena,
            innerSteps: 1,
            outer: plain,
            wire,
          }),
      );
      for (let round = 0; round < 3; round++) {
        const steps = await innerAndOuter(all, (i) =>
          arenas[i]?.data.fill(i === 1 && round === 1 ? Number.NaN : 1),
        );
        expect(steps[0]?.suspects.map(({ reason }) => reason)).toEqual(round === 1 ? ["non-finite"] : []);
        expect(steps[0]?.digest).toBe(steps[1]?.digest);
      }
      expect(arenas[1]?.data.every(Number.isFinite)).toBe(true);
    }
  });
});
