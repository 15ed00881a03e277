/** Reads the container of the golden layers: a JSON header with offsets, then raw little-endian numbers. */
import { readFileSync } from "node:fs";

export interface SafeTensors {
  readonly metadata: Readonly<Record<string, string>>;
  readonly f32: (name: string) => Float32Array;
  readonly i32: (name: string) => Int32Array;
}

export function readSafeTensors(path: string): SafeTensors {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  > & { __metadata__: Record<string, string> };
  const bytes = (name: string, dtype: string): ArrayBuffer => {
    const tensor = header[name];
    if (tensor?.dtype !== dtype) throw new Error(`${path}: ${name} isn't a tensor of ${dtype}`);
    const [begin, end] = tensor.data_offsets;
    return Uint8Array.from(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer;
  };
  const { __metadata__: metadata } = header;
  return {
    metadata,
    f32: (name) => new Float32Array(bytes(name, "F32")),
    i32: (name) => new Int32Array(bytes(name, "I32")),
  };
}
