/**
 * A file of checksummed frames that may lose its process at any moment. Each frame is on the disk before the next
 * one is written. So a bad frame at the end is a write that was cut short, and nobody has seen anything that
 * follows from it; a bad frame with a good one behind it was once whole, and the disk has lost it.
 *
 * header: "PCCLJRNL" | u32 format version | u32 protocol version | u32 salt | u32 CRC-32 of all these
 * frame: u32 mark | u32 payload length | u32 CRC-32 of length and payload, begun with the salt | payload
 *
 * Integers are little-endian. The salt is random, so that no bytes within a payload can pass for a frame.
 */
import { randomBytes } from "node:crypto";
import { fstatSync } from "node:fs";
import { type FileHandle, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { type PcclError, pcclError } from "../base/errors.js";
import { PROTOCOL_VERSION } from "../base/limits.js";

/** Raised with every change of this layout or of proto/pccl/v1/journal.proto. */
const FORMAT_VERSION = 3;
const MAGIC: Buffer = Buffer.from("PCCLJRNL", "latin1");
const HEADER_BYTES = 24;
const MARK: Buffer = Buffer.from([0xf5, 0x9c, 0x3a, 0xe1]);
const FRAME_HEADER_BYTES = 12;

export interface JournalContents {
  /** Payloads; the first one was written together with the header. */
  readonly frames: readonly Buffer[];
  /** Bytes behind the last whole frame. */
  readonly tornBytes: number;
}

/** What the file at `path` holds; undefined when there is none. Throws ERR_PCCL_JOURNAL_UNREADABLE or _FAILED. */
export async function readJournalFile(path: string): Promise<JournalContents | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw journalFailed(path, "read", error);
  }
  const salt = saltOf(path, bytes);
  const frames: Buffer[] = [];
  let offset = HEADER_BYTES;
  for (let frame = frameAt(bytes, offset, salt); frame !== undefined; frame = frameAt(bytes, offset, salt)) {
    frames.push(frame);
    offset += FRAME_HEADER_BYTES + frame.length;
  }
  for (let next = bytes.indexOf(MARK, offset + 1); next !== -1; next = bytes.indexOf(MARK, next + 1)) {
    if (frameAt(bytes, next, salt) === undefined) continue;
    throw journalUnreadable(path, offset, `the frame is damaged, and a good one follows at byte ${next}`);
  }
  if (frames.length === 0) throw journalUnreadable(path, offset, "the first frame is damaged");
  return { frames, tornBytes: bytes.length - offset };
}

function saltOf(path: string, bytes: Buffer): number {
  if (bytes.length < HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw journalUnreadable(path, 0, "this is not the journal of a coordinator");
  }
  const [format, protocol] = [bytes.readUInt32LE(8), bytes.readUInt32LE(12)];
  if (crc32(bytes.subarray(0, HEADER_BYTES - 4)) !== bytes.readUInt32LE(HEADER_BYTES - 4)) {
    throw journalUnreadable(path, 0, "the header is damaged");
  }
  if (format !== FORMAT_VERSION || protocol !== PROTOCOL_VERSION) {
    throw journalUnreadable(
      path,
      MAGIC.length,
      `it has format ${format} of protocol version ${protocol}, and this program reads format ${FORMAT_VERSION} ` +
        `of protocol version ${PROTOCOL_VERSION}`,
    );
  }
  return bytes.readUInt32LE(16);
}

/** The payload of the frame at `offset`, or undefined when no whole one is there. */
function frameAt(bytes: Buffer, offset: number, salt: number): Buffer | undefined {
  const begin = offset + FRAME_HEADER_BYTES;
  if (begin > bytes.length || !bytes.subarray(offset, offset + MARK.length).equals(MARK)) return undefined;
  const end = begin + bytes.readUInt32LE(offset + 4);
  if (end > bytes.length) return undefined;
  const payload = bytes.subarray(begin, end);
  return bytes.readUInt32LE(offset + 8) === checksum(payload, salt) ? payload : undefined;
}

function checksum(payload: Uint8Array, salt: number): number {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(payload.length);
  return crc32(payload, crc32(length, salt));
}

/** The writer's end. Calls must not overlap; after one that threw, the file must not be written any more. */
export class JournalFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #salt: number;
  /** Size of the whole file. */
  bytes: number;
  readonly firstFrameBytes: number;

  /**
   * Puts a new file in the place of the one at `path`, if any: it holds `first` alone. Whenever the process ends,
   * either the old file or the new one is there, whole. Throws ERR_PCCL_JOURNAL_FAILED.
   */
  static async replace(path: string, first: Uint8Array): Promise<JournalFile> {
    const fresh = `${path}.new`;
    let handle: FileHandle | undefined;
    try {
      await rm(fresh, { force: true });
      handle = await open(fresh, "wx", 0o600);
      const salt = randomBytes(4).readUInt32LE();
      const header = Buffer.alloc(HEADER_BYTES);
      MAGIC.copy(header);
      header.writeUInt32LE(FORMAT_VERSION, 8);
      header.writeUInt32LE(PROTOCOL_VERSION, 12);
      header.writeUInt32LE(salt, 16);
      header.writeUInt32LE(crc32(header.subarray(0, HEADER_BYTES - 4)), HEADER_BYTES - 4);
      const frame = frameOf(first, salt);
      await handle.writeFile(Buffer.concat([header, frame]));
      await handle.datasync();
      await rename(fresh, path);
      await syncFolder(dirname(path));
      return new JournalFile(path, handle, salt, HEADER_BYTES + frame.length);
    } catch (error) {
      await handle?.close().catch(() => {});
      throw journalFailed(path, "write", error);
    }
  }

  private constructor(path: string, handle: FileHandle, salt: number, bytes: number) {
    this.#path = path;
    this.#handle = handle;
    this.#salt = salt;
    this.bytes = bytes;
    this.firstFrameBytes = bytes;
  }

  /** Resolves when the frame is on the disk. Throws ERR_PCCL_JOURNAL_FAILED. */
  async append(payload: Uint8Array): Promise<void> {
    const frame = frameOf(payload, this.#salt);
    try {
      await this.#handle.writeFile(frame);
      await this.#handle.datasync();
      // What is written into a file that has no name any more is lost; a coordinator on another machine or in
      // another container, which the lock doesn't see, would be the one to replace it.
      if (fstatSync(this.#handle.fd).nlink === 0)
        throw new Error("somebody has deleted or replaced the file");
    } catch (error) {
      throw journalFailed(this.#path, "write", error);
    }
    this.bytes += frame.length;
  }

  async close(): Promise<void> {
    // Everything that matters was synced.
    await this.#handle.close().catch(() => {});
  }
}

function frameOf(payload: Uint8Array, salt: number): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  MARK.copy(frame);
  frame.writeUInt32LE(payload.length, 4);
  frame.writeUInt32LE(checksum(payload, salt), 8);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** A rename is durable when its folder is. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export function journalUnreadable(path: string, offset: number, reason: string): PcclError {
  return pcclError("ERR_PCCL_JOURNAL_UNREADABLE", `The journal ${path} at byte ${offset}: ${reason}.`);
}

export function journalFailed(path: string, what: "read" | "write" | "lock", cause: unknown): PcclError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return pcclError(
    "ERR_PCCL_JOURNAL_FAILED",
    `The journal ${path} can't be ${what === "read" ? "read" : what === "write" ? "written" : "locked"}: ${reason}.`,
    { cause },
  );
}
