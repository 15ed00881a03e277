/** Named tensors that must hold the same bytes on every peer of a group, with a revision. */
import { checkBoolean, checkInteger, checkOneOf, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { STATE_NAME_BYTES_MAX, STATE_TENSORS_MAX } from "../base/limits.js";
import { checkRawDType, checkTensor, countOf, type DType, type Tensor } from "./tensor.js";

export interface SharedStateOptions {
  /** Revision of the content: a non-negative integer that the caller advances by one with each change. */
  readonly revision: number;
}

/** A tensor with what its array doesn't say. */
export interface SharedTensor {
  readonly data: Tensor;
  /**
   * What the elements are: by default what the array's type says. A Uint16Array can hold f16 or bf16, and a Uint8Array
   * the bytes of anything, at any alignment, if there is a whole number of elements.
   */
  readonly dtype?: DType;
  /** Where the tensor lies; "cpu", the default, is all there is. */
  readonly device?: "cpu";
  /**
   * The content may differ between peers (default false): it has no say in the election, and only a peer that comes to
   * the group's revision from an older one, or holds none, receives it.
   */
  readonly allowInequality?: boolean;
}

/** What a sync offers of one tensor. */
export interface StateItem {
  readonly name: string;
  readonly data: Tensor;
  readonly dtype: DType;
  /** Elements. */
  readonly count: number;
  readonly allowInequality: boolean;
}

const CALL = "new SharedState";

/**
 * Describes tensors; owns no memory. A sync reads them, and writes those that turn out to differ from the group's; in
 * between nobody may write to them. Names, types and lengths must be the same on every peer, their order needn't.
 * Arrays of any type and length, 0 too, up to 65,536 of them.
 */
export class SharedState {
  /** The arrays, by name. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly #items: readonly Omit<StateItem, "count">[];
  #revision: number;

  constructor(tensors: Readonly<Record<string, Tensor | SharedTensor>>, options: SharedStateOptions) {
    checkOptions(CALL, options, ["revision"]);
    if (typeof tensors !== "object" || tensors === null) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${CALL}: tensors must be an object of named arrays, got ${describe(tensors)}.`,
      );
    }
    const entries = Object.entries(tensors);
    checkInteger(CALL, "the number of tensors", entries.length, 1, STATE_TENSORS_MAX);
    this.#items = entries.map(([name, tensor]) => checkItem(name, tensor));
    this.tensors = new Map(this.#items.map(({ name, data }) => [name, data]));
    this.#revision = checkRevision(options?.revision);
  }

  get revision(): number {
    return this.#revision;
  }

  set revision(value: number) {
    this.#revision = checkRevision(value);
  }

  /** The tensors as they are now, checked for `call`: a buffer may have been transferred away since. */
  items(call: string): readonly StateItem[] {
    return this.#items.map((item) => {
      const data = checkTensor(call, item.name, item.data, 0);
      return { ...item, count: countOf(data, item.dtype) };
    });
  }
}

function checkItem(name: string, tensor: unknown): Omit<StateItem, "count"> {
  const bytes = Buffer.byteLength(name);
  checkInteger(CALL, `the length of the name ${describe(name)} in bytes`, bytes, 1, STATE_NAME_BYTES_MAX);
  const isPlain = typeof tensor === "object" && tensor !== null && !ArrayBuffer.isView(tensor);
  const described = (isPlain ? tensor : { data: tensor }) as SharedTensor;
  checkOptions(`${CALL}: ${name}`, described, ["data", "dtype", "device", "allowInequality"]);
  const data = checkTensor(CALL, name, described.data, 0);
  checkOneOf(CALL, `${name}.device`, described.device ?? "cpu", ["cpu"] as const);
  const allowInequality = checkBoolean(CALL, `${name}.allowInequality`, described.allowInequality ?? false);
  return { name, data, dtype: checkRawDType(CALL, name, data, described.dtype), allowInequality };
}

function checkRevision(value: unknown): number {
  return checkInteger("SharedState", "revision", value, 0, Number.MAX_SAFE_INTEGER);
}
