/** Starts the built command as a user would and looks at what it prints. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { VERSION } from "@pccl/moe-ep";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const program = fileURLToPath(new URL("../bin/moe-ep.js", import.meta.url));
const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
};

function moeEp(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
}

describe("moe-ep", () => {
  it("prints the package's version", () => {
    expect(VERSION).toBe(manifest.version);
    expect(moeEp("--version")).toMatchObject({ status: 0, stdout: `${manifest.version}\n`, stderr: "" });
  });

  it("says in its help what it can do", () => {
    const { status, stdout } = moeEp("--help");
    expect(status).toBe(0);
    expect(stdout).toContain("plan ");
    expect(moeEp("plan", "--help").stdout).toContain("Usage: moe-ep plan --input FILE");
  });

  it.each([
    [[], "no command"],
    [["--verbose"], "--verbose"],
    [["train"], "train"],
    [["plan"], "--input"],
    [["plan", "--input", "x", "--planner", "best"], "best"],
    [["plan", "--input", "x", "--planner", "auto", "--strict-reference"], "--strict-reference"],
    [["plan", "--input", "x", "--transfer-copies", "many"], "many"],
  ])("refuses %j with status 2 and where to look", (args, name) => {
    const { status, stdout, stderr } = moeEp(...args);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(name);
    expect(stderr).toContain("--help");
  });
});

describe("moe-ep plan", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "moe-ep-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  function write(content: unknown): string {
    const file = join(folder, "input.json");
    writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
    return file;
  }
  const batch = {
    world_size: 2,
    num_experts: 2,
    counts_per_rank: [
      [800, 0],
      [800, 0],
    ],
  };

  it("takes one case or several, and prints a summary", () => {
    const { status, stdout } = moeEp("plan", "--input", write({ ...batch, name: "hot" }));
    expect(status).toBe(0);
    expect(stdout).toContain("hot (auto)");
    expect(stdout).toContain("1600 -> 800");
    const several = moeEp("plan", "--input", write({ cases: [batch, batch] })).stdout;
    expect(several).toContain("case 1 (auto)");
  });

  it("prints with --json what the planner chose, for the price of a transfer that it was told", () => {
    const plan = (...args: string[]): { use_lpt: boolean; weight_transfers: number[][] } => {
      const { stdout } = moeEp("plan", "--input", write(batch), "--json", ...args);
      return (JSON.parse(stdout) as { cases: [{ use_lpt: boolean; weight_transfers: number[][] }] }).cases[0];
    };
    expect(plan()).toMatchObject({ use_lpt: true, weight_transfers: [[0, 0, 1, 800, 1600]] });
    expect(plan("--transfer-copies", "900")).toMatchObject({ use_lpt: false, weight_transfers: [] });
    expect(plan("--planner", "ep").weight_transfers).toEqual([]);
  });

  it.each([
    ["{", "JSON"],
    ["[]", "object"],
    [{ cases: [3] }, "case 0"],
    [{ ...batch, world_size: 3, name: "odd" }, "case odd"],
    [
      {
        ...batch,
        counts_per_rank: [
          [1, 2],
          [3, -4],
        ],
      },
      "counts[1][1]",
    ],
    [{ ...batch, alpha: "1" }, "alpha"],
  ])("refuses the content %j with status 1", (content, name) => {
    const { status, stdout, stderr } = moeEp("plan", "--input", write(content));
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(name);
  });

  it("refuses a file that isn't there", () => {
    expect(moeEp("plan", "--input", join(folder, "none.json"))).toMatchObject({ status: 1, stdout: "" });
  });
});
