/**
 * A model's parameters as the outer optimizer sees them: named float32 spans in a fixed order, one after the
 * other in a flat buffer. The library owns no model; whatever can copy its parameters into such a buffer and
 * back can be trained.
 */
import { describe } from "../base/check.js";
import { type PcclError, pcclError } from "../base/errors.js";
import { STATE_NAME_BYTES_MAX, STATE_TENSORS_MAX } from "../base/limits.js";

/** Every span is shared as up to three tensors, the parameters and what an outer optimizer keeps of them. */
const SPANS_MAX = Math.floor((STATE_TENSORS_MAX - 1) / 3);

export interface ParameterSpan {
  readonly name: string;
  /** Elements (float32). */
  readonly length: number;
}

/** The spans lie one after the other, in the layout's order, in the flat buffers that read and write are given. */
export interface ParameterSource {
  /** The same on every peer and for as long as training lasts. */
  readonly layout: readonly ParameterSpan[];
  /** The parameters themselves, if they lie in one array in the layout's order: they are then worked on in place. */
  readonly data?: Float32Array;
  /** Copies the parameters into a flat buffer as long as the whole layout. */
  read(into: Float32Array): void | Promise<void>;
  /** Copies a flat buffer as long as the whole layout into the parameters. */
  write(from: Float32Array): void | Promise<void>;
}

/** Elements of the flat buffer that a layout describes. */
export function layoutLength(layout: readonly ParameterSpan[]): number {
  return layout.reduce((length, span) => length + span.length, 0);
}

/** Throws ERR_PCCL_INVALID_ARGUMENT unless names are unique and not empty, and lengths are positive integers. */
export function checkLayout(call: string, layout: readonly ParameterSpan[]): void {
  if (!Array.isArray(layout) || layout.length === 0 || layout.length > SPANS_MAX) {
    throw invalid(`${call}: a layout needs 1 to ${SPANS_MAX} named spans, got ${describe(layout)}.`);
  }
  const names = new Set<string>();
  for (const { name, length } of layout as readonly ParameterSpan[]) {
    // Room for the prefix that tells parameters and momentum apart.
    if (typeof name !== "string" || name === "" || Buffer.byteLength(name) > STATE_NAME_BYTES_MAX - 16) {
      throw invalid(
        `${call}: a parameter's name must be 1 to ${STATE_NAME_BYTES_MAX - 16} bytes, got ${describe(name)}.`,
      );
    }
    if (names.has(name)) throw invalid(`${call}: the name "${name}" is there twice.`);
    if (!Number.isSafeInteger(length) || length < 1) {
      throw invalid(`${call}: "${name}" must have at least one element, got ${describe(length)}.`);
    }
    names.add(name);
  }
}

/**
 * Parameters that live in one flat buffer: `new ParameterArena({ w: [784, 128], b: [128] })`, zeros at first.
 * A training step reads and writes the views; the outer step copies the whole buffer at once.
 */
export class ParameterArena implements ParameterSource {
  readonly layout: readonly ParameterSpan[];
  /** Every parameter, in the layout's order. */
  readonly data: Float32Array;
  readonly #shapes = new Map<string, readonly number[]>();
  readonly #views = new Map<string, Float32Array>();

  constructor(shapes: Readonly<Record<string, readonly number[]>>) {
    const call = "new ParameterArena";
    if (typeof shapes !== "object" || shapes === null || Array.isArray(shapes)) {
      throw invalid(`${call}: shapes must be an object of names and shapes, got ${describe(shapes)}.`);
    }
    this.layout = Object.entries(shapes).map(([name, shape]: [string, unknown]) => {
      if (!isShape(shape)) {
        throw invalid(
          `${call}: the shape of "${name}" must be an array of positive integers, got ${describe(shape)}.`,
        );
      }
      this.#shapes.set(name, [...shape]);
      return { name, length: shape.reduce((length, size) => length * size, 1) };
    });
    checkLayout(call, this.layout);
    this.data = new Float32Array(layoutLength(this.layout));
    let offset = 0;
    for (const { name, length } of this.layout) {
      this.#views.set(name, this.data.subarray(offset, offset + length));
      offset += length;
    }
  }

  /** The parameter's elements, row-major; writing to it changes the parameter. */
  view(name: string): Float32Array {
    return this.#named(this.#views, "view", name);
  }

  shape(name: string): readonly number[] {
    return this.#named(this.#shapes, "shape", name);
  }

  read(into: Float32Array): void {
    into.set(this.data);
  }

  write(from: Float32Array): void {
    this.data.set(from);
  }

  #named<T>(map: ReadonlyMap<string, T>, method: string, name: string): T {
    const found = map.get(name);
    if (found === undefined) {
      const names = this.layout.map((span) => span.name).join(", ");
      throw invalid(`ParameterArena.${method}: no parameter ${describe(name)}; there are ${names}.`);
    }
    return found;
  }
}

/** A source over arrays of the caller's own: they are gathered before and scattered after every outer step. */
export function fromViews(views: Readonly<Record<string, Float32Array>>): ParameterSource {
  const call = "fromViews";
  if (typeof views !== "object" || views === null || Array.isArray(views)) {
    throw invalid(`${call}: views must be an object of names and Float32Arrays, got ${describe(views)}.`);
  }
  const named = Object.entries(views);
  for (const [name, view] of named) {
    if (!(view instanceof Float32Array)) {
      throw invalid(`${call}: "${name}" must be a Float32Array, got ${describe(view)}.`);
    }
  }
  checkNoOverlap(call, named);
  const layout = named.map(([name, view]) => ({ name, length: view.length }));
  checkLayout(call, layout);

  const copy = (direction: "read" | "write", flat: Float32Array): void => {
    // Before the first copy, so that a model is never left half written.
    for (const [index, [name, view]] of named.entries()) {
      const { length } = layout[index] as ParameterSpan;
      if (view.length !== length) {
        throw pcclError(
          "ERR_PCCL_LAYOUT_MISMATCH",
          `${call} ${direction}: "${name}" had ${length} elements and now has ${view.length} (was its buffer transferred?).`,
        );
      }
    }
    let offset = 0;
    for (const [, view] of named) {
      const span = flat.subarray(offset, offset + view.length);
      if (direction === "read") span.set(view);
      else view.set(span);
      offset += view.length;
    }
  };
  return { layout, read: (into) => copy("read", into), write: (from) => copy("write", from) };
}

/** Two names for the same memory would each take half an update. */
function checkNoOverlap(call: string, views: readonly (readonly [string, Float32Array])[]): void {
  const sorted = views
    .filter(([, view]) => view.length > 0)
    .sort(([, a], [, b]) => a.byteOffset - b.byteOffset);
  const last = new Map<ArrayBufferLike, readonly [string, Float32Array]>();
  for (const entry of sorted) {
    const [name, view] = entry;
    const before = last.get(view.buffer);
    if (before !== undefined && before[1].byteOffset + before[1].byteLength > view.byteOffset) {
      throw invalid(`${call}: "${before[0]}" and "${name}" overlap in memory.`);
    }
    last.set(view.buffer, entry);
  }
}

function isShape(shape: unknown): shape is readonly number[] {
  return Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 1);
}

function invalid(message: string): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
}
