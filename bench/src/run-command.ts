/** Runs a command that prints a figure, for so long and no longer. */
import { spawn } from "node:child_process";

const RUN_TIMEOUT_MS = 300_000;
const KILL_AFTER_MS = 5_000;

/** Resolves to what `read` makes of the command's output, or to why there is none, in words. */
export async function runCommand(
  [program, ...args]: readonly [string, ...string[]],
  read: (output: string) => number,
  signal: AbortSignal,
): Promise<number | string> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  // Launchers end their ranks when they are told to end, and can't when they are killed.
  let killTimer: NodeJS.Timeout | undefined;
  const end = (): void => {
    child.kill("SIGTERM");
    killTimer ??= setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS);
  };
  const timer = setTimeout(end, RUN_TIMEOUT_MS);
  signal.addEventListener("abort", end, { once: true });
  try {
    const how = await new Promise<string | undefined>((resolve) => {
      child.once("error", ({ message }) => resolve(message));
      child.once("close", (code, ended) => resolve(code === 0 ? undefined : (ended ?? `exit code ${code}`)));
    });
    return how === undefined ? read(stdout) : `${how}: ${stderr.trim().slice(-500)}`;
  } catch (error) {
    return String(error);
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    signal.removeEventListener("abort", end);
  }
}
