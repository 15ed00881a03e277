/**
 * Starts processes that all want one lock, some of which are killed while they hold it, and reads from their
 * notes that each one got it and that no two held it at the same time.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { ROOT } from "./lib/command.mjs";

const program = fileURLToPath(new URL("./fixtures/hold-lock.mjs", import.meta.url));

it("lets one process in at a time, and outlives none of its holders", async () => {
  const folder = mkdtempSync(join(tmpdir(), "pccl-lock-"));
  const name = `lock-test-${process.pid}`;
  try {
    const log = join(folder, "log");
    const ends = Array.from({ length: 12 }, (_, i) => (i % 3 === 0 ? "die" : "end"));
    const exits = await Promise.all(
      ends.map((end) =>
        once(spawn(process.execPath, [program, name, log, end], { stdio: "ignore" }), "exit"),
      ),
    );
    expect(exits).toEqual(ends.map((end) => (end === "die" ? [null, "SIGKILL"] : [0, null])));

    const notes = readFileSync(log, "utf8").trimEnd().split("\n");
    expect(notes.filter((note) => note.endsWith(" in"))).toHaveLength(12);
    expect(notes.filter((note) => note.endsWith(" out"))).toHaveLength(8);
    for (const [i, note] of notes.entries()) {
      if (note.endsWith(" out")) expect(notes[i - 1]).toBe(note.replace("out", "in"));
    }
  } finally {
    rmSync(folder, { recursive: true });
    rmSync(join(ROOT, "build", `${name}.lock`), { force: true });
  }
});
