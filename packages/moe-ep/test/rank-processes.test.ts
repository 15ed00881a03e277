/** Groups of real processes: started, ended and killed; and the commands that run layers on them. */
import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { Coordinator } from "@pccl/core/coordinator";
import { generateRouting, TraceWriter } from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";
import { goldenPath, hasGolden, WHY_SKIPPED } from "./shared.js";

const program = fileURLToPath(new URL("../bin/moe-ep.js", import.meta.url));
const launched = fileURLToPath(new URL("fixtures/launched.ts", import.meta.url));
const killedRank = fileURLToPath(new URL("fixtures/killed-rank.mjs", import.meta.url));

function moeEp(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
}

interface Output {
  readonly child: ChildProcessByStdio<null, Readable, null>;
  readonly text: () => string;
  /** Resolves when the output has come to hold these words. */
  readonly saying: (words: string) => Promise<void>;
}

function start(args: readonly string[]): Output {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const saying = async (words: string): Promise<void> => {
    while (!text.includes(words)) await once(child.stdout, "data");
  };
  return { child, text: () => text, saying };
}

describe("moe-ep launch", () => {
  it("runs a TypeScript script in processes that find each other, and prints their lines with their ranks", () => {
    const { status, stdout } = moeEp("launch", "-n", "3", launched, "one", "-n", "two");
    expect(status).toBe(0);
    expect(stdout.split("\n").toSorted()).toEqual([
      "",
      ...[0, 1, 2].map((rank) => `[${rank}] rank ${rank} of 3, one -n two`),
    ]);
  });

  it("ends all when one fails, with its exit code", () => {
    const { status, stderr } = moeEp("launch", "-n", "2", launched, "fail");
    expect(status).toBe(7);
    expect(stderr).toContain("rank 1 ended with exit code 7");
  });

  it("passes a signal on, and ends when they do", async () => {
    const { child, text, saying } = start([program, "launch", "-n", "2", launched, "wait"]);
    await saying("[0] waiting");
    await saying("[1] waiting");
    child.kill("SIGTERM");
    const [code] = (await once(child, "close")) as [number];
    expect(code).toBe(0);
    for (const rank of [0, 1]) expect(text()).toContain(`[${rank}] asked to end`);
  });

  it.each([
    [["launch", launched], 2, "-n"],
    [["launch", "-n", "0", launched], 2, "from 1"],
    [["launch", "-n", "2"], 2, "no script"],
    [["launch", "-n", "2", "nowhere.js"], 1, "nowhere.js doesn't exist"],
  ])("refuses %j with status %i", (args, code, words) => {
    const { status, stderr } = moeEp(...args);
    expect(status).toBe(code);
    expect(stderr).toContain(words);
  });
});

it("a rank that is killed in a step is a retryable error on the others, who finish in a new group", async () => {
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 3 });
  const ranks = [0, 1, 2].map((rank) => start([killedRank, coordinator.address, String(rank)]));
  const ends = await Promise.all(ranks.map(({ child }) => once(child, "close")));
  expect(ends).toEqual([
    [0, null],
    [null, "SIGKILL"],
    [0, null],
  ]);
  for (const rank of [0, 2]) {
    expect(ranks[rank]?.text().split("\n")).toEqual(["ready", "ERR_PCCL_PEER_LOST true", "same", ""]);
  }
});

describe.skipIf(!hasGolden)(`moe-ep verify (${WHY_SKIPPED})`, () => {
  it("finds golden layers within their tolerances, and with one process's bits", () => {
    const { status, stdout } = moeEp("verify", "--golden", goldenPath("moe"), "--world", "1,2,4", "--json");
    const { results } = JSON.parse(stdout) as {
      results: { world: number; planner: string; maxAbsError: Record<string, number> }[];
    };
    expect(status).toBe(0);
    expect(results).toHaveLength(8 * 3 * 3);
    for (const result of results) {
      expect(result).toMatchObject({ withinTolerance: true, bitIdenticalToSingle: true });
      expect(Object.keys(result.maxAbsError)).toEqual(
        expect.arrayContaining(["out", "routed_out", "grad_x", "grad_topk_weight", "grad_router_weight"]),
      );
    }
  });

  it.each([
    [["verify"], 2, "--golden"],
    [["verify", "--golden", ".", "--world", "two"], 2, "--world"],
    [["verify", "--golden", ".", "--planner", "eplb"], 2, "eplb"],
    [["verify", "--golden", ".", "--dtype", "f64"], 2, "f64"],
    [["verify", "--golden", "nowhere"], 1, "nowhere"],
    [["verify", "--golden", goldenPath("moe"), "--world", "16"], 1, "can't be shared by 16 ranks"],
  ])("refuses %j with status %i", (args, code, words) => {
    const { status, stdout, stderr } = moeEp(...args);
    expect([status, stdout]).toEqual([code, ""]);
    expect(stderr).toContain(words);
  });
});

