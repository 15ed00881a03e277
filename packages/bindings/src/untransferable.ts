/**
 * Keeps the memory under a running op in place. Native code holds an array's address, and a reference keeps only
 * the array alive: transferring its buffer to another thread would take the bytes away from under it.
 */
import * as workerThreads from "node:worker_threads";
import type { Tensor } from "./addon.js";

const WASM_PAGE_BYTES = 65_536;

/** Buffers that were found to be ordinary, all of them marked. */
const marked = new WeakSet<ArrayBufferLike>();

/** Node 21 and later. */
const isMarkedAsUntransferable = (workerThreads as { isMarkedAsUntransferable?: (object: object) => boolean })
  .isMarkedAsUntransferable;

/**
 * How this runtime refuses to transfer a buffer twice at once, which it does before it moves anything; a buffer
 * that can't be transferred at all gets another answer. Wording differs between runtimes, so it is compared.
 */
function transferTwice(buffer: ArrayBufferLike): string {
  try {
    structuredClone(0, { transfer: [buffer as ArrayBuffer, buffer as ArrayBuffer] });
    return "";
  } catch (error) {
    return String(error);
  }
}

let ordinaryAnswer: string | undefined;

/**
 * WebAssembly memory moves when it grows. Nothing says outright that a buffer is of that kind, but it is the only
 * one that no transfer can detach without having been marked, and it is made of whole pages.
 */
function isWasmMemory(buffer: ArrayBufferLike): boolean {
  if (buffer instanceof SharedArrayBuffer) return false;
  if (buffer.byteLength === 0 || buffer.byteLength % WASM_PAGE_BYTES !== 0) return false;
  if (isMarkedAsUntransferable?.(buffer) === true) return false;
  ordinaryAnswer ??= transferTwice(new ArrayBuffer(1));
  return transferTwice(buffer) !== ordinaryAnswer;
}

/** Throws ERR_PCCL_INVALID_ARGUMENT on WebAssembly memory. What isn't a view at all is left to native code. */
export function refuseWasmMemory(what: string, view: unknown): void {
  if (!ArrayBuffer.isView(view) || marked.has(view.buffer) || !isWasmMemory(view.buffer)) return;
  throw Object.assign(
    new Error(
      `${what} lies in WebAssembly memory, which moves when it grows; copy it into an array of its own.`,
    ),
    { code: "ERR_PCCL_INVALID_ARGUMENT" },
  );
}

/**
 * For good, as Node has no way to take it back: postMessage and structuredClone copy the buffer from now on, or
 * refuse it, where they would have transferred it.
 */
export function keepInPlace(buffer: ArrayBufferLike): void {
  if (marked.has(buffer)) return;
  marked.add(buffer);
  // A SharedArrayBuffer is never transferred.
  if (buffer instanceof ArrayBuffer) workerThreads.markAsUntransferable(buffer);
}

/** Call once native code has accepted the array. */
export function markUntransferable(tensor: Tensor): void {
  keepInPlace(tensor.buffer);
}
