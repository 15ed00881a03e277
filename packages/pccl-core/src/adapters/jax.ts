/**
 * Arrays of jax-js as what Diloco trains. They can't be written to, so that a round gives the caller new ones in their
 * place; and each use consumes an array, so that `.ref` is taken of those that are read.
 */
import { describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import type { ParameterSource } from "../diloco/parameters.js";

/** What is used of a jax-js array. */
export interface JaxArray {
  readonly shape: number[];
  readonly size: number;
  readonly ref: JaxArray;
  data(): Promise<unknown>;
  dispose(): void;
}

export interface JaxParameters<A> {
  /** `numpy` of `@jax-js/jax`. */
  readonly numpy: { array(values: Float32Array, options: { shape: number[] }): A };
  /** The parameters as they are now, by name, float32; always the same names and shapes. */
  readonly get: () => Readonly<Record<string, A>>;
  /** Takes new ones in their place; the old ones have been disposed of. */
  readonly set: (parameters: Record<string, A>) => void;
}

export function jaxParameters<A extends JaxArray>(parameters: JaxParameters<A>): ParameterSource {
  const call = "jaxParameters";
  const { numpy, get, set } = parameters ?? {};
  if (typeof numpy?.array !== "function" || typeof get !== "function" || typeof set !== "function") {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: numpy, get and set must be given, got ${describe(parameters)}.`,
    );
  }
  const shapes = Object.entries(get()).map(([name, { shape, size }]) => ({ name, shape: [...shape], size }));
  const current = (name: string, size: number): A => {
    const array = get()[name];
    if (array?.size === size) return array;
    const what = array === undefined ? "is gone" : `has ${array.size} elements`;
    throw pcclError("ERR_PCCL_LAYOUT_MISMATCH", `${call}: "${name}" had ${size} elements and now ${what}.`);
  };
  return {
    layout: shapes.map(({ name, size }) => ({ name, length: size })),
    read: async (into) => {
      let offset = 0;
      for (const { name, size } of shapes) {
        into.set((await current(name, size).ref.data()) as Float32Array, offset);
        offset += size;
      }
    },
    write: (from) => {
      const old = shapes.map(({ name, size }) => current(name, size));
      let offset = 0;
      const fresh = shapes.map(({ name, shape, size }): [string, A] => {
        const values = from.slice(offset, offset + size);
        offset += size;
        return [name, numpy.array(values, { shape })];
      });
      for (const array of old) array.dispose();
      set(Object.fromEntries(fresh));
    },
  };
}
