/** Goal: a program ends when it wants to, however it does it. Method: child processes, one for each way. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { Coordinator } from "@pccl/core/coordinator";

const FIXTURE = fileURLToPath(new URL("./fixtures/lifecycle.mjs", import.meta.url));

async function run(
  mode: string,
  minPeers: number,
): Promise<{ code: unknown; signal: unknown; output: string }> {
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers });
  const child = spawn(process.execPath, [FIXTURE, mode, coordinator.address], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (data) => {
    output += data;
  });
  child.stderr.on("data", (data) => {
    output += data;
  });
  const watchdog = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const [code, signal] = await once(child, "close");
  clearTimeout(watchdog);
  return { code, signal, output };
}

describe("the end of a process", () => {
  it.each([
    ["no-close", 1, 0, /^ready\n$/],
    ["close-releases", 1, 0, /^ready \[\]\n$/],
    ["exit-in-flight", 2, 7, /^ready\n$/],
    ["throw-in-flight", 2, 1, /the program's own error/],
    ["close-in-flight", 2, 0, /^ready\nERR_PCCL_CLOSED\n$/],
    ["worker-terminated", 2, 0, /^ready\n$/],
    ["three-workers", 1, 0, /^ready\n$/],
  ])(
    "%s",
    async (mode, minPeers, code, output) => {
      const result = await run(mode, minPeers);
      expect(result.output).toMatch(output);
      expect(result).toMatchObject({ code, signal: null });
    },
    30_000,
  );
});
