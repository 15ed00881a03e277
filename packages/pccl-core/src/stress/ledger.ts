/** What a stress run's peers have reported, held against each other: divergences, gaps, recoveries. */
import type { StepReport } from "./messages.js";
import type { Fault } from "./schedule.js";

/** Reports of a step come from all its peers within moments; older ones need not be remembered. */
const STEPS_REMEMBERED = 1_000;

interface Group {
  /** The first report of each of the last steps. */
  readonly steps: Map<number, StepReport>;
  stepsSeen: number;
  lastStep: number;
  lastEpoch: number;
  lastStepAtMs: number;
  longestGapMs: number;
}

interface OpenFault {
  readonly fault: Fault;
  readonly group: number;
  readonly atMs: number;
  /**
   * The loss of a member is recovered from with the first step that ends in a higher epoch than this one; another
   * fault with the first step that begins after it, since the one under way may already have what it needs.
   */
  readonly epoch: number | undefined;
}

export interface Recovery {
  readonly fault: Fault;
  readonly ms: number;
}

export class Ledger {
  readonly divergences: string[] = [];
  readonly recoveries: Recovery[] = [];
  committedReduces = 0;
  retriedOps = 0;
  readonly #groups = new Map<number, Group>();
  #open: OpenFault[] = [];

  onStep(name: string, group: number, report: StepReport, nowMs: number): void {
    const { step, hash, revision, epoch, wrong, retriedOps } = report;
    this.retriedOps += retriedOps;
    if (wrong !== undefined) this.divergences.push(`${name}, step ${step}, epoch ${epoch}: ${wrong}`);
    const known = this.#groups.get(group);
    const state: Group = known ?? {
      steps: new Map(),
      stepsSeen: 0,
      lastStep: 0,
      lastEpoch: 0,
      lastStepAtMs: nowMs,
      longestGapMs: 0,
    };
    this.#groups.set(group, state);
    const first = state.steps.get(step);
    if (first !== undefined) {
      if (first.hash !== hash || first.revision !== revision) {
        this.divergences.push(
          `${name}, group ${group}, step ${step}: hash ${hash}, revision ${revision}, epoch ${epoch}; ` +
            `another peer had hash ${first.hash}, revision ${first.revision}, epoch ${first.epoch}`,
        );
      }
    } else if (step <= state.lastStep - STEPS_REMEMBERED) {
      this.divergences.push(`${name}, group ${group}: is at step ${step}, the group at ${state.lastStep}`);
    } else {
      state.steps.set(step, report);
      state.steps.delete(step - STEPS_REMEMBERED);
      state.stepsSeen++;
      state.lastStep = Math.max(state.lastStep, step);
      state.longestGapMs = Math.max(state.longestGapMs, nowMs - state.lastStepAtMs);
      state.lastStepAtMs = nowMs;
      this.committedReduces += report.reduces;
    }
    state.lastEpoch = Math.max(state.lastEpoch, epoch);
    this.#open = this.#open.filter((fault) => {
      const recovered =
        fault.group === group &&
        (fault.epoch === undefined ? nowMs - report.reduceMs >= fault.atMs : epoch > fault.epoch);
      if (recovered) this.recoveries.push({ fault: fault.fault, ms: nowMs - fault.atMs });
      return !recovered;
    });
  }

  /** `loses` a member for good: the others go on in a new epoch. */
  onFault(fault: Fault, groups: readonly number[], loses: boolean, nowMs: number): void {
    for (const group of groups) {
      const epoch = loses ? (this.#groups.get(group)?.lastEpoch ?? 0) : undefined;
      this.#open.push({ fault, group, atMs: nowMs, epoch });
    }
  }

  /** Per group that has made a step: the longest time without a committed reduce, the time since the last included. */
  gapsMs(nowMs: number): ReadonlyMap<number, number> {
    return new Map(
      [...this.#groups].map(([group, { longestGapMs, lastStepAtMs }]) => [
        group,
        Math.max(longestGapMs, nowMs - lastStepAtMs),
      ]),
    );
  }

  /** The highest step of a group. */
  lastStep(group: number): number {
    return this.#groups.get(group)?.lastStep ?? 0;
  }

  /** At the end of a run: a group that has skipped steps has lost some of its state. */
  checkComplete(): void {
    for (const [group, { stepsSeen, lastStep }] of this.#groups) {
      if (stepsSeen === lastStep) continue;
      this.divergences.push(`group ${group}: is at step ${lastStep}, but only ${stepsSeen} were reported`);
    }
  }
}
