/**
 * TensorFlow.js variables as what Diloco trains. The library isn't imported: the caller's own one is passed in, so that
 * there is one set of backends and tensors in the process.
 */
import { describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import type { ParameterSource } from "../diloco/parameters.js";

/** What is used of a tf.Variable. */
export interface TfjsVariable {
  readonly name: string;
  readonly shape: number[];
  readonly dtype: string;
  readonly size: number;
  data(): Promise<unknown>;
  assign(value: never): void;
}

/** What is used of `@tensorflow/tfjs` or `@tensorflow/tfjs-core`, 4 or later. */
export interface Tfjs {
  tensor(values: Float32Array, shape: number[], dtype: "float32"): { dispose(): void };
}

/**
 * The variables, of dtype float32, in the order given: by name, or by their own names, which must be the same on every
 * peer. Those of a LayersModel are `model.trainableWeights.map((weight) => weight.val)`.
 */
export function tfjsParameters(
  tf: Tfjs,
  variables: readonly TfjsVariable[] | Readonly<Record<string, TfjsVariable>>,
): ParameterSource {
  const call = "tfjsParameters";
  if (typeof tf?.tensor !== "function")
    throw invalid(`${call}: tf must be TensorFlow.js, got ${describe(tf)}.`);
  if (typeof variables !== "object" || variables === null) {
    throw invalid(`${call}: variables must be tf.Variable objects, got ${describe(variables)}.`);
  }
  const named: (readonly [string, TfjsVariable])[] = Array.isArray(variables)
    ? (variables as readonly TfjsVariable[]).map((variable) => [variable?.name, variable])
    : Object.entries(variables);
  const all = named.map(([, variable]) => variable);
  const layout = named.map(([name, variable]) => {
    if (typeof variable?.assign !== "function" || typeof variable.data !== "function") {
      throw invalid(`${call}: "${name}" must be a tf.Variable, got ${describe(variable)}.`);
    }
    const { dtype, size } = variable;
    if (dtype !== "float32") throw invalid(`${call}: "${name}" must be float32, got ${describe(dtype)}.`);
    return { name, length: size };
  });
  return {
    layout,
    read: async (into) => {
      let offset = 0;
      for (const variable of all) {
        into.set((await variable.data()) as Float32Array, offset);
        offset += variable.size;
      }
    },
    write: (from) => {
      let offset = 0;
      for (const variable of all) {
        // A copy, as a backend may keep the array that it is given.
        const tensor = tf.tensor(from.slice(offset, offset + variable.size), variable.shape, "float32");
        variable.assign(tensor as never);
        tensor.dispose();
        offset += variable.size;
      }
    },
  };
}

function invalid(message: string): Error {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
}
