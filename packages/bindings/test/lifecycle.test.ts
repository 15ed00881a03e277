/**
 * Goal: however a program ends, and whatever it forgets, native code neither crashes nor hangs nor holds it.
 * Method: each scenario of fixtures/lifecycle.mjs in a process of its own, judged by how that process ends.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const SCRIPT = fileURLToPath(new URL("./fixtures/lifecycle.mjs", import.meta.url));

interface End {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(
  scenario: string,
  flags: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<End> {
  const child = spawn(process.execPath, [...flags, SCRIPT, scenario], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    // A scenario that hangs shows as an end by this signal.
    timeout: 50_000,
    killSignal: "SIGKILL",
  });
  const [[code, signal], stdout, stderr] = await Promise.all([
    once(child, "exit") as Promise<[number | null, string | null]>,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { code, signal, stdout, stderr };
}

const CLEAN: End = { code: 0, signal: null, stdout: "", stderr: "" };

describe("a program that ends", () => {
  it.each([
    ["exit-without-close", CLEAN],
    ["op-holds-process", { ...CLEAN, stdout: "op-done\nop-done\n" }],
    ["process-exit-in-flight", { ...CLEAN, code: 3 }],
    ["exit-in-callback", { ...CLEAN, code: 3 }],
    ["process-exit-with-worker-in-flight", { ...CLEAN, code: 3 }],
    ["control-worker-at-exit", CLEAN],
  ])("%s", async (scenario, end) => {
    expect(await run(scenario)).toEqual(end);
  });

  it("throw-in-flight", async () => {
    const { stderr, ...end } = await run("throw-in-flight");
    expect(end).toEqual({ code: 1, signal: null, stdout: "" });
    expect(stderr).toContain("Error: thrown on purpose");
  });
});

describe("a worker that ends", () => {
  it.each([
    "worker-terminated-in-flight",
    "worker-exits-in-flight",
    "three-workers",
    "control-in-terminated-worker",
  ])("%s", async (scenario) => {
    expect(await run(scenario)).toEqual(CLEAN);
  });
});

describe("an engine that is closed", () => {
  it.each([
    ["close-in-flight", CLEAN],
    ["close-leaves-nothing", CLEAN],
    ["close-in-callback", { ...CLEAN, stdout: "op-done\n" }],
    ["control-outlives-engine", CLEAN],
    ["close-while-preparing", CLEAN],
  ])("%s", async (scenario, end) => {
    expect(await run(scenario)).toEqual(end);
  });
});

describe("an op in flight", () => {
  it("reports an exception of the callback as uncaught, and goes on", async () => {
    expect(await run("callback-throws")).toEqual(CLEAN);
  });

  it("keeps its buffers when the program drops them, and lets them go at its end", async () => {
    expect(await run("dropped-buffers", ["--expose-gc"])).toEqual(CLEAN);
  });

  it("blocks neither the event loop nor libuv's thread pool", async () => {
    expect(await run("pool-stays-free", [], { UV_THREADPOOL_SIZE: "1" })).toEqual(CLEAN);
  });

  it("hears control events in a worker while the main thread is busy", async () => {
    expect(await run("control-while-main-is-busy")).toEqual(CLEAN);
  });
});
