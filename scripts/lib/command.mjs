/** Runs a program, keeps what it prints, and takes it along when this process is told to end. */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { constants as system } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/**
 * @typedef {object} CommandResult
 * @property {number} code exit status; 128 + signal number when a signal ended it, 127 when it couldn't start
 * @property {string} output stdout and stderr in the order in which they came
 */

/** @type {Set<import("node:child_process").ChildProcess>} */
const running = new Set();

/** @type {readonly NodeJS.Signals[]} */
const ENDING_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];

/** @param {NodeJS.Signals} signal */
function endWithChildren(signal) {
  for (const { pid } of running) {
    try {
      if (pid !== undefined) process.kill(-pid, signal);
    } catch {
      // It has just ended by itself.
    }
  }
  process.exit(128 + system.signals[signal]);
}

/**
 * @param {readonly [string, ...string[]]} argv program and arguments
 * @param {{ env?: NodeJS.ProcessEnv, echo?: boolean }} [options] `env` is added to this process's own;
 *   `echo` also passes the output on to stdout as it comes
 * @returns {Promise<CommandResult>}
 */
export function run(argv, { env = {}, echo = false } = {}) {
  const [program, ...args] = argv;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      // A process group of its own, so that a signal reaches the compiler below pnpm below cmake, too.
      detached: true,
    });
    if (running.size === 0) for (const signal of ENDING_SIGNALS) process.on(signal, endWithChildren);
    running.add(child);

    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (/** @type {string} */ text) => {
        output += text;
        if (echo) process.stdout.write(text);
      });
    }
    /** @param {number} code */
    const finish = (code) => {
      running.delete(child);
      if (running.size === 0) for (const signal of ENDING_SIGNALS) process.off(signal, endWithChildren);
      resolve({ code, output });
    };
    child.on("error", (error) => {
      output += `${program}: ${error.message}\n`;
      finish(127);
    });
    child.on("close", (code, signal) => {
      if (running.has(child)) finish(code ?? 128 + (signal === null ? 0 : system.signals[signal]));
    });
  });
}

/** @param {string} program */
export function onPath(program) {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** @param {number} startedMs @returns {string} */
export function secondsSince(startedMs) {
  return `${((performance.now() - startedMs) / 1000).toFixed(1)} s`;
}
