/** Goal: `pccl bench state` checks every byte, measures, and prints what its help says. Method: the command itself. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const pccl = async (...args: string[]): Promise<string> =>
  (await promisify(execFile)(process.execPath, [MAIN, "bench", "state", ...args])).stdout;

it("measures what two holders give to one that lacks a tenth", async () => {
  const args = [
    "--holders",
    "2",
    "--sizes",
    "2MiB",
    "--changed",
    "0.1",
    "--tensors",
    "4",
    "--iterations",
    "2",
  ];
  const { results } = JSON.parse(await pccl(...args, "--json")) as { results: object[] };
  expect(results).toMatchObject([
    { holders: 2, receivers: 1, bytes: 2 ** 21, tensors: 4, changed: 0.1, transport: "auto", verified: true },
  ]);
  // One of eight leaves of each tensor, and the hashes.
  const { movedShare, medianSeconds } = results[0] as { movedShare: number; medianSeconds: number };
  expect(movedShare).toBeGreaterThan(0.125);
  expect(movedShare).toBeLessThan(0.13);
  expect(medianSeconds).toBeGreaterThan(0);
}, 120_000);

it("refuses what it doesn't know, with its usage", async () => {
  await expect(pccl("--changed", "0")).rejects.toMatchObject({ code: 2 });
  await expect(pccl("--sizes", "4B", "--tensors", "9")).rejects.toMatchObject({ code: 2 });
  expect(await pccl("--help")).toContain("--receivers N");
});
