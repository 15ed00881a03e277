/** An all-reduce as users write it, and the checks that it passes before anything is started. */
import type { ReduceOp } from "@pccl/bindings";
import { checkInteger, checkOneOf, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { OPS_PER_LIST_MAX } from "../base/limits.js";
import { checkDType, checkTensor, type DType, dtypeOf, type Tensor } from "./tensor.js";

export interface AllReduceCall {
  readonly send: Tensor;
  /** Default: `send`, in place. */
  readonly recv?: Tensor | undefined;
  /** Default "sum". */
  readonly op?: ReduceOp | undefined;
  /** Default: what the array's type says. "f16" and "bf16" are for a Uint16Array that holds their bits. */
  readonly dtype?: DType | undefined;
  /** Names the op among concurrent ones; 0 to 2^64-1, the same on every peer. Default: the index in the list. */
  readonly tag?: bigint | number | undefined;
}

export interface AllReduceResult {
  /** Peers whose contributions are in the result. */
  readonly worldSize: number;
  /** The view that it was computed in. */
  readonly epoch: number;
  /** Bytes of tensor data, with their frames' headers, that this peer sent and received for the op. */
  readonly txBytes: number;
  readonly rxBytes: number;
  readonly seconds: number;
}

export interface CheckedReduce {
  readonly source: Tensor;
  readonly target: Tensor;
  readonly op: ReduceOp;
  readonly dtype: DType;
  readonly tag: bigint;
}

const REDUCE_OPS = ["sum", "avg", "max", "min", "prod"] as const;
const TAG_MAX = 2n ** 64n - 1n;

export function checkReduce(call: string, { send, recv, op, dtype, tag }: AllReduceCall): CheckedReduce {
  const source = checkTensor(call, "send", send, 1);
  const target = recv === undefined ? source : checkTensor(call, "recv", recv, 1);
  if (dtypeOf(source) !== dtypeOf(target) || source.length !== target.length) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: send (${source.constructor.name} of ${source.length}) and recv (${target.constructor.name} of ` +
        `${target.length}) must have the same type and length.`,
    );
  }
  return {
    source,
    target,
    op: checkOneOf(call, "op", op ?? "sum", REDUCE_OPS),
    dtype: checkDType(call, source, dtype),
    tag: checkTag(call, tag ?? 0),
  };
}

/** All of a list, whose tags must differ, since any of them may run at the same time. */
export function checkReduceList(call: string, calls: readonly AllReduceCall[]): CheckedReduce[] {
  if (!Array.isArray(calls)) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: calls must be an array, got ${describe(calls)}.`);
  }
  checkInteger(call, "the number of calls", calls.length, 0, OPS_PER_LIST_MAX);
  const tags = new Set<bigint>();
  return Array.from(calls as readonly (AllReduceCall | undefined)[], (entry, index) => {
    const name = `${call}: calls[${index}]`;
    if (entry === undefined) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${name} is undefined; it must be { send, … }.`);
    }
    checkOptions(name, entry, ["send", "recv", "op", "dtype", "tag"]);
    const checked = checkReduce(name, { ...entry, tag: entry.tag ?? index });
    if (tags.has(checked.tag)) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${name}: tag ${checked.tag} is there twice.`);
    }
    tags.add(checked.tag);
    return checked;
  });
}

function checkTag(call: string, tag: unknown): bigint {
  const value = typeof tag === "number" && Number.isSafeInteger(tag) ? BigInt(tag) : tag;
  if (typeof value !== "bigint" || value < 0n || value > TAG_MAX) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: tag must be an integer from 0 to 2^64-1, got ${describe(tag)}.`,
    );
  }
  return value;
}
