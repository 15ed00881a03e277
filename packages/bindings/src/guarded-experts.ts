/** The raw calls with experts, with their callers' buffers made safe as those of an engine's ops are. */
import type { Addon, Tensor } from "./addon.js";
import { markUntransferable, refuseWasmMemory } from "./untransferable.js";

type ExpertCalls = Pick<
  Addon,
  | "packExpert"
  | "expertForward"
  | "expertBackward"
  | "gatherRows"
  | "forwardLists"
  | "backwardLists"
  | "combineRows"
  | "gateGradients"
  | "addFloats"
>;

/** Runs a call whose named arrays native code pins. What isn't an array is left for native code to refuse. */
function pinned(
  call: string,
  arrays: Readonly<Record<string, unknown>>,
  run: () => Promise<void>,
): Promise<void> {
  for (const [name, array] of Object.entries(arrays)) refuseWasmMemory(`${call}: ${name}`, array);
  const promise = run();
  for (const array of Object.values(arrays)) {
    if (array !== undefined) markUntransferable(array as Tensor);
  }
  return promise;
}

function weightsOf(experts: readonly { readonly weights: Uint8Array }[]): Record<string, unknown> {
  return Object.fromEntries(experts.map(({ weights }, i) => [`experts[${i}].weights`, weights]));
}

function gradientsOf(
  experts: readonly { readonly gradients: readonly Float32Array[] }[],
): Record<string, unknown> {
  const all = experts.flatMap(({ gradients }, i) =>
    gradients.map((gradient, j) => [`experts[${i}].gradients[${j}]`, gradient] as const),
  );
  return Object.fromEntries(all);
}

export function guardedExperts(raw: Addon): ExpertCalls {
  return {
    packExpert: (shape, tensors, into) =>
      pinned("packExpert", { ...Object.fromEntries(Object.entries(tensors)), into }, () =>
        raw.packExpert(shape, tensors, into),
      ),
    expertForward: (shape, experts, x, y, preactivations) =>
      pinned("expertForward", { ...weightsOf(experts), x, y, preactivations }, () =>
        raw.expertForward(shape, experts, x, y, preactivations),
      ),
    expertBackward: (shape, experts, x, preactivations, yGradient, xGradient) =>
      pinned(
        "expertBackward",
        { ...weightsOf(experts), ...gradientsOf(experts), x, preactivations, yGradient, xGradient },
        () => raw.expertBackward(shape, experts, x, preactivations, yGradient, xGradient),
      ),
    gatherRows: (step, dtype, width, from, into) =>
      pinned("gatherRows", { from, into }, () => raw.gatherRows(step, dtype, width, from, into)),
    forwardLists: (step, shape, lists, x, y, preactivations) =>
      pinned("forwardLists", { ...weightsOf(lists), x, y, preactivations }, () =>
        raw.forwardLists(step, shape, lists, x, y, preactivations),
      ),
    backwardLists: (step, shape, lists, x, preactivations, outputGradient, xGradient) =>
      pinned(
        "backwardLists",
        { ...weightsOf(lists), ...gradientsOf(lists), x, preactivations, outputGradient, xGradient },
        () => raw.backwardLists(step, shape, lists, x, preactivations, outputGradient, xGradient),
      ),
    combineRows: (step, dtype, width, gated, results, addends, into) =>
      pinned("combineRows", { results, ...Object.fromEntries(Object.entries(addends)), into }, () =>
        raw.combineRows(step, dtype, width, gated, results, addends, into),
      ),
    gateGradients: (step, dtype, width, results, outputGradient, into) =>
      pinned("gateGradients", { results, outputGradient, into }, () =>
        raw.gateGradients(step, dtype, width, results, outputGradient, into),
      ),
    addFloats: (from, into) => pinned("addFloats", { from, into }, () => raw.addFloats(from, into)),
  };
}
