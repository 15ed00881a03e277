/**
 * Routing traces: what a run's routers chose, to be replayed by the bench and the simulator. JSON Lines. The first is
 *
 *   {"format":"moe-ep-trace","version":1,"ranks":2,"layerExperts":[64,64]}
 *
 * and each other line holds the counts of all ranks for one layer in one step, or one rank's whole routing:
 *
 *   {"step":0,"layer":1,"counts":[[…],[…]]}
 *   {"step":0,"layer":1,"rank":0,"slots":"…","experts":"…","gates":"…"}
 *
 * where slots (per token, u16), experts (u16) and gates (f32) are little-endian numbers in base64. Ranks may write a
 * file each; they are read together.
 */
import { checkInteger, checkNumber, describe, type PcclError, pcclError } from "@pccl/core/base";
import { countCopies, EXPERTS_MAX, type Routing } from "./routing.js";

export interface TraceLayout {
  readonly ranks: number;
  /** The experts of each layer. */
  readonly layerExperts: readonly number[];
}

/** One layer's batch in one step. */
export interface TraceBatch {
  readonly step: number;
  readonly layer: number;
  /** P rows of N: what planExperts takes. */
  readonly counts: readonly Float64Array[];
  /** By rank, if the run recorded them. */
  readonly routings?: readonly Routing[] | undefined;
}

export interface RoutingTrace extends TraceLayout {
  /** By step, then by layer; each once. */
  readonly batches: readonly TraceBatch[];
}

export const FORMAT = "moe-ep-trace";
export const VERSION = 1;
const RANKS_MAX = 4096;
const LAYERS_MAX = 4096;
const SLOTS_MAX = 2 ** 16 - 1;

export function invalid(message: string, cause?: unknown): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", message, { cause });
}

export function checkLayout(call: string, layout: Record<keyof TraceLayout, unknown>): TraceLayout {
  const ranks = checkInteger(call, "ranks", layout.ranks, 1, RANKS_MAX);
  const { layerExperts } = layout;
  if (!Array.isArray(layerExperts) || layerExperts.length === 0 || layerExperts.length > LAYERS_MAX) {
    throw invalid(`${call}: layerExperts must be an array of 1 to ${LAYERS_MAX} numbers`);
  }
  return {
    ranks,
    layerExperts: layerExperts.map((experts: unknown, layer) =>
      checkInteger(call, `layerExperts[${layer}]`, experts, 1, EXPERTS_MAX),
    ),
  };
}

/** Where a batch lies, for messages and as a key. */
export function checkPlace(call: string, layout: TraceLayout, step: unknown, layer: unknown): number {
  checkInteger(call, "step", step, 0, Number.MAX_SAFE_INTEGER);
  return layout.layerExperts[checkInteger(call, "layer", layer, 0, layout.layerExperts.length - 1)] as number;
}

export function checkCounts(call: string, counts: unknown, ranks: number, experts: number): Float64Array[] {
  const isRow = (row: unknown): row is ArrayLike<unknown> =>
    (Array.isArray(row) || ArrayBuffer.isView(row)) && (row as ArrayLike<unknown>).length === experts;
  if (!Array.isArray(counts) || counts.length !== ranks || !counts.every(isRow)) {
    throw invalid(`${call}: counts must be ${ranks} rows of ${experts} numbers`);
  }
  return (counts as readonly ArrayLike<unknown>[]).map((row, rank) =>
    Float64Array.from(row as ArrayLike<number>, (copies: unknown, expert) =>
      checkInteger(call, `counts[${rank}][${expert}]`, copies, 0, Number.MAX_SAFE_INTEGER),
    ),
  );
}

export function checkRouting(
  call: string,
  { firstSlot, experts, gates }: Routing,
  expertCount: number,
): void {
  if (firstSlot.length === 0 || firstSlot[0] !== 0 || firstSlot.at(-1) !== experts.length) {
    throw invalid(`${call}: firstSlot must go from 0 to the number of slots, ${experts.length}`);
  }
  for (let token = 1; token < firstSlot.length; token++) {
    const slots = (firstSlot[token] as number) - (firstSlot[token - 1] as number);
    checkInteger(call, `the slots of token ${token - 1}`, slots, 0, SLOTS_MAX);
  }
  if (gates.length !== experts.length) {
    throw invalid(`${call}: ${experts.length} slots have ${gates.length} gates`);
  }
  for (const gate of gates) checkNumber(call, "a gate", gate, -3.5e38, 3.5e38);
  countCopies(call, { experts }, expertCount);
}

export function toBase64({ buffer, byteOffset, byteLength }: Uint16Array | Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("base64");
}

export function fromBase64<T extends Uint16Array | Float32Array>(
  call: string,
  name: string,
  text: unknown,
  Numbers: (new (buffer: ArrayBuffer) => T) & { readonly BYTES_PER_ELEMENT: number },
): T {
  const size = Numbers.BYTES_PER_ELEMENT;
  const bytes = Buffer.from(typeof text === "string" ? text : "", "base64");
  // Buffer.from skips what is no base64; then the text doesn't come back.
  if (bytes.toString("base64") !== text || bytes.length % size !== 0) {
    throw invalid(`${call}: ${name} must be numbers of ${size} bytes in base64, got ${describe(text)}`);
  }
  return new Numbers(Uint8Array.from(bytes).buffer);
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
