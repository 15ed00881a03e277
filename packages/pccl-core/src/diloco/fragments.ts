/** Cuts a model into the fragments that are averaged one after the other (Douillard et al. 2025, arXiv:2501.18512). */
import { describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import type { ParameterSpan } from "./parameters.js";

/** Elements from `start` to before `end` of the flat parameters. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

export interface Fragment {
  readonly ranges: readonly Range[];
  /** Elements of all ranges. */
  readonly length: number;
}

/** A range of the flat parameters, and where it lies in an array that holds the fragment alone. */
export interface PlacedRange extends Range {
  readonly at: number;
}

export function placed({ ranges }: Fragment): PlacedRange[] {
  let at = 0;
  return ranges.map(({ start, end }) => {
    const range = { start, end, at };
    at += end - start;
    return range;
  });
}

/** `count` fragments of sizes that differ by one element at most; a parameter may lie in two of them. */
export function balancedFragments(length: number, count: number): Fragment[] {
  return Array.from({ length: count }, (_, index) => {
    const start = Math.floor((index * length) / count);
    const end = Math.floor(((index + 1) * length) / count);
    return { ranges: [{ start, end }], length: end - start };
  });
}

/** One fragment for each list of names, which together name every parameter once. */
export function namedFragments(
  call: string,
  layout: readonly ParameterSpan[],
  lists: readonly (readonly string[])[],
): Fragment[] {
  const rest = new Map<string, Range>();
  let offset = 0;
  for (const { name, length } of layout) {
    rest.set(name, { start: offset, end: offset + length });
    offset += length;
  }
  const fragments = lists.map((names, index) => {
    if (!Array.isArray(names) || names.length === 0) {
      throw invalid(`${call}: fragments[${index}] must be an array of names, got ${describe(names)}.`);
    }
    const ranges = names.map((name: string) => {
      const range = rest.get(name);
      if (range === undefined) {
        throw invalid(
          `${call}: fragments[${index}] names ${describe(name)}, which is no parameter or was named before.`,
        );
      }
      rest.delete(name);
      return range;
    });
    return merged(ranges);
  });
  const [missing] = rest.keys();
  if (missing !== undefined) throw invalid(`${call}: no fragment has the parameter "${missing}".`);
  return fragments;
}

/** In the order of memory, neighbours as one. */
function merged(ranges: readonly Range[]): Fragment {
  const joined: { start: number; end: number }[] = [];
  for (const { start, end } of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last?.end === start) last.end = end;
    else joined.push({ start, end });
  }
  return { ranges: joined, length: joined.reduce((length, { start, end }) => length + end - start, 0) };
}

function invalid(message: string): Error {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
}
