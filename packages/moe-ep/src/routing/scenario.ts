/** How tokens are spread over experts, as short texts: what benches and the simulator are asked for. */
import { describe, type PcclError, pcclError } from "@pccl/core/base";

export type Scenario =
  /** All experts get the same. */
  | { readonly kind: "balanced" }
  /** This part of the tokens goes evenly to the first `experts` experts, the others evenly to the rest. */
  | { readonly kind: "hot"; readonly part: number; readonly experts: number }
  /** The same with experts anywhere, one of which changes every `periodSteps` steps. */
  | {
      readonly kind: "drift";
      readonly part: number;
      readonly experts: number;
      readonly periodSteps: number;
    }
  /** The n-th most popular expert is chosen with a weight of n^-exponent. */
  | { readonly kind: "zipf"; readonly exponent: number }
  /** Popularities are drawn from a Dirichlet distribution; the smaller the concentration, the more uneven. */
  | { readonly kind: "dirichlet"; readonly concentration: number };

/** How each kind is written. */
export const SCENARIO_FORMS = "balanced, 80%:4, zipf:1.1, dirichlet:0.3 or drift:80%:4:10";

const NUMBER = String.raw`(\d{1,9}(?:\.\d{1,9})?)`;
const INTEGER = String.raw`(\d{1,9})`;
const FORMS: readonly (readonly [RegExp, (...values: readonly number[]) => Scenario])[] = [
  [/^balanced$/, () => ({ kind: "balanced" })],
  [
    new RegExp(`^${NUMBER}%:${INTEGER}$`),
    (percent = 0, experts = 0) => ({ kind: "hot", part: percent / 100, experts }),
  ],
  [
    new RegExp(`^drift:${NUMBER}%:${INTEGER}:${INTEGER}$`),
    (percent = 0, experts = 0, periodSteps = 0) => ({
      kind: "drift",
      part: percent / 100,
      experts,
      periodSteps,
    }),
  ],
  [new RegExp(`^zipf:${NUMBER}$`), (exponent = 0) => ({ kind: "zipf", exponent })],
  [new RegExp(`^dirichlet:${NUMBER}$`), (concentration = 0) => ({ kind: "dirichlet", concentration })],
];

function invalid(text: unknown, what: string): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `scenario ${describe(text)}: ${what}`);
}

/**
 * `balanced`; `80%:4`: 80 % of the tokens into 4 experts; `drift:80%:4:10`: the same, with another expert among the 4
 * every 10 steps; `zipf:1.1`: by popularity, exponent 1.1 (at most 10); `dirichlet:0.3`: concentration 0.3 (0.01 to
 * 1000). Throws PcclError with ERR_PCCL_INVALID_ARGUMENT on anything else.
 */
export function parseScenario(text: string): Scenario {
  for (const [form, make] of FORMS) {
    const match = typeof text === "string" ? form.exec(text) : null;
    if (match === null) continue;
    const scenario = make(...match.slice(1).map(Number));
    const problem = problemOf(scenario);
    if (problem !== undefined) throw invalid(text, problem);
    return scenario;
  }
  throw invalid(text, `must be ${SCENARIO_FORMS}`);
}

function problemOf(scenario: Scenario): string | undefined {
  switch (scenario.kind) {
    case "balanced":
      return undefined;
    case "zipf":
      return scenario.exponent <= 10 ? undefined : "the exponent must be at most 10";
    case "dirichlet":
      return scenario.concentration >= 0.01 && scenario.concentration <= 1000
        ? undefined
        : "the concentration must be from 0.01 to 1000";
    case "hot":
    case "drift":
      if (scenario.part > 1) return "the part must be at most 100%";
      if (scenario.experts < 1) return "there must be at least one hot expert";
      if (scenario.kind === "drift" && scenario.periodSteps < 1)
        return "the period must be at least one step";
      return undefined;
  }
}

/** As parseScenario reads it. */
export function formatScenario(scenario: Scenario): string {
  const percent = (part: number): string => `${Number((part * 100).toFixed(9))}%`;
  switch (scenario.kind) {
    case "balanced":
      return "balanced";
    case "zipf":
      return `zipf:${scenario.exponent}`;
    case "dirichlet":
      return `dirichlet:${scenario.concentration}`;
    case "hot":
      return `${percent(scenario.part)}:${scenario.experts}`;
    case "drift":
      return `drift:${percent(scenario.part)}:${scenario.experts}:${scenario.periodSteps}`;
  }
}
