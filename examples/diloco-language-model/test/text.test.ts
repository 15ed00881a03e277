/** The text and the references: what is held out, and what a bigram model of it must come to. */
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { bigramLoss } from "../src/bigram.js";
import { Random } from "../src/random.js";
import {
  batchAt,
  CONTEXT,
  evenPositions,
  collectText,
  randomBatch,
  splitText,
  VOCABULARY,
} from "../src/text.js";

describe("text", () => {
  it("holds every tenth block out and loses nothing", () => {
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => 97 + (Math.floor(i / 4096) % 25));
    const { train, heldOut } = splitText(bytes);
    expect(train.length + heldOut.length).toBe(bytes.length);
    expect([...new Set(heldOut)]).toEqual([97 + 9, 97 + 19]);
    expect([...new Set(train)]).not.toContain(97 + 9);
  });

  it("folds bytes beyond ASCII into one symbol", () => {
    const bytes = Uint8Array.from({ length: 50_000 }, (_, i) => i % 256);
    const { train } = splitText(bytes);
    expect(Math.max(...train)).toBeLessThan(VOCABULARY);
    expect([...train.subarray(126, 132)]).toEqual([126, 127, 127, 127, 127, 127]);
  });

  it("refuses a text too short to hold something out", () => {
    expect(() => collectText(fileURLToPath(import.meta.url))).toThrow(/too short/);
  });

  it("finds the repository's own text", () => {
    const bytes = collectText(undefined);
    const { train, heldOut } = splitText(bytes);
    expect(train.length).toBeGreaterThan(100_000);
    expect(heldOut.length / (train.length + heldOut.length)).toBeCloseTo(0.1, 1);
    expect(bytes.includes("finds the repository's own text")).toBe(true);
  });
});

describe("batches", () => {
  const text = Uint8Array.from({ length: 300 }, (_, i) => i % 100);

  it("hold the bytes before each position and the one at it", () => {
    const { contexts, targets } = batchAt(text, [8, 120]);
    expect([...contexts]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19]);
    expect([...targets]).toEqual([8, 20]);
  });

  it("never reach out of the text", () => {
    const short = text.subarray(0, CONTEXT + 2);
    const { targets } = randomBatch(short, 500, new Random(3));
    expect(new Set(targets)).toEqual(new Set([8, 9]));
    const positions = evenPositions(short, 4);
    expect(positions).toEqual([8, 8, 9, 9]);
  });
});

describe("bigramLoss", () => {
  it("is about zero where every byte has one successor, and ln 2 where it has two", () => {
    const positions = Array.from({ length: 1000 }, (_, i) => i + 1);
    const cycle = Uint8Array.from({ length: 60_000 }, (_, i) => i % 3);
    expect(bigramLoss(cycle, cycle, positions)).toBeLessThan(0.01);
    const random = new Random(1);
    const coins = Uint8Array.from({ length: 60_000 }, () => random.below(2));
    expect(bigramLoss(coins, coins, positions)).toBeCloseTo(Math.log(2), 2);
  });

  it("stays finite for pairs that training never showed", () => {
    expect(bigramLoss(Uint8Array.of(1, 1, 1), Uint8Array.of(1, 2, 3), [1, 2])).toBeGreaterThan(3);
  });
});

describe("Random", () => {
  it("is uniform, normal, and given by its seed", () => {
    const random = new Random(5);
    const draws = Array.from({ length: 20_000 }, () => random.next());
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...draws)).toBeLessThan(1);
    expect(draws.reduce((sum, value) => sum + value, 0) / draws.length).toBeCloseTo(0.5, 1);
    const normals = Array.from({ length: 20_000 }, () => random.normal());
    expect(normals.reduce((sum, value) => sum + value, 0) / normals.length).toBeCloseTo(0, 1);
    expect(normals.reduce((sum, value) => sum + value * value, 0) / normals.length).toBeCloseTo(1, 1);
    expect(new Random(5).next()).toBe(draws[0]);
    expect(new Random(6).next()).not.toBe(draws[0]);
  });
});
