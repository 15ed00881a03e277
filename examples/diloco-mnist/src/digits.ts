/** MNIST's digits (LeCun, Cortes, Burges) from IDX files, also gzipped: what a folder has of them. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { Examples } from "./network.js";

export interface Split {
  readonly examples: Examples;
  readonly train: readonly number[];
  readonly test: readonly number[];
}

/** Part of the images that are held out when there are no files for training. */
const TEST_PART = 0.2;

export class DataError extends Error {}

/** The training and the test files; of the test files alone the first four fifths are trained on. */
export function readDigits(folder: string): Split {
  const test = digitsOf(folder, "t10k");
  if (test === undefined) {
    throw new DataError(
      `${folder} has no t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, with or without .gz: MNIST's files can be ` +
        "had from many places, for example https://github.com/cvdfoundation/mnist.",
    );
  }
  const train = digitsOf(folder, "train");
  if (train === undefined) {
    const cut = Math.floor(test.count * (1 - TEST_PART));
    return { examples: test, train: range(0, cut), test: range(cut, test.count) };
  }
  return {
    examples: joined(train, test),
    train: range(0, train.count),
    test: range(train.count, train.count + test.count),
  };
}

export function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

function digitsOf(folder: string, name: string): Examples | undefined {
  const images = readIdx(join(folder, `${name}-images-idx3-ubyte`), 3);
  const labels = readIdx(join(folder, `${name}-labels-idx1-ubyte`), 1);
  if (images === undefined || labels === undefined) return undefined;
  const inputs = images.bytes.length / images.count;
  return {
    inputs,
    classes: 10,
    count: images.count,
    forEachInput: (example, each) => {
      const start = example * inputs;
      for (let i = 0; i < inputs; i++) {
        const pixel = images.bytes[start + i] as number;
        if (pixel > 0) each(i, pixel / 255);
      }
    },
    label: (example) => labels.bytes[example] as number,
  };
}

/** Bytes behind an IDX header: 0, 0, type 8 (unsigned bytes), dimensions, and their sizes, big-endian. */
function readIdx(path: string, dimensions: number): { count: number; bytes: Uint8Array } | undefined {
  const file = [path, `${path}.gz`].find((one) => existsSync(one));
  if (file === undefined) return undefined;
  const raw = readFileSync(file);
  const data = file.endsWith(".gz") ? gunzipSync(raw) : raw;
  if (data.length < 4 + 4 * dimensions || data.readUInt32BE(0) !== 0x0800 + dimensions) {
    throw new DataError(`${file} is no IDX file of unsigned bytes with ${dimensions} dimension(s).`);
  }
  const sizes = Array.from({ length: dimensions }, (_, i) => data.readUInt32BE(4 + 4 * i));
  const bytes = data.subarray(4 + 4 * dimensions);
  if (bytes.length !== sizes.reduce((product, size) => product * size, 1)) {
    throw new DataError(
      `${file} has ${bytes.length} bytes of data, and its header says ${sizes.join(" × ")}.`,
    );
  }
  return { count: sizes[0] as number, bytes };
}

function joined(first: Examples, second: Examples): Examples {
  const of = (example: number): [Examples, number] =>
    example < first.count ? [first, example] : [second, example - first.count];
  return {
    inputs: first.inputs,
    classes: first.classes,
    count: first.count + second.count,
    forEachInput: (example, each) => {
      const [from, index] = of(example);
      from.forEachInput(index, each);
    },
    label: (example) => {
      const [from, index] = of(example);
      return from.label(index);
    },
  };
}
