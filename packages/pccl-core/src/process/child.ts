/** A child process that works for this one: started in a namespace or not, and sure to be gone at the end. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export interface ChildOptions {
  readonly namespace: string | undefined;
  /** A module to load before the program. */
  readonly preload?: URL;
  /** In a session of its own: Ctrl-C in a terminal doesn't reach it. */
  readonly detached?: boolean;
  /** Its standard output is read by the run; else it goes where its errors go. */
  readonly piped?: boolean;
}

export function start(
  program: string | URL,
  args: readonly string[],
  { namespace, preload, detached = false, piped = false }: ChildOptions,
): ChildProcess {
  const flags = preload === undefined ? [] : [`--import=${preload.href}`];
  return fork(typeof program === "string" ? program : fileURLToPath(program), [...args], {
    stdio: ["ignore", piped ? "pipe" : 2, 2, "ipc"],
    detached,
    ...(namespace === undefined
      ? { execArgv: flags }
      : // `ip` becomes the program, so that signals and the channel reach it.
        { execPath: "ip", execArgv: ["netns", "exec", namespace, process.execPath, ...flags] }),
  });
}

export function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Whether the process ends within the time. */
export async function endsWithin(child: ChildProcess, timeoutMs: number): Promise<boolean> {
  if (hasEnded(child)) return true;
  const timer = new AbortController();
  await Promise.race([
    once(child, "exit"),
    delay(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined),
  ]);
  timer.abort();
  return hasEnded(child);
}

export async function kill(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}
