/**
 * The safetensors format (https://github.com/huggingface/safetensors, format.md): eight bytes with the header's length,
 * little-endian, the header as JSON, and the tensors' bytes one after the other. Read and written here for f32, f64 and
 * whatever bytes the caller brings along. docs/decisions/033 says why not by a library.
 */
import { type FileHandle, open } from "node:fs/promises";
import { describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";

export type StoredTensor = Float32Array | Float64Array | Uint8Array;

/** The format's limit. */
const HEADER_BYTES_MAX = 100_000_000;
const DTYPES = [
  ["F32", Float32Array],
  ["F64", Float64Array],
  ["U8", Uint8Array],
] as const;
const METADATA = "__metadata__";

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** Writes tensors as one dimension each. The file is on disk when this resolves. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const header: Record<string, unknown> = { [METADATA]: metadata };
  let offset = 0;
  for (const [name, tensor] of tensors) {
    const [dtype] = DTYPES.find(([, type]) => tensor instanceof type) as (typeof DTYPES)[number];
    header[name] = { dtype, shape: [tensor.length], data_offsets: [offset, offset + tensor.byteLength] };
    offset += tensor.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  // Spaces, so that what follows lies at multiples of eight bytes.
  const text = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, " ")]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = await open(path, "wx");
  try {
    await writeAll(file, length);
    await writeAll(file, text);
    for (const tensor of tensors.values()) {
      await writeAll(file, new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength));
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
}

/** Throws ERR_PCCL_CHECKPOINT_UNREADABLE for anything that isn't such a file, whole. */
export async function readSafetensors(
  path: string,
): Promise<{ tensors: Map<string, StoredTensor>; metadata: Readonly<Record<string, string>> }> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const headerBytes = Number((await readExactly(file, path, 0, 8)).readBigUInt64LE(0));
    if (headerBytes > Math.min(HEADER_BYTES_MAX, size - 8))
      throw unreadable(path, "its header's length is wrong");
    const header = parseHeader(path, (await readExactly(file, path, 8, headerBytes)).toString("utf8"));
    const tensors = new Map<string, StoredTensor>();
    for (const [name, value] of Object.entries(header)) {
      if (name === METADATA) continue;
      const entry = checkEntry(path, name, value, size - 8 - headerBytes);
      const [start, end] = entry.data_offsets;
      const bytes = await readExactly(file, path, 8 + headerBytes + start, end - start);
      const [, type] = DTYPES.find(([dtype]) => dtype === entry.dtype) as (typeof DTYPES)[number];
      const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer;
      tensors.set(name, new type(buffer));
    }
    return { tensors, metadata: (header[METADATA] ?? {}) as Readonly<Record<string, string>> };
  } finally {
    await file.close();
  }
}

function parseHeader(path: string, text: string): Record<string, unknown> {
  try {
    const header: unknown = JSON.parse(text);
    if (typeof header === "object" && header !== null && !Array.isArray(header))
      return header as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw unreadable(path, "its header is no JSON object");
}

function checkEntry(path: string, name: string, value: unknown, dataBytes: number): HeaderEntry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Partial<HeaderEntry>;
  const type = DTYPES.find(([known]) => known === dtype)?.[1];
  if (type === undefined) throw unreadable(path, `"${name}" has the dtype ${describe(dtype)}`);
  const [start, end] = Array.isArray(offsets) ? (offsets as number[]) : [];
  const isInside =
    Number.isSafeInteger(start) &&
    Number.isSafeInteger(end) &&
    (start as number) >= 0 &&
    (start as number) <= (end as number) &&
    (end as number) <= dataBytes;
  const count = Array.isArray(shape)
    ? (shape as number[]).reduce((product, length) => product * length, 1)
    : -1;
  if (!isInside || count * type.BYTES_PER_ELEMENT !== (end as number) - (start as number)) {
    throw unreadable(path, `"${name}" has a wrong shape or place`);
  }
  return { dtype: dtype as string, shape: shape as number[], data_offsets: [start as number, end as number] };
}

async function readExactly(
  file: FileHandle,
  path: string,
  position: number,
  length: number,
): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(buffer, at, length - at, position + at);
    if (bytesRead === 0) throw unreadable(path, "it is too short");
    at += bytesRead;
  }
  return buffer;
}

export function unreadable(path: string, why: string, cause?: unknown): Error {
  const message = `${path} can't be read as a checkpoint: ${why}.`;
  return pcclError("ERR_PCCL_CHECKPOINT_UNREADABLE", message, cause === undefined ? {} : { cause });
}
