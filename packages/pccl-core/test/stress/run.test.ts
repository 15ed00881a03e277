/**
 * Goal: `pccl stress` runs as its help says, and leaves nothing behind. Method: short runs of the built program; its
 * children are found by the run's process id.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { StressSummary } from "../../src/stress/summary.js";

const bin = fileURLToPath(new URL("../../bin/pccl.js", import.meta.url));
const running: ChildProcess[] = [];

afterEach(() => {
  for (const child of running.splice(0)) child.kill("SIGKILL");
});

class Stress {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";

  constructor(...args: string[]) {
    this.child = spawn(process.execPath, [bin, "stress", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    running.push(this.child);
    this.child.stdout?.on("data", (data) => (this.stdout += data));
    this.child.stderr?.on("data", (data) => (this.stderr += data));
  }

  get pid(): number {
    return this.child.pid as number;
  }

  async code(): Promise<number | null> {
    if (this.child.exitCode === null) await once(this.child, "close");
    return this.child.exitCode;
  }
}

function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((candidate) => {
      try {
        return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${candidate}/status`, "utf8"))?.[1]) === pid;
      } catch {
        return false;
      }
    });
}

function isGone(pid: number): boolean {
  try {
    return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return true;
  }
}

function canMakeNamespaces(): boolean {
  const name = `pccl-test-${process.pid}`;
  try {
    execFileSync("ip", ["netns", "add", name], { stdio: "ignore" });
    execFileSync("ip", ["netns", "del", name], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

describe("pccl stress", () => {
  it("kills and stops peers of two groups, and finds nothing wrong", async () => {
    const stress = new Stress(
      ...["--peers", "6", "--groups", "2", "--duration", "5s", "--seed", "11", "--json"],
      ...["--kill", "--stop", "--lease-ms", "5000"],
    );
    const code = await stress.code();
    const summary = JSON.parse(stress.stdout) as StressSummary;
    expect(summary, stress.stderr).toMatchObject({
      ok: true,
      seed: 11,
      groups: 2,
      faults: ["kill", "stop"],
      divergences: [],
      hangs: [],
      leaks: [],
      problems: [],
    });
    expect(code).toBe(0);
    expect(summary.counts.joins).toBeGreaterThanOrEqual(6);
    expect(Object.keys(summary.longestGapMs)).toEqual(["0", "1"]);
    expect(summary.reducesCommitted).toBeGreaterThan(0);
    expect(stress.stderr).toContain("seed 11");
  });

  it("kills the coordinator too, which costs no peer, and removes the state that it kept", async () => {
    const stateOf = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith("pccl-stress-"));
    const before = stateOf();
    // This seed's first turns are: coordinator, peer, coordinator.
    const stress = new Stress(
      ...["--peers", "4", "--duration", "5s", "--seed", "978", "--lease-ms", "5000", "--json"],
      ...["--kill", "--coordinator-kill"],
    );
    const code = await stress.code();
    const summary = JSON.parse(stress.stdout) as StressSummary;
    expect(summary, stress.stderr).toMatchObject({ ok: true, divergences: [], hangs: [], leaks: [] });
    expect(summary.counts.coordinatorRestarts).toBeGreaterThanOrEqual(1);
    expect(summary.counts.removals).toBe(0);
    expect(code).toBe(0);
    expect(stateOf()).toEqual(before);
  });

  it("ends at SIGINT with a summary, and takes its children along", async () => {
    const stress = new Stress("--peers", "3", "--seed", "1");
    await vi.waitUntil(() => childrenOf(stress.pid).length === 4, 20_000);
    const children = childrenOf(stress.pid);
    stress.child.kill("SIGINT");
    expect(await stress.code()).toBe(130);
    expect(stress.stdout).toMatch(/^divergences +0$/m);
    expect(children.every(isGone)).toBe(true);
  });

  it("leaves no process when it is killed", async () => {
    const stress = new Stress("--peers", "3", "--seed", "1");
    await vi.waitUntil(() => childrenOf(stress.pid).length === 4, 20_000);
    const children = childrenOf(stress.pid);
    stress.child.kill("SIGKILL");
    await vi.waitUntil(() => children.every(isGone), 20_000);
  });

  it("notices a peer that dies without its doing", async () => {
    const stress = new Stress("--peers", "3", "--seed", "1", "--json");
    await vi.waitUntil(() => childrenOf(stress.pid).length === 4, 20_000);
    const victim = childrenOf(stress.pid).find((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("stress/peer.js"),
    );
    process.kill(victim as number, "SIGKILL");
    expect(await stress.code()).toBe(1);
    const { ok, problems } = JSON.parse(stress.stdout) as StressSummary;
    expect(ok).toBe(false);
    expect(problems).toEqual([expect.stringMatching(/^process \d ended by itself: signal SIGKILL$/)]);
  });

  it.runIf(canMakeNamespaces())(
    "cuts peers and pairs off, resets connections, and removes its namespaces, a killed run's too",
    async () => {
      const namespaces = (): string =>
        execFileSync("ip", ["netns", "list"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
      const killed = new Stress("--netns", "--peers", "3", "--seed", "1");
      await vi.waitUntil(() => namespaces().includes(`pccl-stress-${killed.pid}-2`), 20_000);
      killed.child.kill("SIGKILL");
      await killed.code();
      const stress = new Stress(
        ...["--netns", "--peers", "4", "--duration", "6s", "--seed", "864", "--lease-ms", "5000", "--json"],
      );
      const code = await stress.code();
      const summary = JSON.parse(stress.stdout) as StressSummary;
      expect(summary, stress.stderr).toMatchObject({ ok: true, divergences: [], hangs: [], leaks: [] });
      // This seed's first turns are: reset, pair, peer.
      const { resets, pairCuts, blackHoles } = summary.counts;
      expect(Math.min(resets, pairCuts, blackHoles)).toBeGreaterThan(0);
      expect(code).toBe(0);
      expect(namespaces()).not.toMatch(new RegExp(`pccl-stress-(${killed.pid}|${stress.pid})-`));
    },
  );

  it.each([
    [["--peers", "2"], "--peers must be an integer from 3"],
    [["--peers", "5", "--groups", "2"], "--peers must be an integer from 6"],
    [["--duration", "60"], "--duration must be a time like"],
    [["--seed", "x"], "--seed must be an integer"],
    [["--hurt"], "--hurt"],
  ])("refuses the arguments %j", async (args, message) => {
    const stress = new Stress(...args);
    expect(await stress.code()).toBe(2);
    expect(stress.stderr).toContain(message);
  });

  it("shows its help", async () => {
    const stress = new Stress("--help");
    expect(await stress.code()).toBe(0);
    for (const flag of ["--peers", "--duration", "--seed", "--kill", "--stop", "--netns", "Exit codes"]) {
      expect(stress.stdout).toContain(flag);
    }
  });
});
