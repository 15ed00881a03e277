/**
 * Strict mode is the reference, number by number. Method: cases of our own, whose outputs an independent transcription
 * of the reference's rules made; and, where it lies beside the repository, the reference's own data. Both go through
 * the command line, which gets the inputs only.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hasGolden, readGoldenJson, WHY_SKIPPED } from "./shared.js";

type Case = Readonly<Record<string, unknown>>;

const INPUTS = [
  "name",
  "world_size",
  "num_experts",
  "counts_per_rank",
  "alpha",
  "min_tokens_per_gemm",
  "lam",
];
const program = fileURLToPath(new URL("../bin/moe-ep.js", import.meta.url));
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "moe-ep-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function planStrictly(cases: readonly Case[]): Case[] {
  const file = join(folder, "cases.json");
  const inputs = cases.map((c) =>
    Object.fromEntries(INPUTS.filter((key) => key in c).map((key) => [key, c[key]])),
  );
  writeFileSync(file, JSON.stringify({ cases: inputs }));
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [program, "plan", "--input", file, "--strict-reference", "--json"],
    { encoding: "utf8", maxBuffer: 2 ** 28 },
  );
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return (JSON.parse(stdout) as { cases: Case[] }).cases;
}

/** Every field that both have. */
function expectSame(planned: Case, expected: Case): void {
  const shared = Object.keys(planned).filter((key) => key in expected);
  const pick = (from: Case): Case => Object.fromEntries(shared.map((key) => [key, from[key]]));
  expect(pick(planned)).toEqual(pick(expected));
}

describe("moe-ep plan --strict-reference", () => {
  const own = (
    JSON.parse(readFileSync(new URL("fixtures/strict-plans.json", import.meta.url), "utf8")) as {
      cases: Case[];
    }
  ).cases;

  it("plans our cases as the rules say", () => {
    const planned = planStrictly(own);
    expect(planned).toHaveLength(own.length);
    for (const [index, result] of planned.entries()) expectSame(result, own[index] as Case);
  });

  it("also where the reference plans badly", () => {
    const [twice, forced] = planStrictly(own) as { stats: Record<string, number> }[];
    expect(twice?.stats.duplicate_transfers).toBe(1);
    expect(forced?.stats.max_after).toBe(2096);
  });

  const files = ["paper", "scenario", "random", "edge", "repo_test", "tokens"];
  it.skipIf(!hasGolden).each(files)(`reproduces every plan of llep/%s.json (${WHY_SKIPPED})`, (name) => {
    const { cases } = readGoldenJson<{ cases: Case[] }>(`llep/${name}.json`);
    const planned = planStrictly(cases);
    expect(planned).toHaveLength(cases.length);
    for (const [index, result] of planned.entries()) expectSame(result, cases[index] as Case);
  });
});
