/** Named tensors that must hold the same bytes on every peer of a group, with a revision. */
import { checkInteger, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { STATE_NAME_BYTES_MAX, STATE_TENSORS_MAX } from "../base/limits.js";
import { checkTensor, type Tensor } from "./tensor.js";

export interface SharedStateOptions {
  /** Revision of the content: a non-negative integer that the caller advances by one with each change. */
  readonly revision: number;
}

/**
 * Describes tensors; owns no memory. `syncSharedState` reads them, and writes those that turn out to differ
 * from the group's. Names and their order, types and lengths must be the same on every peer.
 */
export class SharedState {
  readonly tensors: ReadonlyMap<string, Tensor>;
  #revision: number;

  constructor(tensors: Readonly<Record<string, Tensor>>, options: SharedStateOptions) {
    checkOptions("new SharedState", options, ["revision"]);
    if (typeof tensors !== "object" || tensors === null) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `new SharedState: tensors must be an object of named arrays, got ${describe(tensors)}.`,
      );
    }
    const entries = Object.entries(tensors);
    checkInteger("new SharedState", "the number of tensors", entries.length, 1, STATE_TENSORS_MAX);
    for (const [name, tensor] of entries) {
      checkInteger(
        "new SharedState",
        `the length of the name ${describe(name)} in bytes`,
        Buffer.byteLength(name),
        1,
        STATE_NAME_BYTES_MAX,
      );
      checkTensor("new SharedState", name, tensor, 0);
    }
    this.tensors = new Map(entries);
    this.#revision = checkRevision(options?.revision);
  }

  get revision(): number {
    return this.#revision;
  }

  set revision(value: number) {
    this.#revision = checkRevision(value);
  }
}

function checkRevision(value: unknown): number {
  return checkInteger("SharedState", "revision", value, 0, Number.MAX_SAFE_INTEGER);
}
