/** The memory that steps work in: kept from step to step, and grown when one needs more. */
import { callNative } from "../base/native.js";
import type { ExpertFormat, ExpertNumbers } from "../experts/experts.js";
import { elementBytesOf } from "./format.js";

export class StepBuffers {
  readonly #format: ExpertFormat;
  readonly #buffers = new Map<string, ArrayBuffer>();
  /** What the step in progress has taken, by name. */
  readonly #taken = new Map<string, number>();

  constructor(format: ExpertFormat) {
    this.#format = format;
  }

  /** Bytes that this step has taken so far. */
  get bytes(): number {
    return [...this.#taken.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** What was taken before counts no more. */
  begin(): void {
    this.#taken.clear();
  }

  /** Rows of the layer's dtype, holding anything. */
  rows(name: string, count: number): ExpertNumbers {
    const buffer = this.#take(name, count * elementBytesOf(this.#format));
    return this.#format.dtype === "f32"
      ? new Float32Array(buffer, 0, count)
      : new Uint16Array(buffer, 0, count);
  }

  bytesOf(name: string, count: number): Uint8Array {
    return new Uint8Array(this.#take(name, count), 0, count);
  }

  floats(name: string, count: number): Float32Array {
    return new Float32Array(this.#take(name, 4 * count), 0, count);
  }

  /** Gives memory back whose name no later step will ask for. */
  drop(name: string): void {
    this.#buffers.delete(name);
    this.#taken.delete(name);
  }

  #take(name: string, bytes: number): ArrayBuffer {
    this.#taken.set(name, bytes);
    let buffer = this.#buffers.get(name);
    if (buffer === undefined || buffer.byteLength < bytes) {
      // The old one may go before the new one is there.
      this.#buffers.delete(name);
      buffer = bytes === 0 ? new ArrayBuffer(0) : callNative((addon) => addon.allocate(bytes));
      this.#buffers.set(name, buffer);
    }
    return buffer;
  }
}