describe("moe-ep bench", () => {
  const sizes = ["--experts", "8", "--topk", "2", "--hidden", "64", "--ffn", "32", "--tokens", "128"];

  it("runs the planners in turn, and says how they did", () => {
    const scenario = ["--world", "2", "--scenario", "90%:1", "--repeats", "2", "--json"];
    const { status, stdout } = moeEp("bench", ...sizes, ...scenario);
    expect(status).toBe(0);
    const { results } = JSON.parse(stdout) as { results: Record<string, unknown>[] };
    expect(results.map(({ planner }) => planner)).toEqual(["ep", "lla", "auto"]);
    const bound = results[0]?.imbalanceBound as number;
    expect(bound).toBeGreaterThan(1.8);
    for (const result of results) {
      expect(result).toMatchObject({ scenario: "90%:1", world: 2, meanLoad: 256, bitIdenticalToEp: true });
      expect(result.imbalanceBound).toBe(bound);
      expect(result.medianSeconds).toBeGreaterThan(0);
      expect(result.speedupOverEp).toBeGreaterThan(0);
      expect(result.peakBytesPerRank).toHaveLength(2);
      expect(result.weightBytesMoved).toBe(0);
    }
    const [ep, lla] = results as [Record<string, number>, Record<string, number>];
    expect(ep.maxLoad).toBe(256 * bound);
    expect(lla.maxLoad).toBe(256);
    expect(lla.tokensCrossRank).toBeLessThan(ep.tokensCrossRank as number);
  });

  it("replays the routings of a trace, and no others", () => {
    const folder = mkdtempSync(join(tmpdir(), "moe-ep-bench-"));
    const trace = join(folder, "trace");
    const writer = new TraceWriter(trace, { ranks: 2, layerExperts: [8] });
    for (const rank of [0, 1]) {
      // All tokens of rank 0, and none of rank 1's, want expert 0.
      const scenario = rank === 0 ? "100%:1" : "balanced";
      const routing = generateRouting({ scenario, experts: 8, topK: 1, tokens: 40, ranks: 2, rank });
      writer.routing(0, 0, rank, routing);
    }
    writer.close();
    const args = [
      ...sizes,
      "--world",
      "2",
      "--trace",
      trace,
      "--repeats",
      "1",
      "--planner",
      "auto",
      "--json",
    ];
    const { status, stdout } = moeEp("bench", ...args);
    const elsewhere = moeEp("bench", ...sizes, "--world", "1", "--trace", trace);
    rmSync(folder, { recursive: true });
    expect(status).toBe(0);
    expect(elsewhere).toMatchObject({ status: 1, stdout: "" });
    expect(elsewhere.stderr).toContain("is of 2 ranks, not 1");
    const { results } = JSON.parse(stdout) as { results: Record<string, unknown>[] };
    expect(results).toMatchObject([
      { planner: "ep", scenario: "trace trace", maxLoad: 60, meanLoad: 40 },
      { planner: "auto", bitIdenticalToEp: true },
    ]);
  });

  it.each([
    [["bench", ...sizes, "--world", "2"], 2, "--scenario"],
    [["bench", ...sizes, "--world", "9", "--scenario", "balanced"], 2, "--experts"],
    [["bench", ...sizes, "--world", "2", "--scenario", "balanced", "--dtype", "f16"], 2, "f16"],
    [["bench", ...sizes, "--world", "2", "--scenario", "upside"], 1, "upside"],
  ])("refuses %j with status %i", (args, code, words) => {
    const { status, stdout, stderr } = moeEp(...args);
    expect([status, stdout]).toEqual([code, ""]);
    expect(stderr).toContain(words);
  });
});
