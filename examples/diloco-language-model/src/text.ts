/** The text that is trained on: this repository's own words by default, or any file. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { UsageError } from "./options.js";
import type { Random } from "./random.js";

/** Symbols: the 128 ASCII codes. Bytes from 128 on share DEL's code, which text never uses. */
export const VOCABULARY = 128;
const OTHER_BYTE = 127;

/** Bytes that the model sees before the one it predicts. */
export const CONTEXT = 8;

/** Every tenth block of this many bytes is held out of training. */
const BLOCK_BYTES = 4096;
const HELD_OUT_EVERY = 10;
const TEXT_BYTES_MIN = BLOCK_BYTES * HELD_OUT_EVERY;

const REPOSITORY = fileURLToPath(new URL("../../../", import.meta.url));
const FOLDERS = ["docs", "packages", "native", "proto", "examples", "bench", "scripts"];
const ENDINGS = [".md", ".ts", ".mjs", ".cc", ".h", ".proto"];
const SKIPPED = new Set(["node_modules", "dist", "build", "generated", "coverage", "demo-output"]);

export interface Text {
  /** One number below VOCABULARY a byte. */
  readonly train: Uint8Array;
  readonly heldOut: Uint8Array;
}

/** The bytes of `file`, or of this repository's docs and sources. */
export function collectText(file: string | undefined): Buffer {
  const bytes = file === undefined ? repositoryText() : readFileSync(file);
  if (bytes.length < TEXT_BYTES_MIN) {
    throw new UsageError(
      `The text is too short: ${bytes.length} bytes, at least ${TEXT_BYTES_MIN} are needed to hold some out.`,
    );
  }
  return bytes;
}

export function splitText(bytes: Uint8Array): Text {
  const train: Uint8Array[] = [];
  const heldOut: Uint8Array[] = [];
  for (let start = 0, block = 1; start < bytes.length; start += BLOCK_BYTES, block++) {
    (block % HELD_OUT_EVERY === 0 ? heldOut : train).push(bytes.subarray(start, start + BLOCK_BYTES));
  }
  return { train: symbols(train), heldOut: symbols(heldOut) };
}

/** Names sorted by code units, so that every machine reads the same text from the same commit. */
function repositoryText(): Buffer {
  const files: string[] = [];
  const walk = (folder: string): void => {
    const entries = readdirSync(folder, { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (entry.isDirectory() && !SKIPPED.has(entry.name)) walk(join(folder, entry.name));
      else if (entry.isFile() && ENDINGS.some((ending) => entry.name.endsWith(ending))) {
        files.push(join(folder, entry.name));
      }
    }
  };
  for (const entry of readdirSync(REPOSITORY).sort()) {
    if (FOLDERS.includes(entry)) walk(join(REPOSITORY, entry));
    else if (entry.endsWith(".md")) files.push(join(REPOSITORY, entry));
  }
  return Buffer.concat(files.map((file) => readFileSync(file)));
}

function symbols(blocks: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(blocks), (byte) => (byte < VOCABULARY ? byte : OTHER_BYTE));
}

/** What a model learns from or is measured on: `size` contexts and the byte that follows each. */
export interface Batch {
  /** [size, CONTEXT], row-major. */
  readonly contexts: Int32Array;
  /** [size] */
  readonly targets: Int32Array;
}

export function batchAt(text: Uint8Array, positions: ArrayLike<number>): Batch {
  const size = positions.length;
  const batch = { contexts: new Int32Array(size * CONTEXT), targets: new Int32Array(size) };
  for (let row = 0; row < size; row++) {
    const position = positions[row] as number;
    batch.contexts.set(text.subarray(position - CONTEXT, position), row * CONTEXT);
    batch.targets[row] = text[position] as number;
  }
  return batch;
}

export function randomBatch(text: Uint8Array, size: number, random: Random): Batch {
  const positions = Array.from({ length: size }, () => CONTEXT + random.below(text.length - CONTEXT));
  return batchAt(text, positions);
}

/** `count` positions spread evenly over the text, each with a whole context before it. */
export function evenPositions(text: Uint8Array, count: number): number[] {
  const range = text.length - CONTEXT;
  return Array.from({ length: count }, (_, i) => CONTEXT + Math.floor((i * range) / count));
}
