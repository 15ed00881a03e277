/**
 * When peers average their work, and what a peer does with the result.
 *
 *   sync       After every `innerSteps` steps all wait for the average and go on from it (arXiv:2311.08105).
 *   async      The average is computed while the next inner steps run and applied after them, a phase late. A peer's
 *              own progress of that phase is kept on top of it, and is what it contributes next.
 *   eager      As async, but a peer doesn't wait to see its own part of the missing average: it goes on from the group's
 *              parameters and its own part of the outer step that is under way (arXiv:2502.12996).
 *   streaming  The model is cut into fragments, one of which is averaged every `innerSteps / fragments` steps; its
 *              average is applied `delaySteps` later and mixed with what the peer has come to meanwhile: `alpha` of its
 *              own, 1 − alpha of the group's (arXiv:2501.18512).
 *
 * One round is one average of one fragment: it is launched, and settled when its average is applied.
 */
import { checkInteger, checkNumber, checkOneOf, checkOptions } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { balancedFragments, type Fragment, namedFragments } from "./fragments.js";
import { layoutLength, type ParameterSpan } from "./parameters.js";

export type ScheduleOptions =
  | "sync"
  | "async"
  | "eager"
  | {
      readonly kind: "streaming";
      /** How many, cut to equal sizes; or the names of each one's parameters. Divides innerSteps. */
      readonly fragments: number | readonly (readonly string[])[];
      /** τ, from launch to application, 0 to innerSteps / fragments; 1 unless told. */
      readonly delaySteps?: number;
      /** α, 0 to 1; 0.5 unless told, or 0 without a delay. */
      readonly alpha?: number;
    };

export interface Schedule {
  readonly kind: "sync" | "async" | "eager" | "streaming";
  readonly fragments: readonly Fragment[];
  /** Inner steps from one launch to the next. */
  readonly periodSteps: number;
  /** Inner steps from a launch to its settling, at most the period. */
  readonly delaySteps: number;
  /**
   * Where a peer goes on from when an average is applied. take: they are the group's. mix: of both, by
   * alpha. carry: the group's and one's own progress since the launch. predict: the group's, and
   * one's own part of the next outer step.
   */
  readonly restart: "take" | "mix" | "carry" | "predict";
  readonly alpha: number;
  readonly description: string;
}

const CALL = "Diloco: schedule";
const FRAGMENTS_MAX = 1024;

export function createSchedule(
  options: ScheduleOptions,
  innerSteps: number,
  layout: readonly ParameterSpan[],
): Schedule {
  const kinds = ["sync", "async", "eager"] as const;
  if (typeof options === "object" && options !== null) return streaming(options, innerSteps, layout);
  const kind = checkOneOf(CALL, "it", options, kinds);
  return {
    kind,
    fragments: balancedFragments(layoutLength(layout), 1),
    periodSteps: innerSteps,
    delaySteps: kind === "sync" ? 0 : innerSteps,
    restart: kind === "sync" ? "take" : kind === "async" ? "carry" : "predict",
    alpha: 0,
    description: kind,
  };
}

function streaming(
  options: Exclude<ScheduleOptions, string>,
  innerSteps: number,
  layout: readonly ParameterSpan[],
): Schedule {
  checkOptions(CALL, options, ["kind", "fragments", "delaySteps", "alpha"]);
  const kind = checkOneOf(CALL, "kind", options.kind, ["streaming"]);
  const length = layoutLength(layout);
  const fragments = Array.isArray(options.fragments)
    ? namedFragments(CALL, layout, options.fragments as readonly (readonly string[])[])
    : balancedFragments(
        length,
        checkInteger(CALL, "fragments", options.fragments, 1, Math.min(length, FRAGMENTS_MAX)),
      );
  const count = checkInteger(CALL, "the number of fragments", fragments.length, 1, FRAGMENTS_MAX);
  if (innerSteps % count !== 0) {
    const message = `${CALL}: innerSteps (${innerSteps}) must be a multiple of the number of fragments (${count}).`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
  }
  const periodSteps = innerSteps / count;
  const delaySteps = checkInteger(CALL, "delaySteps", options.delaySteps ?? 1, 0, periodSteps);
  const alpha = checkNumber(CALL, "alpha", options.alpha ?? (delaySteps === 0 ? 0 : 0.5), 0, 1);
  const cuts = fragments.map((fragment) => fragment.length).join(" ");
  return {
    kind,
    fragments,
    periodSteps,
    delaySteps,
    restart: "mix",
    alpha,
    description: `streaming ${count} (${cuts.length > 100 ? `${cuts.slice(0, 100)}…` : cuts}) ${delaySteps} ${alpha}`,
  };
}
