/**
 * Makes a scenario that breaks a rule smaller: whatever can be taken out or made simpler while the same rule still
 * breaks is not the reason. Parts are taken out by halves, then quarters, down to single ones (delta debugging,
 * A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
 */
import type { ClockError } from "./process.js";
import type { PlannedPeer, Scenario } from "./scenario.js";
import { type RunResult, runScenario } from "./simulation.js";

export interface Shrunk {
  readonly scenario: Scenario;
  readonly violation: NonNullable<RunResult["violation"]>;
  /** How many smaller scenarios were run. */
  readonly runs: number;
}

const EXACT: ClockError = { offsetMs: 0, rate: 1 };

/** The smallest scenario found within `runsMax` runs, or undefined if the first one breaks no rule. */
export function shrink(scenario: Scenario, runsMax = 2_000): Shrunk | undefined {
  let { violation } = runScenario(scenario);
  if (violation === undefined) return undefined;
  const { rule } = violation;
  let best = scenario;
  let runs = 0;
  const breaks = (candidate: Scenario): boolean => {
    if (runs >= runsMax) return false;
    runs++;
    const result = runScenario(candidate).violation;
    if (result?.rule !== rule) return false;
    best = candidate;
    violation = result;
    return true;
  };
  /** Takes items out of one list of the scenario. */
  const reduce = <K extends "faults" | "quirks" | "peers">(name: K): void => {
    for (
      let size = Math.ceil(best[name].length / 2);
      size >= 1;
      size = size === 1 ? 0 : Math.ceil(size / 2)
    ) {
      for (let at = 0; at < best[name].length; ) {
        const rest = best[name].filter((_, index) => index < at || index >= at + size);
        if (!breaks({ ...best, [name]: rest })) at += size;
      }
    }
  };
  let before: Scenario;
  do {
    before = best;
    reduce("faults");
    reduce("quirks");
    reduce("peers");
    for (const simpler of simplifications(best)) breaks({ ...best, ...simpler });
  } while (before !== best);
  return { scenario: best, violation, runs };
}

function simplifications(scenario: Scenario): Partial<Scenario>[] {
  const { steps, peers, syncMsMax } = scenario;
  const withPeers = (change: Partial<PlannedPeer>): Partial<Scenario> => ({
    peers: peers.map((peer) => ({ ...peer, ...change })),
  });
  return [
    { steps: 1 },
    ...(steps > 1 ? [{ steps: steps - 1 }] : []),
    { minPeers: 1 },
    ...(syncMsMax === undefined ? [] : [{ syncMsMax: undefined }, { syncMsMax: 1 }]),
    { latency: { usualMsMax: 20, slowShare: 0, slowMsMax: 20 } },
    { coordinatorClock: EXACT },
    withPeers({ group: 0 }),
    withPeers({ clock: EXACT }),
  ].filter((simpler) =>
    Object.entries(simpler).some(([key, value]) => !isSame(scenario[key as keyof Scenario], value)),
  );
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
