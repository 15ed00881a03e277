/**
 * Outer optimizers: what moves the group's parameters θ by the averaged pseudo-gradient Δ = θ_global − θ_local.
 *
 *   sgd       θ ← θ − η Δ
 *   nesterov  m ← μ m + Δ;  θ ← θ − η (Δ + μ m)         (Douillard et al. 2023, arXiv:2311.08105; PyTorch's form)
 *   adam      m ← β₁ m + (1−β₁) Δ;  v ← β₂ v + (1−β₂) Δ²;  θ ← θ − η m̂ / (√v̂ + ε)   (Kingma and Ba 2014)
 *
 * Every peer computes the step for itself and must get the same bits: see native/src/diloco.
 */
import { checkNumber, checkOneOf, checkOptions } from "../base/check.js";
import { elementwise } from "./kernels.js";

export type OuterOptions =
  | { readonly kind: "nesterov"; readonly learningRate?: number; readonly momentum?: number }
  | { readonly kind: "sgd"; readonly learningRate?: number }
  | {
      readonly kind: "adam";
      readonly learningRate?: number;
      readonly beta1?: number;
      readonly beta2?: number;
      readonly epsilon?: number;
    };

/** θ and the optimizer's own arrays, in the order of `slots`; all of one length. */
export interface OuterArrays {
  readonly parameters: Float32Array;
  readonly slots: readonly Float32Array[];
}

export interface OuterOptimizer {
  /** Names of the arrays that it keeps beside the parameters, zeros at first. */
  readonly slots: readonly string[];
  /** Everything that must be the same on every peer, for people to read. */
  readonly description: string;
  /** The step with `scale` times `gradient`, the `count`th from 1 on, from `from` into `into`, which may be the same. */
  step(
    gradient: Float32Array,
    scale: number,
    count: number,
    from: OuterArrays,
    into: OuterArrays,
  ): Promise<void>;
}

const CALL = "Diloco: outer";

/** Defaults: Nesterov with η 0.7 and μ 0.9; SGD with η 1; Adam with η 0.3, β 0.9 and 0.95, ε 0.1. */
export function createOuterOptimizer(options: OuterOptions = { kind: "nesterov" }): OuterOptimizer {
  const kind = checkOneOf(CALL, "kind", (options as OuterOptions | null)?.kind, ["nesterov", "sgd", "adam"]);
  const keys = { nesterov: ["momentum"], sgd: [], adam: ["beta1", "beta2", "epsilon"] } as const;
  checkOptions(CALL, options, ["kind", "learningRate", ...keys[kind]]);
  const given = options as Readonly<Record<string, unknown>>;
  const factor = (name: string, fallback: number, max: number): number =>
    Math.fround(checkNumber(CALL, name, given[name] ?? fallback, 0, max));
  switch (kind) {
    case "sgd":
      return sgd(factor("learningRate", 1, 1e6));
    case "nesterov":
      return nesterov(factor("learningRate", 0.7, 1e6), factor("momentum", 0.9, 1));
    case "adam":
      return adam(
        factor("learningRate", 0.3, 1e6),
        factor("beta1", 0.9, 1),
        factor("beta2", 0.95, 1),
        factor("epsilon", 0.1, 1e6),
      );
  }
}

function sgd(eta: number): OuterOptimizer {
  return {
    slots: [],
    description: `sgd ${short(eta)}`,
    step: async (gradient, scale, _count, from, into) =>
      await elementwise("sgd", [gradient, from.parameters, into.parameters], [scale, eta]),
  };
}

function nesterov(eta: number, mu: number): OuterOptimizer {
  return {
    slots: ["momentum"],
    description: `nesterov ${short(eta)} ${short(mu)}`,
    step: async (gradient, scale, _count, from, into) =>
      await elementwise(
        "nesterov",
        [gradient, from.parameters, ...from.slots, into.parameters, ...into.slots],
        [scale, eta, mu],
      ),
  };
}

function adam(eta: number, beta1: number, beta2: number, epsilon: number): OuterOptimizer {
  return {
    slots: ["mean", "variance"],
    description: `adam ${short(eta)} ${short(beta1)} ${short(beta2)} ${short(epsilon)}`,
    step: async (gradient, scale, count, from, into) =>
      await elementwise(
        "adam",
        [gradient, from.parameters, ...from.slots, into.parameters, ...into.slots],
        [
          scale,
          eta,
          beta1,
          1 - beta1,
          beta2,
          1 - beta2,
          epsilon,
          1 - power(beta1, count),
          1 - power(beta2, count),
        ],
      ),
  };
}

/** By squaring, since Math.pow may differ from one engine to the next. */
function power(base: number, exponent: number): number {
  let result = 1;
  let square = base;
  for (let rest = exponent; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result *= square;
    square *= square;
  }
  return result;
}

function short(value: number): string {
  return String(Number(value.toPrecision(6)));
}
