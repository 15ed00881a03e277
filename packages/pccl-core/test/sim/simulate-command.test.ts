/** `pccl simulate` as users run it: the built program in child processes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const bin = fileURLToPath(new URL("../../bin/pccl.js", import.meta.url));

async function simulate(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [bin, "simulate", ...args]);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => (stdout += data));
  child.stderr.on("data", (data) => (stderr += data));
  const [code] = await once(child, "close");
  return { code, stdout, stderr };
}

describe("pccl simulate", () => {
  it("runs a range of seeds on several threads and says what it reached", async () => {
    const { code, stdout } = await simulate("--seeds", "1..120", "--threads", "2");
    expect(stdout).toMatch(/^120 seeds, [\d.]+ virtual hours, \d+ seeds\/s, from seed 1 on/);
    expect(stdout).toMatch(/happened: .*commits \d+/);
    expect(code).toBe(0);
  });

  it("counts the same, whatever the number of threads", async () => {
    const runs = await Promise.all(
      ["1", "2"].map((threads) => simulate("--seeds", "1..120", "--json", "--threads", threads)),
    );
    const [first, second] = runs.map(({ stdout }) => {
      const { from, seeds, counts, violation } = JSON.parse(stdout) as Record<string, unknown>;
      return { from, seeds, counts, violation };
    });
    expect(first).toEqual(second);
    expect(first).toMatchObject({ from: 1, seeds: 120, violation: null });
  });

  it("stops in time", async () => {
    const { code, stdout } = await simulate("--minutes", "0.02", "--threads", "1");
    expect(stdout).toMatch(/seeds, .* from seed \d+ on/);
    expect(code).toBe(0);
  });

  it("prints one run in columns of time, process and event", async () => {
    const { code, stdout } = await simulate("--seed", "1", "--trace");
    expect(stdout).toMatch(/^ +\d+\.\d{4} {2}h\d+ +starts$/m);
    expect(stdout).toMatch(/^ +\d+\.\d{4} {2}coordinator +installed, epoch 1, worldSize \d+/m);
    expect(stdout).toMatch(/^ +\d+\.\d{4} {2}h\d+=\d+ +-> 1 ready epoch 1$/m);
    expect(stdout).toMatch(/^seed 1: .* no rule was broken$/m);
    expect(code).toBe(0);
  });

  it("gives a run as JSON, with the scenario that was drawn for it", async () => {
    const { code, stdout } = await simulate("--seed", "1", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ seed: 1, violation: null, scenario: { seed: 1 } });
    expect(code).toBe(0);
  });

  it.each([
    [["--seeds", "5"], /--seeds must be a range like 1\.\.1000, got "5"/],
    [["--seeds", "9..5"], /--seeds/],
    [["--seed", "x"], /--seed/],
    [["--seed", "1", "--minutes", "1"], /--seed is one seed alone/],
    [["--trace"], /--trace needs --seed/],
    [["--minutes", "0"], /--minutes must be a number above 0, got "0"/],
    [["--threads", "0"], /--threads/],
    [["--sedes", "1..2"], /--sedes/],
  ])("refuses %j", async (args, message) => {
    const { code, stderr } = await simulate(...args);
    expect(stderr).toMatch(message);
    expect(stderr).toContain("See `pccl simulate --help`.");
    expect(code).toBe(2);
  });

  it("explains itself", async () => {
    const { code, stdout } = await simulate("--help");
    expect(stdout).toMatch(/^Usage: pccl simulate \[options\]/);
    expect(code).toBe(0);
  });
});
