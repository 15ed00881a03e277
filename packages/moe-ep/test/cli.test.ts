/** Starts the built command as a user would and looks at what it prints. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { TraceWriter, VERSION } from "@pccl/moe-ep";
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
    for (const command of ["simulate", "tune"]) {
      const help = moeEp(command, "--help");
      expect([help.status, help.stdout.split("\n")[0]]).toEqual([
        0,
        expect.stringContaining(`moe-ep ${command}`),
      ]);
    }
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
    [["plan", "--input", "x", "--transfer-copies", "3", "--calibration", "y"], "--calibration"],
    [["simulate", "--model", "gpt-oss-20b", "--scenario", "balanced"], "--cluster"],
    [["simulate", "--model", "gpt-oss-20b", "--cluster", "8xH200"], "--scenario"],
    [["simulate", "--cluster", "8xH200", "--scenario", "balanced"], "--model"],
    [
      ["simulate", "--model", "gpt-oss-20b", "--cluster", "2xthis", "--scenario", "balanced"],
      "--calibration",
    ],
    [
      ["simulate", "--model", "gpt-oss-20b", "--cluster", "8xH200", "--scenario", "balanced", "--alpha", ""],
      "--alpha",
    ],
    [["tune", "--dtype", "f64"], "f64"],
    [["tune", "--ranks", "65"], "--ranks"],
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

describe("moe-ep simulate and tune", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "moe-ep-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  interface Row {
    readonly planner: string;
    readonly stepSeconds: number;
    readonly speedupOverEp: number;
  }
  function simulate(...args: string[]): { lowerBoundSeconds: number; runtime: string; results: Row[] } {
    const { status, stdout, stderr } = moeEp("simulate", "--json", ...args);
    expect([status, stderr]).toEqual([0, ""]);
    return JSON.parse(stdout) as ReturnType<typeof simulate>;
  }

  it("simulates a model on a cluster, as a table and as JSON", () => {
    const args = ["--model", "gpt-oss-120b", "--cluster", "8xH200", "--scenario", "80%:4"];
    const { results, lowerBoundSeconds, runtime } = simulate(...args);
    expect(results.map(({ planner }) => planner)).toEqual(["ep", "lla", "lla", "auto"]);
    expect(runtime).toBe("paper");
    // The paper measured 4.47.
    expect(Math.abs((results[1]?.speedupOverEp ?? 0) - 4.47)).toBeLessThan(0.5);
    for (const { stepSeconds } of results) expect(stepSeconds).toBeGreaterThan(lowerBoundSeconds);
    const table = moeEp("simulate", ...args).stdout;
    expect(table).toContain("lla, as published");
    expect(table).toContain("lower bound");
    expect(simulate(...args, "--runtime", "lean").results[0]?.stepSeconds).toBeLessThan(
      results[0]?.stepSeconds as number,
    );
  });

  it("simulates a recorded trace", () => {
    const file = join(folder, "trace.jsonl");
    const writer = new TraceWriter(file, { ranks: 2, layerExperts: [4] });
    for (const step of [0, 1])
      writer.counts(step, 0, [
        [900, 10, 10, 10],
        [800, 10, 10, 10],
      ]);
    writer.close();
    const own = ["--experts", "4", "--topk", "1", "--hidden", "1024", "--ffn", "1024"];
    const { results } = simulate(...own, "--trace", file, "--cluster", "2xcpu-25gbit");
    expect(results.map(({ planner }) => planner)).toEqual(["ep", "lla", "auto"]);
    const wrong = moeEp("simulate", ...own, "--trace", file, "--cluster", "4xcpu-25gbit");
    expect([wrong.status, wrong.stdout]).toEqual([1, ""]);
    expect(wrong.stderr).toContain("batch 0 is of 2 ranks");
    expect(moeEp("simulate", ...own, "--trace", join(folder, "none"), "--cluster", "2xh100").status).toBe(1);
  });

  it("measures this machine once, and then plans, simulates and sweeps by what it wrote", () => {
    const file = join(folder, "calibration.json");
    const layer = ["--experts", "8", "--topk", "2", "--hidden", "64", "--ffn", "64"];
    const measured = moeEp("tune", ...layer, "--ranks", "4", "--seconds", "0", "--out", file, "--json");
    expect(measured.status).toBe(0);
    const { recommended, pareto } = JSON.parse(measured.stdout) as {
      recommended: { planner: string };
      pareto: { planner: string }[];
    };
    expect(["ep", "lla", "auto"]).toContain(recommended.planner);
    expect(pareto.at(-1)?.planner).toBe("ep");
    const again = moeEp("tune", ...layer, "--ranks", "4", "--calibration", file);
    expect([again.status, again.stderr]).toEqual([0, ""]);
    expect(again.stdout).toContain(`Use { planner: "${recommended.planner}"`);
    const place = ["--cluster", "4xthis", "--calibration", file, "--scenario", "80%:1"];
    expect(simulate(...layer, ...place).runtime).toBe("measured");
    const input = join(folder, "case.json");
    writeFileSync(
      input,
      JSON.stringify({
        world_size: 2,
        num_experts: 2,
        counts_per_rank: [
          [8, 0],
          [8, 0],
        ],
      }),
    );
    expect(moeEp("plan", "--input", input, "--calibration", file).status).toBe(0);
    expect(moeEp("plan", "--input", input, "--calibration", input).status).toBe(1);
  });
});
