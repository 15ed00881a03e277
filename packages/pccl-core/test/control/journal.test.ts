/**
 * The coordinator's journal on a real disk: what comes back after an end at any byte, what is refused and how, and
 * that a replay gives the very state that was.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PROTOCOL_VERSION } from "../../src/base/limits.js";
import { StateDirectory } from "../../src/control/journal.js";
import { decodeEntries, type JournaledEvent } from "../../src/control/journal-entry.js";
import { JournalFile, readJournalFile } from "../../src/control/journal-file.js";
import { MachineRunner } from "../../src/control/machine-runner.js";
import type { StateEntry } from "../../src/membership/messages.js";
import { type CoordinatorEffect, createCoordinator } from "../../src/membership/state.js";
import { RandomWorld, textOf } from "./random-world.js";

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pccl-journal-"));
  path = join(folder, "journal");
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const config = { leaseMs: 1_000, minPeers: 1, peersMax: 100, key: new Uint8Array(16).fill(7) };

describe("a journal file", () => {
  const frames = ["first", "", "second", "x".repeat(300)].map((text) => Buffer.from(text));
  let whole: Buffer;
  /** Where each frame ends. */
  let ends: number[];

  beforeEach(async () => {
    const file = await JournalFile.replace(path, frames[0] as Buffer);
    ends = [file.bytes];
    for (const frame of frames.slice(1)) {
      await file.append(frame);
      ends.push(file.bytes);
    }
    await file.close();
    whole = readFileSync(path);
  });

  it("gives back what was written", async () => {
    expect(await readJournalFile(path)).toEqual({ frames, tornBytes: 0 });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await readJournalFile(`${path}.none`)).toBeUndefined();
  });

  it("gives back the whole frames, wherever its end was cut off", async () => {
    for (let length = ends[0] as number; length < whole.length; length++) {
      writeFileSync(path, whole.subarray(0, length));
      const count = ends.filter((end) => end <= length).length;
      expect(await readJournalFile(path)).toEqual({
        frames: frames.slice(0, count),
        tornBytes: length - (ends[count - 1] as number),
      });
    }
  });

  it("drops a last frame that isn't what was written, and whatever else stands at the end", async () => {
    for (let at = ends.at(-2) as number; at < whole.length; at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] as number) ^ 0x10;
      writeFileSync(path, bytes);
      expect((await readJournalFile(path))?.frames).toEqual(frames.slice(0, -1));
    }
    for (const end of [Buffer.alloc(5_000), Buffer.alloc(5_000, 0xf5), whole.subarray(-200)]) {
      writeFileSync(path, Buffer.concat([whole, end]));
      expect(await readJournalFile(path)).toEqual({ frames, tornBytes: end.length });
    }
  });

  it("refuses damage before a good frame, naming the file and the byte", async () => {
    const begin = ends[1] as number;
    for (let at = begin; at < (ends[2] as number); at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] as number) ^ 0x01;
      writeFileSync(path, bytes);
      await expect(readJournalFile(path)).rejects.toMatchObject({
        code: "ERR_PCCL_JOURNAL_UNREADABLE",
        message: expect.stringContaining(`${path} at byte ${begin}: the frame is damaged`),
      });
    }
  });

  it("refuses a damaged beginning, and what is no journal", async () => {
    for (let at = 0; at < (ends[0] as number); at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] as number) ^ 0x80;
      writeFileSync(path, bytes);
      await expect(readJournalFile(path)).rejects.toMatchObject({ code: "ERR_PCCL_JOURNAL_UNREADABLE" });
    }
    for (const bytes of [
      Buffer.alloc(0),
      whole.subarray(0, 10),
      Buffer.from("# notes of another program\n"),
    ]) {
      writeFileSync(path, bytes);
      await expect(readJournalFile(path)).rejects.toThrow(/at byte 0: this is not the journal/);
    }
    writeFileSync(path, whole.subarray(0, (ends[0] as number) - 1));
    await expect(readJournalFile(path)).rejects.toThrow("the first frame is damaged");
  });

  it("refuses another version, naming both", async () => {
    const bytes = Buffer.from(whole);
    bytes.writeUInt32LE(PROTOCOL_VERSION + 1, 12);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 20)), 20);
    writeFileSync(path, bytes);
    await expect(readJournalFile(path)).rejects.toMatchObject({
      code: "ERR_PCCL_JOURNAL_UNREADABLE",
      message: expect.stringMatching(
        new RegExp(`protocol version ${PROTOCOL_VERSION + 1}, and this program .* ${PROTOCOL_VERSION}\\.`),
      ),
    });
  });

  it("doesn't take a frame within a payload for one of its own", async () => {
    const file = await JournalFile.replace(path, Buffer.from("a"));
    await file.append(whole.subarray(ends[1]));
    await file.close();
    const bytes = readFileSync(path);
    writeFileSync(path, bytes.subarray(0, -1));
    expect((await readJournalFile(path))?.frames).toEqual([Buffer.from("a")]);
  });

  it("is replaced in one step: an attempt that was cut short leaves the old one", async () => {
    writeFileSync(`${path}.new`, whole.subarray(0, 30));
    expect((await readJournalFile(path))?.frames).toEqual(frames);
    await (await JournalFile.replace(path, Buffer.from("new"))).close();
    expect((await readJournalFile(path))?.frames).toEqual([Buffer.from("new")]);
    expect(existsSync(`${path}.new`)).toBe(false);
  });

  it("is given up when somebody else has replaced it", async () => {
    const file = await JournalFile.replace(path, Buffer.from("mine"));
    await (await JournalFile.replace(path, Buffer.from("another's"))).close();
    await expect(file.append(Buffer.from("lost"))).rejects.toMatchObject({
      code: "ERR_PCCL_JOURNAL_FAILED",
      message: expect.stringContaining("deleted or replaced"),
    });
    await file.close();
  });
});

