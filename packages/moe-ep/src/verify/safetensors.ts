/** Reads the container of the golden layers: a JSON header with offsets, then raw little-endian numbers. */
import { readFileSync } from "node:fs";
import { pcclError } from "@pccl/core/base";

export interface SafeTensors {
  readonly metadata: Readonly<Record<string, string>>;
  readonly f32: (name: string) => Float32Array;
  readonly i32: (name: string) => Int32Array;
}

const METADATA = "__metadata__";

export function readSafeTensors(path: string): SafeTensors {
  const invalid = (reason: string, cause?: unknown): Error =>
    pcclError("ERR_PCCL_INVALID_ARGUMENT", `${path} can't be read as safetensors: ${reason}`, { cause });
  let file: Buffer;
  let headerBytes: number;
  let header: Record<string, { dtype: string; data_offsets: [number, number] }> & {
    [METADATA]?: Record<string, string>;
  };
  try {
    file = readFileSync(path);
    headerBytes = Number(file.readBigUInt64LE(0));
    header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as typeof header;
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error), error);
  }
  const bytes = (name: string, dtype: string): ArrayBuffer => {
    const tensor = header[name];
    if (tensor?.dtype !== dtype) throw invalid(`${name} isn't a tensor of ${dtype}`);
    const [begin, end] = tensor.data_offsets;
    return Uint8Array.from(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer;
  };
  const metadata = header[METADATA] ?? {};
  return {
    metadata,
    f32: (name) => new Float32Array(bytes(name, "F32")),
    i32: (name) => new Int32Array(bytes(name, "I32")),
  };
}
