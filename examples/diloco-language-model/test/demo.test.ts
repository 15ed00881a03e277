/** The whole demo as a program: a short run with a kill and a join, wrong options, and Ctrl-C. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import type { Summary } from "../src/report.js";

const MAIN = fileURLToPath(new URL("../dist/main.js", import.meta.url));
/** Several processes compile and train: seconds on an idle machine, and much longer on a busy one. */
const RUN_TIMEOUT_MS = 240_000;
const folder = mkdtempSync(join(tmpdir(), "pccl-demo-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Output {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(args: readonly string[]): { process: ChildProcess; output: Promise<Output> } {
  const child = spawn(process.execPath, [MAIN, "--out", folder, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data: Buffer) => {
    stdout += data.toString();
  });
  child.stderr.on("data", (data: Buffer) => {
    stderr += data.toString();
  });
  const output = once(child, "close").then(([code]) => ({ code: code as number | null, stdout, stderr }));
  return { process: child, output };
}

/** A demo whose first outer step would take very long, once its peers are in it. */
async function startTraining(): Promise<ReturnType<typeof start> & { children: string[] }> {
  const demo = start(["--peers", "2", "--inner-steps", "100000", "--json"]);
  await new Promise<void>((resolve) => {
    demo.process.stderr?.on("data", (data: Buffer) => {
      if (data.toString().includes("outer step  0/")) resolve();
    });
  });
  const children = childrenOf(demo.process.pid);
  expect(children.length).toBeGreaterThanOrEqual(2);
  return { ...demo, children };
}

/** Ids of the processes that a process has started and that live. */
function childrenOf(pid: number | undefined): string[] {
  try {
    return execFileSync("ps", ["-o", "pid=", "--ppid", String(pid)])
      .toString()
      .trim()
      .split(/\s+/);
  } catch {
    return [];
  }
}

function isAlive(pid: string): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
}

describe("the demo", () => {
  it.each([
    [3, 4],
    [2, 1],
  ])(
    "with %i peers and %i outer steps survives a kill, takes a newcomer in, and reports",
    async (peers, outerSteps) => {
      const args = ["--peers", peers, "--outer-steps", outerSteps, "--inner-steps", 4, "--seed", 3, "--json"];
      const { code, stdout } = await start(args.map(String)).output;
      const lines = stdout.trimEnd().split("\n");
      const summary = JSON.parse(lines.at(-1) ?? "") as Summary;
      expect(summary).toMatchObject({
        ok: true,
        problems: [],
        outerSteps,
        killed: 1,
        joined: 1,
        hashesEqual: true,
      });
      expect(code).toBe(0);
      expect(summary.worldSizes).toHaveLength(outerSteps);
      expect(summary.lossInitial).toBeCloseTo(Math.log(128), 0);
      expect(summary.lossFinal).toBeLessThan(summary.lossInitial);
      expect(stdout).toContain("Hash of parameters and momentum on every live peer: equal");
      expect(readFileSync(join(folder, "loss.svg"), "utf8")).toMatch(/^<svg [^]*<\/svg>\n$/);
    },
    RUN_TIMEOUT_MS,
  );

  it(
    "trains with a single peer until the newcomer comes",
    async () => {
      const { code, stdout } = await start("--peers 1 --outer-steps 3 --inner-steps 2 --json".split(" "))
        .output;
      const summary = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as Summary;
      expect(summary).toMatchObject({ ok: true, killed: 0, joined: 1, worldSizes: [1, 1, 2] });
      expect(code).toBe(0);
    },
    RUN_TIMEOUT_MS,
  );

  it("says what is wrong with its options", async () => {
    const { code, stdout, stderr } = await start(["--peers", "none"]).output;
    expect(code).toBe(2);
    expect(stderr).toContain("--peers must be an integer from 1 to 64");
    expect(stdout).toBe("");
  });

  it("ends with all its processes on Ctrl-C", async () => {
    const { process: demo, output, children } = await startTraining();
    demo.kill("SIGINT");
    const { code, stdout } = await output;
    expect(code).toBe(130);
    expect(JSON.parse(stdout)).toMatchObject({ ok: false });
    expect(children.filter(isAlive)).toEqual([]);
  });

  it("leaves no peer behind when it is killed itself", async () => {
    const { process: demo, output, children } = await startTraining();
    demo.kill("SIGKILL");
    // The children hold its stderr: "close" comes when the last of them has gone.
    await output;
    expect(children.filter(isAlive)).toEqual([]);
  });

  it("fails when a peer dies that should not", async () => {
    const { output, children } = await startTraining();
    process.kill(Number(children[0]), "SIGKILL");
    const { code, stdout } = await output;
    expect(code).toBe(1);
    expect(stdout).toMatch(/"ok":false.*ended by itself \(signal SIGKILL\)/);
    expect(children.filter(isAlive)).toEqual([]);
  });
});
