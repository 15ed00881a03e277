/** A lock between processes: a file in build/ that names its holder, and that outlives no holder. */
import { existsSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "./command.mjs";

const POLL_MS = 100;
const WAIT_LIMIT_MS = 20 * 60_000;

/**
 * The process's start time keeps a recycled process number from passing for the holder.
 * @param {number} pid
 */
function identity(pid) {
  try {
    // Field 22 of /proc/PID/stat; the name in field 2 may hold spaces, so count from the last parenthesis.
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return `${pid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return `${pid} gone`;
  }
}

/** @param {string} path @returns {string | undefined} the holder, or undefined when nobody holds it */
function holderOf(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** @param {string} holder */
function isAlive(holder) {
  return identity(Number.parseInt(holder, 10)) === holder;
}

/**
 * Creates `path` with its content in one step, so that no reader ever sees it empty.
 * @param {string} path
 */
function tryCreate(path) {
  const own = `${path}.${process.pid}`;
  writeFileSync(own, identity(process.pid));
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "EEXIST") return false;
    throw error;
  } finally {
    unlinkSync(own);
  }
}

/**
 * Removes the lock of a dead holder. Only one process may look and remove at a time: otherwise a slow one
 * could remove the fresh lock that a quicker one has just made.
 * @param {string} path
 */
function removeStale(path) {
  const takeover = `${path}.takeover`;
  if (!tryCreate(takeover)) {
    const holder = holderOf(takeover);
    if (holder !== undefined && !isAlive(holder)) {
      throw new Error(`A process died while it took over ${path}. Delete ${takeover} and run again.`);
    }
    return;
  }
  try {
    const holder = holderOf(path);
    if (holder !== undefined && !isAlive(holder)) unlinkSync(path);
  } finally {
    unlinkSync(takeover);
  }
}

/**
 * Runs `action` while no other process of this working tree is in an action of the same name.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function withLock(name, action) {
  const folder = join(ROOT, "build");
  if (!existsSync(folder)) mkdirSync(folder, { recursive: true });
  const path = join(folder, `${name}.lock`);
  const deadlineMs = performance.now() + WAIT_LIMIT_MS;
  let told = false;
  while (!tryCreate(path)) {
    const holder = holderOf(path);
    if (holder === undefined) continue;
    if (!isAlive(holder)) {
      removeStale(path);
      continue;
    }
    if (performance.now() > deadlineMs) {
      throw new Error(
        `Process ${Number.parseInt(holder, 10)} has held ${path} for too long. End it and run again.`,
      );
    }
    if (!told)
      process.stderr.write(
        `${name}: waiting for process ${Number.parseInt(holder, 10)}, which does the same\n`,
      );
    told = true;
    await sleep(POLL_MS);
  }
  try {
    return await action();
  } finally {
    unlinkSync(path);
  }
}
