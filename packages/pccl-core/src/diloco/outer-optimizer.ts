/**
 * The outer optimizer of DiLoCo (Douillard et al. 2023, arXiv:2311.08105): SGD with Nesterov momentum on the
 * outer gradient Δ = θ_global − θ_local, averaged over the peers. The momentum has PyTorch's form, in which the
 * learning rate is not part of it:
 *
 *   m ← μ m + Δ
 *   θ ← θ − η (Δ + μ m)
 */
import { checkNumber, checkOptions } from "../base/check.js";

export interface OuterOptimizerOptions {
  /** η, 0.7 unless told. */
  readonly learningRate?: number;
  /** μ, 0.9 unless told; 0 is plain SGD. */
  readonly momentum?: number;
}

export class OuterOptimizer {
  readonly learningRate: number;
  readonly momentum: number;

  constructor(options: OuterOptimizerOptions = {}) {
    const call = "new OuterOptimizer";
    checkOptions(call, options, ["learningRate", "momentum"]);
    this.learningRate = Math.fround(checkNumber(call, "learningRate", options.learningRate ?? 0.7, 0, 1e6));
    this.momentum = Math.fround(checkNumber(call, "momentum", options.momentum ?? 0.9, 0, 1));
  }

  /**
   * One step, in place in `parameters` and `momentum`; float32, all of `parameters`' length.
   *
   * Every peer computes it for itself and must get the same bits. So each single operation is rounded to
   * float32 (Math.fround of one +, − or × of two float32 values is the correctly rounded float32 result, as
   * IEEE 754 doubles have more than twice the digits), in this one order, and JavaScript never contracts a
   * product and a sum into a fused one: the bits depend on no engine, compiler tier or processor.
   */
  step(parameters: Float32Array, momentum: Float32Array, delta: Float32Array): void {
    const eta = this.learningRate;
    const mu = this.momentum;
    const { fround } = Math;
    for (let i = 0; i < parameters.length; i++) {
      const d = delta[i] as number;
      const m = fround(fround(mu * (momentum[i] as number)) + d);
      momentum[i] = m;
      const step = fround(eta * fround(d + fround(mu * m)));
      parameters[i] = fround((parameters[i] as number) - step);
    }
  }
}
