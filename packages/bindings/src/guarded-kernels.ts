/** The raw calls of outer steps' arithmetic, with their callers' buffers made safe as those of an engine's ops are. */
import type { Addon, Tensor } from "./addon.js";
import { markUntransferable, refuseWasmMemory } from "./untransferable.js";

type Kernels = Pick<
  Addon,
  "elementwise" | "digest" | "quantizeWithFeedback" | "sparsifyWithFeedback" | "addSparse"
>;

function pinned(call: string, arrays: readonly Tensor[], run: () => Promise<void>): Promise<void> {
  for (const [index, array] of arrays.entries()) refuseWasmMemory(`${call}: arrays[${index}]`, array);
  const promise = run();
  for (const array of arrays) markUntransferable(array);
  return promise;
}

export function guardedKernels(raw: Addon): Kernels {
  return {
    elementwise: (kernel, arrays, factors, sum) =>
      pinned("elementwise", sum === undefined ? arrays : [...arrays, sum], () =>
        raw.elementwise(kernel, arrays, factors, sum),
      ),
    digest: (arrays, into) => pinned("digest", [...arrays, into], () => raw.digest(arrays, into)),
    quantizeWithFeedback: (values, error, decay, quantization) =>
      pinned("quantizeWithFeedback", [values, error], () =>
        raw.quantizeWithFeedback(values, error, decay, quantization),
      ),
    sparsifyWithFeedback: (values, error, decay, keep, into) =>
      pinned("sparsifyWithFeedback", [values, error, into], () =>
        raw.sparsifyWithFeedback(values, error, decay, keep, into),
      ),
    addSparse: (bytes, keep, factor, sum, valid) =>
      pinned("addSparse", [bytes, sum, valid], () => raw.addSparse(bytes, keep, factor, sum, valid)),
  };
}
