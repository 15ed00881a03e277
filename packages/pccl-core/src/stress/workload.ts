/**
 * One step's reduces and the state that they change: ten matrices of 128 × 128 and one tensor of 4 MiB, f32. What a
 * peer contributes is linear in its id, so that every element of a result can be checked by two sums that the
 * result itself carries: of how many peers it is, and of which ids.
 */
import { createHash } from "node:crypto";
import type { AllReduceCall } from "../peer/collective-call.js";

const SMALL_OPS = 10;
const SMALL_COUNT = 128 * 128;
const LARGE_COUNT = 2 ** 20;
/** Primes: no chunk is a multiple of them, so an element in a wrong place has a wrong value. */
const SLOPES = 61;
const OFFSETS = 211;

/** Values are integers below 2^24 for the ids of any run, and thus their sums are exact in every order. */
export interface Tensors {
  readonly send: Float32Array;
  readonly recv: Float32Array;
}

export class Workload {
  readonly weights: Float32Array = new Float32Array(LARGE_COUNT);
  /** Steps that `weights` has behind it. */
  readonly steps: Int32Array = new Int32Array(1);
  /** In place and out of place in turn; the last one is the large one. */
  readonly tensors: readonly Tensors[] = Array.from({ length: SMALL_OPS + 1 }, (_, op) => {
    const send = new Float32Array(op < SMALL_OPS ? SMALL_COUNT : LARGE_COUNT);
    return { send, recv: op % 2 === 0 ? send : new Float32Array(send.length) };
  });

  /** Fills this peer's contributions to the next step. */
  calls(peerId: number): AllReduceCall[] {
    return this.tensors.map(({ send, recv }, op) => {
      fill(send, this.steps[0] as number, op, 1, peerId);
      return { send, recv };
    });
  }

  /** Checks every element of the results; says what is wrong with the first that is. */
  wrong(worldSizes: readonly number[]): string | undefined {
    for (const [op, { recv }] of this.tensors.entries()) {
      const [count = 0, ids = 0] = recv;
      if (count !== worldSizes[op]) {
        return `op ${op}: combined ${count} contributions, but says that there were ${worldSizes[op]}`;
      }
      const expected = new Float32Array(recv.length);
      fill(expected, this.steps[0] as number, op, count, ids);
      const index = expected.findIndex((value, i) => !Object.is(value, recv[i]));
      if (index >= 0) return `op ${op}: element ${index} is ${recv[index]} instead of ${expected[index]}`;
    }
    return undefined;
  }

  /** Makes the results a part of the state, and counts the step. */
  fold(): void {
    const { weights, tensors } = this;
    const large = (tensors[SMALL_OPS] as Tensors).recv;
    for (let i = 0; i < weights.length; i++) weights[i] = (weights[i] as number) * 0.5 + (large[i] as number);
    for (let op = 0; op < SMALL_OPS; op++) {
      const { recv } = tensors[op] as Tensors;
      const target = weights.subarray(op * SMALL_COUNT, (op + 1) * SMALL_COUNT);
      for (let i = 0; i < recv.length; i++) target[i] = (target[i] as number) + (recv[i] as number);
    }
    this.steps[0] = (this.steps[0] as number) + 1;
  }

  hash(): string {
    const { buffer } = this.weights;
    return createHash("sha256").update(new Uint8Array(buffer)).digest("hex").slice(0, 32);
  }
}

/** The sum of `count` peers' contributions, whose ids add up to `ids`. */
function fill(tensor: Float32Array, step: number, op: number, count: number, ids: number): void {
  let slope = (step * 3 + op * 5) % SLOPES;
  let offset = (step * 11 + op * 17) % OFFSETS;
  for (let i = 0; i < tensor.length; i++) {
    tensor[i] = (slope + 1) * ids + offset * count;
    if (++slope === SLOPES) slope = 0;
    if (++offset === OFFSETS) offset = 0;
  }
  tensor[0] = count;
  tensor[1] = ids;
}
