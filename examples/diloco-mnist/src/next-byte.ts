/** A language model as a classifier: the next byte of a text from the eight before it. */
import { readFileSync } from "node:fs";
import { DataError, range, type Split } from "./digits.js";

const CONTEXT = 8;
const VOCABULARY = 128;
/** The last tenth is held out, and measured at so many places. */
const HELD_OUT_PART = 0.1;
const HELD_OUT_COUNT = 4096;
const BYTES_MIN = 10_000;

export function readNextBytes(path: string): Split {
  const text = readFileSync(path);
  if (text.length < BYTES_MIN) throw new DataError(`${path} has less than ${BYTES_MIN} bytes.`);
  const byteAt = (index: number): number => Math.min(text[index] as number, VOCABULARY - 1);
  const cut = Math.floor(text.length * (1 - HELD_OUT_PART));
  const stride = Math.max(1, Math.floor((text.length - cut - CONTEXT) / HELD_OUT_COUNT));
  return {
    examples: {
      inputs: CONTEXT * VOCABULARY,
      classes: VOCABULARY,
      count: text.length - CONTEXT,
      forEachInput: (example, each) => {
        for (let i = 0; i < CONTEXT; i++) each(i * VOCABULARY + byteAt(example + i), 1);
      },
      label: (example) => byteAt(example + CONTEXT),
    },
    train: range(0, cut - CONTEXT),
    test: range(0, HELD_OUT_COUNT)
      .map((i) => cut + i * stride)
      .filter((example) => example < text.length - CONTEXT),
  };
}
