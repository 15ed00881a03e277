/**
 * The packed weights of a layer's experts on one rank: its own, in memory that other processes of this host can map, and
 * those of the ranks whose memory it could map.
 */
import { randomBytes } from "node:crypto";
import { awaitNative, callNative } from "../base/native.js";
import { type ExpertFormat, type ExpertTensors, rawShape, tensorsOf } from "../experts/experts.js";

/** Sixteen random bytes at the front say that memory is the announced one, and not another of the same size. */
const NONCE_BYTES = 16;
const FRONT_BYTES = 64;
export const ANNOUNCEMENT_BYTES: number = 16 + NONCE_BYTES;

export class WeightStore {
  /** Of one packed expert. */
  readonly expertBytes: number;
  readonly #format: ExpertFormat;
  readonly #owners: readonly number[];
  /** Where each expert lies among those of its rank. */
  readonly #places: readonly number[];
  readonly #rank: number;
  /** By rank; undefined where this process can't map. */
  readonly #memory: (Uint8Array | undefined)[] = [];
  readonly #file: number;

  constructor(format: ExpertFormat, training: boolean, owners: readonly number[], rank: number) {
    const shape = rawShape("WeightStore", format);
    const { inference, training: all } = callNative((addon) => addon.expertBytes(shape));
    this.expertBytes = training ? all : inference;
    this.#format = format;
    this.#owners = owners;
    this.#rank = rank;
    const taken = new Map<number, number>();
    this.#places = owners.map((owner) => {
      const place = taken.get(owner) ?? 0;
      taken.set(owner, place + 1);
      return place;
    });
    const { buffer, file } = callNative((addon) => addon.allocateShared(this.#bytesOf(rank)));
    this.#memory[rank] = new Uint8Array(buffer);
    this.#memory[rank].set(randomBytes(NONCE_BYTES));
    this.#file = file;
  }

  /** Of ANNOUNCEMENT_BYTES, for the other ranks' map(). */
  announcement(): Uint8Array {
    const bytes = new Uint8Array(ANNOUNCEMENT_BYTES);
    const view = new DataView(bytes.buffer);
    view.setFloat64(0, process.pid, true);
    view.setFloat64(8, this.#file, true);
    bytes.set((this.#memory[this.#rank] as Uint8Array).subarray(0, NONCE_BYTES), 16);
    return bytes;
  }

  /** Maps the memory of other ranks where this process can; returns by rank whether it could. */
  map(announcements: readonly Uint8Array[]): boolean[] {
    return announcements.map((announcement, rank) => {
      if (rank === this.#rank) return true;
      const view = new DataView(announcement.buffer, announcement.byteOffset);
      const [process, file] = [view.getFloat64(0, true), view.getFloat64(8, true)];
      const buffer = callNative((addon) => addon.mapShared(process, file, this.#bytesOf(rank)));
      if (buffer === undefined) return false;
      const memory = new Uint8Array(buffer);
      const nonce = announcement.subarray(16, 16 + NONCE_BYTES);
      if (nonce.some((byte, i) => memory[i] !== byte)) return false;
      this.#memory[rank] = memory;
      return true;
    });
  }

  /** The expert's packed weights if they are this rank's or mapped. */
  find(expert: number): Uint8Array | undefined {
    const begin = FRONT_BYTES + (this.#places[expert] as number) * this.expertBytes;
    return this.#memory[this.#owners[expert] as number]?.subarray(begin, begin + this.expertBytes);
  }

  /** Packs new weights of an own expert over the old ones. */
  async pack(call: string, expert: number, tensors: ExpertTensors): Promise<void> {
    const shape = rawShape(call, this.#format);
    const arrays = tensorsOf(`${call}: expert ${expert}`, this.#format.kind, tensors);
    const into = this.find(expert) as Uint8Array;
    await awaitNative((addon) => addon.packExpert(shape, arrays, into));
  }

  #bytesOf(rank: number): number {
    return FRONT_BYTES + this.#owners.filter((owner) => owner === rank).length * this.expertBytes;
  }
}