describe("a state directory", () => {
  it("is made when it isn't there, for its user alone", async () => {
    const deep = join(folder, "a", "b");
    const directory = await StateDirectory.open(deep);
    expect(await directory.restore()).toBeUndefined();
    expect(statSync(deep).mode & 0o777).toBe(0o700);
    await directory.release();
  });

  it("belongs to one coordinator at a time", async () => {
    const directory = await StateDirectory.open(folder);
    await expect(StateDirectory.open(folder)).rejects.toMatchObject({
      code: "ERR_PCCL_JOURNAL_IN_USE",
      message: expect.stringContaining(folder),
    });
    await directory.release();
    await (await StateDirectory.open(folder)).release();
  });

  it("is free again at once when its coordinator is killed", async () => {
    const module = pathToFileURL(join(import.meta.dirname, "../../dist/control/journal.js")).href;
    const program = `
      const { StateDirectory } = await import(${JSON.stringify(module)});
      await StateDirectory.open(${JSON.stringify(folder)});
      console.log("locked");
      setInterval(() => {}, 1_000);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
    await once(child.stdout, "data");
    await expect(StateDirectory.open(folder)).rejects.toMatchObject({ code: "ERR_PCCL_JOURNAL_IN_USE" });
    child.kill("SIGKILL");
    await once(child, "exit");
    await (await StateDirectory.open(folder)).release();
  });

  it("says what is wrong with a path that can't be one", async () => {
    await writeFile(path, "a file");
    for (const bad of [path, join(path, "below")]) {
      await expect(StateDirectory.open(bad)).rejects.toMatchObject({
        code: "ERR_PCCL_JOURNAL_FAILED",
        message: expect.stringContaining(bad),
      });
    }
  });
});

/** Runs the machine on a journal, fed with another world's events. */
class Recorder {
  readonly effects: CoordinatorEffect[] = [];
  failure: Error | undefined;
  readonly runner: MachineRunner;
  /** Called with each effect, as it is carried out. */
  onEffect: () => void = () => {};

  private constructor(directory: StateDirectory, state = createCoordinator(config), nowMs = 0) {
    this.runner = new MachineRunner(state, nowMs, {
      carryOut: (effect) => {
        this.effects.push(effect);
        this.onEffect();
      },
      onBug: (_, error) => {
        throw error;
      },
      onFailed: (error) => {
        this.failure = error;
      },
    });
    this.#directory = directory;
  }

  readonly #directory: StateDirectory;

  static async start(folderPath: string): Promise<Recorder> {
    const directory = await StateDirectory.open(folderPath);
    const restored = await directory.restore();
    const recorder = new Recorder(directory, restored?.state, restored?.nowMs);
    await recorder.runner.record(directory);
    return recorder;
  }

  async stop(): Promise<void> {
    await this.runner.stop();
    await this.#directory.release();
  }
}

/** The events of a random world. */
function eventsOf(seed: number, actions: number): JournaledEvent[] {
  const events: JournaledEvent[] = [];
  new RandomWorld(seed, (event) => void events.push(event as JournaledEvent)).run(actions);
  return events;
}

async function readEntries(): Promise<{ number: number; kind: string }[]> {
  const { frames } = (await readJournalFile(path)) ?? { frames: [] };
  return frames
    .slice(1)
    .flatMap((frame) => decodeEntries(frame).map(({ number, event }) => ({ number, kind: event.kind })));
}

describe("a journal", () => {
  it("gives back the state that was, over any number of ends", async () => {
    for (const seed of [1, 2, 3, 4]) {
      const events = eventsOf(seed, 200);
      const generations = 4;
      for (let generation = 0; generation < generations; generation++) {
        const recorder = await Recorder.start(folder);
        const { runner } = recorder;
        for (const [index, event] of events.entries()) {
          if (index % generations !== generation) continue;
          runner.step(event);
          // Some go to the disk alone, some together.
          if (index % 7 === 0) await new Promise(setImmediate);
        }
        await recorder.stop();
        expect(recorder.failure).toBeUndefined();
        const again = await StateDirectory.open(folder);
        const restored = await again.restore();
        await again.release();
        expect(textOf(restored?.state)).toBe(textOf(runner.state));
        expect(restored?.nowMs).toBeLessThanOrEqual(runner.nowMs);
      }
      await rm(path);
    }
  });

  it("goes on with the machine's clock where it stood", async () => {
    const first = await Recorder.start(folder);
    await new Promise((resolve) => setTimeout(resolve, 30));
    first.runner.step({ kind: "tick" });
    const tickedAtMs = first.runner.state.tickedAtMs as number;
    await first.stop();
    expect(tickedAtMs).toBeGreaterThanOrEqual(30 - 1);
    const second = await Recorder.start(folder);
    expect(second.runner.nowMs).toBeGreaterThanOrEqual(tickedAtMs);
    await second.stop();
  });

  it("lets effects out in order, and none before its event is in the file", async () => {
    const events = eventsOf(5, 150);
    const alone: CoordinatorEffect[] = [];
    const reference = new MachineRunner(createCoordinator(config), 0, {
      carryOut: (effect) => void alone.push(effect),
      onBug: () => {},
      onFailed: () => {},
    });
    const recorder = await Recorder.start(folder);
    /** How many effects the events up to each one have, and what was out when it was stepped. */
    const effectsBefore: number[] = [];
    for (const event of events) {
      reference.step(event);
      recorder.runner.step(event);
      effectsBefore.push(alone.length);
    }
    expect(recorder.effects).toEqual([]);
    let checked = 0;
    recorder.onEffect = () => {
      const out = recorder.effects.length;
      const number = effectsBefore.findIndex((count) => count >= out) + 1;
      const bytes = readFileSync(path);
      // One look at the file for each group that comes out.
      if (checked >= number) return;
      const frames: Buffer[] = [];
      for (let at = 24; at < bytes.length; at += 12 + bytes.readUInt32LE(at + 4)) {
        frames.push(bytes.subarray(at + 12, at + 12 + bytes.readUInt32LE(at + 4)));
      }
      const last =
        frames
          .slice(1)
          .flatMap((frame) => decodeEntries(frame))
          .at(-1)?.number ?? 0;
      expect(last).toBeGreaterThanOrEqual(number);
      checked = last;
    };
    await recorder.stop();
    expect(checked).toBeGreaterThan(0);
    const kinds = (list: readonly CoordinatorEffect[]): string[] => list.map((effect) => effect.kind);
    expect(kinds(recorder.effects)).toEqual(kinds(alone));
  });

  it("writes what nobody waits for with the next event that somebody waits for", async () => {
    const recorder = await Recorder.start(folder);
    const { runner } = recorder;
    runner.step({ kind: "tick" });
    runner.step({ kind: "connected", connection: 1, address: "h", secret: new Uint8Array(16) });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await readEntries()).toEqual([]);
    const endpoint = { host: "h", port: 1 };
    const message = {
      kind: "register",
      protocolVersion: PROTOCOL_VERSION,
      group: 0,
      endpoint,
      hostId: "",
    } as const;
    runner.step({ kind: "message", connection: 1, seq: 0, ack: 0, message });
    await recorder.stop();
    expect(await readEntries()).toEqual([
      { number: 1, kind: "tick" },
      { number: 2, kind: "connected" },
      { number: 3, kind: "message" },
    ]);
  });

  it("begins anew with a snapshot when the events have outgrown it, and loses nothing", async () => {
    const recorder = await Recorder.start(folder);
    const { runner } = recorder;
    const inode = statSync(path).ino;
    const secret = new Uint8Array(16);
    runner.step({ kind: "connected", connection: 1, address: "h", secret });
    const endpoint = { host: "h", port: 1 };
    const register = {
      kind: "register",
      protocolVersion: PROTOCOL_VERSION,
      group: 0,
      endpoint,
      hostId: "",
    } as const;
    runner.step({ kind: "message", connection: 1, seq: 0, ack: 0, message: register });
    const entries = Array.from({ length: 20_000 }, (_, i): StateEntry => {
      return { name: `layer.${i}`, dtype: "f32", count: i, hash: "ab".repeat(16), allowInequality: false };
    });
    let [seq, largest, replacements] = [0, 0, 0];
    for (let last = inode; replacements < 2; ) {
      const message = {
        kind: "sync-offer",
        requestId: ++seq,
        revision: 1,
        strategy: "send-only",
        background: false,
        entries,
      } as const;
      runner.step({ kind: "message", connection: 1, seq, ack: 0, message });
      await new Promise(setImmediate);
      const { ino, size } = statSync(path);
      if (ino !== last) replacements++;
      last = ino;
      largest = Math.max(largest, size);
    }
    expect(largest).toBeLessThan(16 * 1024 * 1024);
    const offers = seq;
    await recorder.stop();
    const directory = await StateDirectory.open(folder);
    const restored = await directory.restore();
    await directory.release();
    expect(textOf(restored?.state)).toBe(textOf(runner.state));
    expect(restored?.state.peers.get(1)?.channel.received).toBe(offers);
    expect(restored?.replayed).toBeLessThan(offers);
  });

  it("refuses events that don't follow each other", async () => {
    const recorder = await Recorder.start(folder);
    recorder.runner.step({ kind: "tick" });
    await recorder.stop();
    const { frames } = (await readJournalFile(path)) ?? { frames: [] };
    const file = await JournalFile.replace(path, frames[0] as Buffer);
    await file.append(frames[1] as Buffer);
    await file.append(frames[1] as Buffer);
    await file.close();
    const directory = await StateDirectory.open(folder);
    await expect(directory.restore()).rejects.toMatchObject({
      code: "ERR_PCCL_JOURNAL_UNREADABLE",
      message: expect.stringContaining("event 1 stands where 2 should"),
    });
    await directory.release();
  });

  it("stops for good when its file is gone, and nothing that it couldn't keep gets out", async () => {
    const recorder = await Recorder.start(folder);
    const { runner } = recorder;
    rmSync(path);
    runner.step({ kind: "restarted" });
    while (recorder.failure === undefined) await new Promise(setImmediate);
    expect(recorder.failure).toMatchObject({ code: "ERR_PCCL_JOURNAL_FAILED" });
    runner.step({ kind: "restarted" });
    await recorder.stop();
    expect(recorder.effects).toEqual([]);
  });

  const small = process.getuid?.() === 0;
  it.skipIf(!small)("stops for good when the disk is full (needs root, to mount a small one)", async () => {
    const disk = join(folder, "disk");
    await (await StateDirectory.open(disk)).release();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]);
    try {
      const recorder = await Recorder.start(disk);
      let written = 0;
      while (recorder.failure === undefined) {
        recorder.runner.step({ kind: "restarted" });
        written++;
        await new Promise(setImmediate);
      }
      expect(written).toBeGreaterThan(10);
      expect(recorder.failure.message).toContain("ENOSPC");
      const out = recorder.effects.length;
      await recorder.stop();
      // What was let out is what comes back.
      const kept = await readFile(join(disk, "journal"));
      await writeFile(path, kept);
      const directory = await StateDirectory.open(folder);
      const restored = await directory.restore();
      await directory.release();
      expect(restored?.replayed).toBeGreaterThanOrEqual(out);
    } finally {
      execFileSync("umount", [disk]);
    }
  });
});
