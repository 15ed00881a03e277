/** The model that this peer trains, as a flat array: the caller's own one, or a copy that is read and written back. */
import { pcclError } from "../base/errors.js";
import { type Fragment, placed } from "./fragments.js";
import { difference, elementwise } from "./kernels.js";
import { layoutLength, type ParameterSource } from "./parameters.js";
import type { Schedule } from "./schedule.js";

export class LocalModel {
  readonly #source: ParameterSource;
  readonly #values: Float32Array;
  /**
   * Where the progress that is contributed next began. Schedules that take or mix begin at the group's parameters;
   * the others keep the place of their own.
   */
  readonly #start: Float32Array;

  constructor(source: ParameterSource, schedule: Schedule, parameters: Float32Array) {
    this.#source = source;
    const length = layoutLength(source.layout);
    this.#values = source.data ?? new Float32Array(length);
    const ownStart = schedule.restart === "carry" || schedule.restart === "predict";
    this.#start = ownStart ? new Float32Array(length) : parameters;
  }

  /** Reads the caller's parameters and throws ERR_PCCL_NOT_FINITE with the name of the first that isn't. */
  async readFinite(): Promise<Float32Array> {
    await this.#read();
    let start = 0;
    for (const { name, length } of this.#source.layout) {
      for (let i = start; i < start + length; i++) {
        if (Number.isFinite(this.#values[i])) continue;
        throw pcclError(
          "ERR_PCCL_NOT_FINITE",
          `diloco: parameter "${name}" has the value ${this.#values[i]} at element ${i - start}.`,
        );
      }
      start += length;
    }
    return this.#values;
  }

  /** into = start − values of the fragment, packed; resolves to its norm, not finite if anything in it isn't. */
  async progress(fragment: Fragment, into: Float32Array): Promise<number> {
    await this.#read();
    const squares = await Promise.all(
      placed(fragment).map(async ({ start, end, at }) =>
        difference(
          this.#start.subarray(start, end),
          this.#values.subarray(start, end),
          into.subarray(at, at + end - start),
        ),
      ),
    );
    return Math.sqrt(squares.reduce((sum, square) => sum + square, 0));
  }

  /** What comes next counts as progress from here. */
  async startHere(): Promise<void> {
    await elementwise("copy", [this.#values, this.#start]);
  }

  /** Takes all of `parameters`, whatever was here before. */
  async take(parameters: Float32Array): Promise<void> {
    await elementwise("copy", [parameters, this.#values]);
    if (this.#start !== parameters) await elementwise("copy", [parameters, this.#start]);
    await this.#write();
  }

  /** values = alpha values + (1 − alpha) parameters, of the fragment. */
  async mix(fragment: Fragment, parameters: Float32Array, alpha: number): Promise<void> {
    if (alpha > 0) await this.#read();
    const mixes = fragment.ranges.map(async ({ start, end }) => {
      const arrays = [parameters.subarray(start, end), this.#values.subarray(start, end)];
      if (alpha === 0) await elementwise("copy", arrays);
      else await elementwise("mix", arrays, [alpha, 1 - alpha]);
    });
    await Promise.all(mixes);
    await this.#write();
  }

  /** Moves to `parameters` and keeps on top of them what has been progress since the start. */
  async carry(parameters: Float32Array): Promise<void> {
    await this.#read();
    await elementwise("carry", [parameters, this.#start, this.#values]);
    await this.#write();
  }

  async #read(): Promise<void> {
    if (this.#source.data === undefined) await this.#source.read(this.#values);
  }

  async #write(): Promise<void> {
    if (this.#source.data === undefined) await this.#source.write(this.#values);
  }
}
