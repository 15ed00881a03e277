/**
 * The coordinator's memory over restarts. The machine is a pure function, so its state is its last snapshot and the
 * events since: the journal holds exactly these, and a start replays them. Events are written in groups: while one
 * group is on its way to the disk, the next one gathers. When the events outgrow the snapshot, a new file with a new
 * snapshot takes the place of the next group.
 */
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PcclError } from "../base/errors.js";
import { step } from "../membership/coordinator.js";
import type { CoordinatorState } from "../membership/state.js";
import { decodeEntries, encodeEntry, type JournaledEvent } from "./journal-entry.js";
import { JournalFile, journalFailed, journalUnreadable, readJournalFile } from "./journal-file.js";
import { decodeSnapshot, encodeSnapshot } from "./snapshot.js";
import { StateLock } from "./state-lock.js";

const FILE_NAME = "journal";
/** A new snapshot is due when the events have this many times its size, and at least so many bytes. */
const COMPACTION_FACTOR = 4;
const COMPACTION_BYTES_MIN: number = 4 * 1024 * 1024;
/** Events that nobody waits for are written when they have gathered to this. */
const LAZY_BYTES_MAX: number = 64 * 1024;
/** A group of events is cut here, so that one write stays small beside memory. */
const GROUP_BYTES_MAX: number = 16 * 1024 * 1024;

/** What a start found in the directory. */
export interface Restored {
  readonly state: CoordinatorState;
  /** The machine's clock at its last event. */
  readonly nowMs: number;
  /** Events behind the snapshot. */
  readonly replayed: number;
  /** Bytes at the end that a killed coordinator had begun to write. */
  readonly tornBytes: number;
}

export interface JournalHooks {
  /** The events up to this number are on the disk. */
  onDurable(number: number): void;
  /** The disk refused. Nothing is written any more; events that aren't durable are lost. */
  onFailed(error: PcclError): void;
}

/** A directory that this process alone has. */
export class StateDirectory {
  readonly #path: string;
  readonly #lock: StateLock;
  /** The number of the last event that was read. */
  #number = 0;

