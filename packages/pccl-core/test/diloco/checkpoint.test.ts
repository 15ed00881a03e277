/**
 * Goal: what was written is gone on from, by a group of another size, and half a checkpoint never is. Method: real runs
 * in this process, with the files looked at and damaged in between.
 */
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Diloco, type DilocoOptions, type ParameterArena } from "@pccl/core/diloco";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readSafetensors, type StoredTensor, writeSafetensors } from "../../src/diloco/safetensors.js";
import { createParameters, innerStep } from "./fixtures/toy-model.mjs";
import { withCode, world } from "./fixtures/world.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "pccl-checkpoint-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Trainee {
  readonly diloco: Diloco;
  readonly arena: ParameterArena;
}

async function trainees(size: number, options: (peer: number) => Partial<DilocoOptions>): Promise<Trainee[]> {
  const peers = await world(size);
  return peers.map((communicator, peer) => {
    const arena = createParameters();
    return {
      arena,
      diloco: new Diloco({ communicator, parameters: arena, innerSteps: 2, ...options(peer) }),
    };
  });
}

async function run(all: readonly Trainee[], outerSteps: number): Promise<void> {
  await Promise.all(
    all.map(async ({ diloco, arena }, i) => {
      await diloco.run({ outerSteps, innerStep: () => ({ loss: innerStep(arena.data, i) }) });
    }),
  );
}

const checkpointOf = (peer: number): { checkpoint: { directory: string; keepLast: number } } => ({
  checkpoint: { directory: join(folder, String(peer)), keepLast: 2 },
});

describe("checkpoints", () => {
  it("are gone on from as if nothing had been in between, in the bits too", async () => {
    const through = await trainees(1, () => ({}));
    await run(through, 5);
    const first = await trainees(1, checkpointOf);
    await run(first, 3);
    expect(readdirSync(join(folder, "0")).sort()).toEqual(["round-000000002", "round-000000003"]);
    const second = await trainees(1, checkpointOf);
    const [{ diloco }] = second as [Trainee];
    expect(await diloco.restore()).toMatchObject({ round: 3, extra: null });
    await run(second, 5);
    expect([...diloco.parameters]).toEqual([...(through[0] as Trainee).diloco.parameters]);
    expect(diloco.digest).toBe(through[0]?.diloco.digest);
  });

  it("bring a group of another size to where they were written", async () => {
    const schedule = "async";
    const first = await trainees(2, (peer) => ({ schedule, ...checkpointOf(peer) }));
    await run(first, 3);
    // The third never had any.
    const second = await trainees(3, (peer) => ({ schedule, ...checkpointOf(peer < 2 ? peer : 9) }));
    const restored = await Promise.all(second.map(async ({ diloco }) => await diloco.restore()));
    expect(restored.map((one) => one?.round)).toEqual([3, 3, undefined]);
    await Promise.all(second.map(async ({ diloco }) => await diloco.join()));
    for (const { diloco } of second) {
      expect(diloco.round).toBe(3);
      expect(diloco.digest).toBe(first[0]?.diloco.digest);
    }
    await run(second, 5);
    expect(new Set(second.map(({ diloco }) => diloco.digest)).size).toBe(1);
    expect(second[0]?.diloco.index).toBe(5);
  });

  it("take along what the caller needs", async () => {
    const moments = Float32Array.of(1, 2, 3);
    const options = (): Partial<DilocoOptions> => ({
      checkpoint: {
        directory: join(folder, "own"),
        everyRounds: 2,
        save: () => ({ tensors: { moments }, extra: { cursor: moments[0] } }),
      },
    });
    const first = await trainees(1, options);
    await run(first, 4);
    moments.fill(9);
    expect(readdirSync(join(folder, "own")).sort()).toEqual(["round-000000002", "round-000000004"]);
    const [{ diloco }] = (await trainees(1, options)) as [Trainee];
    const restored = await diloco.restore();
    expect([...(restored?.tensors.get("moments") ?? [])]).toEqual([1, 2, 3]);
    expect(restored?.extra).toEqual({ cursor: 1 });
  });

  it("that are damaged are passed over, and refused when there is no other", async () => {
    const first = await trainees(1, checkpointOf);
    await run(first, 2);
    const path = join(folder, "0", "round-000000002", "state.safetensors");
    const bytes = readFileSync(path);
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] as number) ^ 1;
    writeFileSync(path, bytes);
    const [{ diloco }] = (await trainees(1, checkpointOf)) as [Trainee];
    expect(await diloco.restore()).toMatchObject({ round: 1 });
    truncateSync(join(folder, "0", "round-000000001", "state.safetensors"), 100);
    const [other] = (await trainees(1, checkpointOf)) as [Trainee];
    await expect(other.diloco.restore()).rejects.toThrow(withCode("ERR_PCCL_CHECKPOINT_UNREADABLE"));
  });

  it("of another model are refused", async () => {
    const first = await trainees(1, checkpointOf);
    await run(first, 1);
    const [{ diloco }] = (await trainees(1, (peer) => ({
      ...checkpointOf(peer),
      outer: { kind: "adam" },
    }))) as [Trainee];
    await expect(diloco.restore()).rejects.toThrow(/"mean\/w"/);
  });

  it("say when they can't be written", async () => {
    writeFileSync(join(folder, "0"), "a file where the folder should be");
    const first = await trainees(1, checkpointOf);
    await expect(run(first, 3)).rejects.toThrow(/EEXIST|ENOTDIR/);
  });
});

describe("safetensors", () => {
  it("are read back as they were written", async () => {
    const path = join(folder, "a.safetensors");
    const tensors = new Map<string, StoredTensor>([
      ["f32", Float32Array.of(1, -0, Number.NaN)],
      ["f64", Float64Array.of(Math.PI)],
      ["bytes", Uint8Array.of(255)],
      ["none", new Float32Array(0)],
    ]);
    await writeSafetensors(path, tensors, { about: "ü" });
    const { tensors: back, metadata } = await readSafetensors(path);
    expect(back).toEqual(tensors);
    expect(metadata).toEqual({ about: "ü" });
    // As the format has it: the header's length, JSON that begins with a brace, and data at a multiple of eight.
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    expect((8 + length) % 8).toBe(0);
    expect(JSON.parse(bytes.subarray(8, 8 + length).toString())).toMatchObject({
      f32: { dtype: "F32", shape: [3], data_offsets: [0, 12] },
      f64: { dtype: "F64", shape: [1], data_offsets: [12, 20] },
    });
  });

  it.each([
    ["nothing", ""],
    ["a header that is too long", "\u00ff\u0000\u0000\u0000\u0000\u0000\u0000\u0000{}"],
    ["no JSON", "\u0002\u0000\u0000\u0000\u0000\u0000\u0000\u0000{["],
    ["a tensor beyond the end", header({ a: { dtype: "F32", shape: [2], data_offsets: [0, 8] } })],
    ["a wrong shape", `${header({ a: { dtype: "F32", shape: [2], data_offsets: [0, 4] } })}1234`],
    ["an unknown dtype", `${header({ a: { dtype: "F4", shape: [1], data_offsets: [0, 4] } })}1234`],
    ["no entry", header({ a: 5 })],
  ])("refuses %s", async (_what, text) => {
    const path = join(folder, "bad.safetensors");
    appendFileSync(path, Buffer.from(text, "latin1"));
    await expect(readSafetensors(path)).rejects.toThrow(withCode("ERR_PCCL_CHECKPOINT_UNREADABLE"));
  });
});

function header(value: object): string {
  const text = JSON.stringify(value);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return length.toString("latin1") + text;
}
