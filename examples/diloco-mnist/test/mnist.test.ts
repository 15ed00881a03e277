/** The programs as they are started: a late joiner with the async schedule on a small text, and a comparison. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, it } from "vitest";
import { DataError, readDigits } from "../src/digits.js";

const run = promisify(execFile);
const programOf = (name: string): string => fileURLToPath(new URL(`../dist/${name}.js`, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "pccl-mnist-"));
afterAll(() => rmSync(folder, { recursive: true }));
const text = join(folder, "text.txt");
writeFileSync(text, "the quick brown fox jumps over the lazy dog. ".repeat(400));
const small = ["--text", text, "--hidden", "16", "--batch", "4", "--inner-steps", "10", "--out", folder];

it("trains with a late joiner, and leaves a log and a curve", async () => {
  const args = ["--peers", "2", "--outer-steps", "6", "--schedule", "async", "--wire", "8-bit", ...small];
  const { stdout } = await run(process.execPath, [programOf("main"), ...args]);
  expect(stdout).toMatch(/3 peers with equal outer states/);
  const lines = readFileSync(join(folder, "steps.jsonl"), "utf8").trim().split("\n");
  const steps = lines.map(
    (line) => JSON.parse(line) as { peer: number; kind: string; step?: { worldSize: number } },
  );
  expect(steps.filter(({ kind }) => kind === "finished")).toHaveLength(3);
  expect(steps.some(({ peer, step }) => peer === 2 && step?.worldSize === 3)).toBe(true);
  expect(readFileSync(join(folder, "loss.svg"), "utf8")).toContain("a peer joined");
}, 120_000);

it("compares variants", async () => {
  const args = ["--peers", "2", "--outer-steps", "3", "--variants", "data parallel,sync,4-bit", ...small];
  const { stdout } = await run(process.execPath, [programOf("compare"), ...args]);
  expect(stdout).toMatch(/data parallel .*\nsync .*\n4-bit/);
}, 120_000);

it("says what is missing and what is wrong", async () => {
  await expect(
    run(process.execPath, [programOf("main"), "--mnist", join(folder, "none")]),
  ).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining("--mnist") as string,
  });
  expect(() => readDigits(folder)).toThrow(DataError);
  writeFileSync(
    join(folder, "t10k-images-idx3-ubyte"),
    Buffer.from([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1]),
  );
  writeFileSync(join(folder, "t10k-labels-idx1-ubyte"), Buffer.from([0, 0, 8, 1, 0, 0, 0, 1, 7]));
  expect(() => readDigits(folder)).toThrow(/1 bytes of data, and its header says 1 × 2 × 2/);
  writeFileSync(
    join(folder, "t10k-images-idx3-ubyte"),
    Buffer.from([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 255, 0, 51]),
  );
  const { examples } = readDigits(folder);
  const seen: [number, number][] = [];
  examples.forEachInput(0, (input, value) => seen.push([input, value]));
  expect(seen).toEqual([
    [1, 1],
    [3, 0.2],
  ]);
  expect(examples.label(0)).toBe(7);
});