  /**
   * Makes the directory if it isn't there, and keeps other coordinators out. Throws ERR_PCCL_JOURNAL_IN_USE or
   * ERR_PCCL_JOURNAL_FAILED.
   */
  static async open(path: string): Promise<StateDirectory> {
    try {
      await mkdir(path, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw journalFailed(path, "write", error);
    }
    return new StateDirectory(resolve(path), await StateLock.take(path));
  }

  private constructor(path: string, lock: StateLock) {
    this.#path = path;
    this.#lock = lock;
  }

  /**
   * Reads the journal; undefined when there is none. Changes nothing. Throws ERR_PCCL_JOURNAL_UNREADABLE or
   * ERR_PCCL_JOURNAL_FAILED.
   */
  async restore(): Promise<Restored | undefined> {
    const path = join(this.#path, FILE_NAME);
    const contents = await readJournalFile(path);
    if (contents === undefined) return undefined;
    const { frames, tornBytes } = contents;
    try {
      const snapshot = decodeSnapshot(frames[0] as Buffer);
      const { state } = snapshot;
      let { number, nowMs } = snapshot;
      for (const frame of frames.slice(1)) {
        for (const entry of decodeEntries(frame)) {
          if (entry.number !== ++number)
            throw new Error(`event ${entry.number} stands where ${number} should`);
          nowMs = entry.nowMs;
          try {
            step(state, entry.event, nowMs);
          } catch {
            // It failed in the same way when it came, and the state is as it was then.
          }
        }
      }
      this.#number = number;
      return { state, nowMs, replayed: number - snapshot.number, tornBytes };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw journalUnreadable(path, 0, `its frames are whole, but make no sense: ${reason}`);
    }
  }

  /** Begins a new file, with what `state` is now; events are appended to it. Throws ERR_PCCL_JOURNAL_FAILED. */
  async begin(state: CoordinatorState, nowMs: number, hooks: JournalHooks): Promise<Journal> {
    const path = join(this.#path, FILE_NAME);
    const first = encodeSnapshot({ number: this.#number, nowMs, state });
    const file = await JournalFile.replace(path, first);
    return new Journal(path, file, { number: this.#number, nowMs, state }, hooks);
  }

  /** Lets other coordinators in. */
  async release(): Promise<void> {
    await this.#lock.release();
  }
}

export class Journal {
  readonly #path: string;
  readonly #state: CoordinatorState;
  readonly #hooks: JournalHooks;
  #file: JournalFile;
  /** The last event's number and time. */
  #number: number;
  #nowMs: number;
  /** Events that aren't written yet. */
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  /** Somebody waits for what is waiting. */
  #due = false;
  #writing: Promise<void> | undefined;
  #failed = false;

  constructor(
    path: string,
    file: JournalFile,
    { number, nowMs, state }: { number: number; nowMs: number; state: CoordinatorState },
    hooks: JournalHooks,
  ) {
    this.#path = path;
    this.#file = file;
    this.#number = number;
    this.#nowMs = nowMs;
    this.#state = state;
    this.#hooks = hooks;
  }

  /** The number of the last event. */
  get number(): number {
    return this.#number;
  }

  /**
   * Adds the event that the state has just stepped through. `lazy`: nobody has to see it on the disk; it goes
   * there with the next one that somebody waits for.
   */
  append(event: JournaledEvent, nowMs: number, lazy: boolean): void {
    if (this.#failed) return;
    this.#nowMs = nowMs;
    const bytes = encodeEntry({ number: ++this.#number, nowMs, event });
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (lazy && this.#waitingBytes < LAZY_BYTES_MAX) return;
    this.#due = true;
    this.#writing ??= this.#write();
  }

  /** Writes what is waiting and lets go of the file; nothing may be appended any more. */
  async close(): Promise<void> {
    if (this.#waiting.length > 0) {
      this.#due = true;
      this.#writing ??= this.#write();
    }
    await this.#writing;
    await this.#file.close();
  }

  async #write(): Promise<void> {
    // The events of this turn of the event loop go together.
    await Promise.resolve();
    try {
      while (this.#due) await this.#writeGroup();
    } catch (error) {
      this.#failed = true;
      this.#waiting = [];
      this.#hooks.onFailed(error instanceof PcclError ? error : journalFailed(this.#path, "write", error));
    } finally {
      this.#writing = undefined;
    }
  }

  async #writeGroup(): Promise<void> {
    let number = this.#number;
    const { bytes, firstFrameBytes } = this.#file;
    const eventBytes = bytes - firstFrameBytes + this.#waitingBytes;
    if (eventBytes > Math.max(COMPACTION_BYTES_MIN, COMPACTION_FACTOR * firstFrameBytes)) {
      this.#take(this.#waiting.length);
      const snapshot = encodeSnapshot({ number, nowMs: this.#nowMs, state: this.#state });
      const old = this.#file;
      this.#file = await JournalFile.replace(this.#path, snapshot);
      await old.close();
    } else {
      let [count, size] = [0, 0];
      while (count < this.#waiting.length && size < GROUP_BYTES_MAX) {
        size += (this.#waiting[count++] as Uint8Array).length;
      }
      number -= this.#waiting.length - count;
      await this.#file.append(Buffer.concat(this.#take(count)));
    }
    this.#hooks.onDurable(number);
  }

  /** Takes the first `count` events; what is left is due when it wasn't cut off by chance. */
  #take(count: number): Uint8Array[] {
    const taken = this.#waiting.splice(0, count);
    this.#waitingBytes -= taken.reduce((sum, bytes) => sum + bytes.length, 0);
    this.#due = this.#waiting.length > 0;
    return taken;
  }
}
