/**
 * How contributions travel: what is left of them, and how they are added up.
 *
 *   f32     all of it.
 *   bf16, 8-bit, 4-bit   each part quantized once on its way to its owner, summed in f32, and quantized once more on its
 *           way to all: error that doesn't grow with the number of peers. In groups of up to 16.
 *   top-k   of each chunk of 4,096 elements the `keep` greatest, with 8 bits each (as SparseLoCo, arXiv:2508.15706, which
 *           has 2): everybody's go to everybody, so that bytes received grow with the number of peers.
 *
 * Error feedback keeps what a peer's contribution loses and adds it, times β, to its next one.
 */
import { type Quantization, loadAddon } from "@pccl/bindings";
import { checkInteger, checkNumber, checkOneOf, checkOptions } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import type { CallOptions } from "../peer/call-limits.js";
import type { CollectiveResult } from "../peer/collective-call.js";
import type { Communicator } from "../peer/communicator.js";
import type { RosterEntry } from "./roster.js";

type Format = "f32" | "bf16" | "8-bit" | "4-bit" | "top-k";

export type WireOptions =
  | Format
  | {
      readonly format: "bf16" | "8-bit" | "4-bit";
      /** β, 0 to 1; 0 is none. Default: 0.95 for 4-bit, else 0. */
      readonly errorFeedback?: number;
    }
  | {
      readonly format: "top-k";
      /** Elements of 4,096, 1 to 4,096; 64 unless told. */
      readonly keep?: number;
      /** β; 0.95 unless told. */
      readonly errorFeedback?: number;
    };

/** What a sum needs to know besides the numbers. */
export interface SumCall extends CallOptions {
  readonly tag: bigint;
  /** In rank order, with the weights that count. */
  readonly entries: readonly RosterEntry[];
  /** The greatest weight: that contribution is added as it is, others in proportion. */
  readonly heaviest: number;
}

export interface Wire {
  readonly description: string;
  /** `values` becomes what is sent of them; they are a fragment, finite. Once per contribution. */
  prepare(fragment: number, values: Float32Array): Promise<void>;
  /**
   * recv = the sum of all members' prepared contributions, each times its part of the heaviest weight, which `send` has
   * been multiplied by already. Collective; rejects as allReduce does, and `send` stays as it is.
   */
  sum(
    communicator: Communicator,
    send: Float32Array,
    recv: Float32Array,
    call: SumCall,
  ): Promise<CollectiveResult>;
}

const CALL = "Diloco: wire";
const KEEP_DEFAULT = 64;
const FEEDBACK_DEFAULT = 0.95;
const CHUNK = 4096;
const FORMATS = ["f32", "bf16", "8-bit", "4-bit", "top-k"] as const;

export function createWire(options: WireOptions): Wire {
  const given = (typeof options === "string" ? { format: options } : options) as Readonly<
    Record<string, unknown>
  >;
  const format = checkOneOf(CALL, "format", given?.["format"], FORMATS);
  const keys = format === "f32" ? [] : format === "top-k" ? ["keep", "errorFeedback"] : ["errorFeedback"];
  checkOptions(CALL, given, ["format", ...keys]);
  if (format === "f32") return plain();
  const fallback = format === "bf16" || format === "8-bit" ? 0 : FEEDBACK_DEFAULT;
  const decay = checkNumber(CALL, "errorFeedback", given["errorFeedback"] ?? fallback, 0, 1);
  if (format !== "top-k") return quantized(format, decay);
  return sparse(checkInteger(CALL, "keep", given["keep"] ?? KEEP_DEFAULT, 1, CHUNK), decay);
}

function plain(): Wire {
  return {
    description: "f32",
    prepare: async () => undefined,
    sum: async (communicator, send, recv, { tag, signal, timeoutMs }) =>
      await communicator.allReduce(send, recv, { op: "sum", tag, signal, timeoutMs }),
  };
}

/** What each fragment's contributions have lost so far; zeros at first. */
class Errors {
  readonly #errors = new Map<number, Float32Array>();

  of(fragment: number, length: number): Float32Array {
    const error = this.#errors.get(fragment) ?? new Float32Array(length);
    this.#errors.set(fragment, error);
    return error;
  }
}

function quantized(format: "bf16" | "8-bit" | "4-bit", decay: number): Wire {
  const formats = { bf16: "bf16", "8-bit": "u8", "4-bit": "i4" } as const;
  const quantization: Quantization = {
    format: formats[format],
    scheme: "min-max",
    blockSize: 256,
    rounding: "nearest",
    seed: 0n,
    nonFinite: "error",
  };
  const quantize = format === "bf16" ? "bf16" : ({ format: formats[format], blockSize: 256 } as const);
  const errors = new Errors();
  return {
    description: `${format} ${decay}`,
    prepare: async (fragment, values) => {
      if (decay === 0) return;
      const error = errors.of(fragment, values.length);
      await loadAddon().quantizeWithFeedback(values, error, decay, quantization);
    },
    sum: async (communicator, send, recv, { tag, signal, timeoutMs }) =>
      await communicator.allReduce(send, recv, { op: "sum", quantize, tag, signal, timeoutMs }),
  };
}

function sparse(keep: number, decay: number): Wire {
  const errors = new Errors();
  const peerIdBytes = 8;
  /** The peer's id, and the bytes of the contribution that was prepared last. */
  let payload = new Uint8Array(0);
  return {
    description: `top-k ${keep} ${decay}`,
    prepare: async (fragment, values) => {
      payload = new Uint8Array(peerIdBytes + sparseBytes(values.length, keep));
      const error = errors.of(fragment, values.length);
      await loadAddon().sparsifyWithFeedback(values, error, decay, keep, payload.subarray(peerIdBytes));
    },
    sum: async (communicator, _send, recv, { tag, signal, timeoutMs, entries, heaviest }) => {
      const size = peerIdBytes + sparseBytes(recv.length, keep);
      // One that isn't finite wasn't prepared; its weight is 0.
      if (payload.length !== size) payload = new Uint8Array(size);
      new DataView(payload.buffer).setFloat64(0, communicator.peerId, true);
      const all = new Uint8Array(size * communicator.groupWorldSize);
      const result = await communicator.allGather(payload, all, { tag, signal, timeoutMs });
      const weights = new Map(entries.map(({ peerId, weight }) => [peerId, weight]));
      recv.fill(0);
      for (let at = 0; at < all.length; at += size) {
        const peerId = new DataView(all.buffer, at).getFloat64(0, true);
        const factor = (weights.get(peerId) ?? 0) / heaviest;
        if (factor > 0)
          await addSparse(peerId, all.subarray(at + peerIdBytes, at + size), keep, factor, recv);
      }
      return result;
    },
  };
}

async function addSparse(
  peerId: number,
  bytes: Uint8Array,
  keep: number,
  factor: number,
  sum: Float32Array,
): Promise<void> {
  const valid = new Uint8Array(1);
  await loadAddon().addSparse(bytes, keep, factor, sum, valid);
  if (valid[0] === 1) return;
  const message = `diloco: peer ${peerId} sent a sparse contribution that can't be read.`;
  throw pcclError("ERR_PCCL_INTERNAL", message, { peerId });
}

/** A scale of 4 bytes per chunk, and an index of 2 and a code of 1 per element. */
function sparseBytes(length: number, keep: number): number {
  const bytes = (kept: number): number => 4 + 3 * kept;
  const rest = length % CHUNK;
  return Math.floor(length / CHUNK) * bytes(keep) + (rest === 0 ? 0 : bytes(Math.min(keep, rest)));
}
