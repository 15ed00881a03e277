/**
 * One round between the peers: a roster of who contributes what, then the sum of the contributions.
 *
 * The roster comes first, so that weights, the guard's verdicts and a peer whose state differs are known to all
 * before any data is added up. A change of membership between the two, or in either, begins the round again with the
 * survivors: what each op came to is the same on every live peer, so that they all do, and nobody's work is lost.
 */
import { CancelledError, PeerLostError } from "../base/errors.js";
import type { CallOptions } from "../peer/call-limits.js";
import type { Communicator } from "../peer/communicator.js";
import { type Suspect, suspectsAmong } from "./guard.js";
import { elementwise } from "./kernels.js";
import { gatherRoster, isInStep, type Roster, type RosterEntry } from "./roster.js";
import type { Wire } from "./wire.js";

/** What this peer brings into a round. */
export interface Offer {
  own: RosterEntry;
  /** Its pseudo-gradient, packed; overwritten with what is sent of it. */
  readonly send: Float32Array;
  /** What `send` has been multiplied by; 1 at first. */
  factor: number;
  /** Receives the sum. */
  readonly recv: Float32Array;
  readonly history: Float64Array;
  readonly outlierFactor: number;
}

export interface Outcome {
  /** Not in step: some peer's outer state differs, and nothing was added up. */
  readonly isInStep: boolean;
  /** What was offered, and the same with the weights that count: 0 for suspects. */
  readonly offered: readonly RosterEntry[];
  readonly entries: readonly RosterEntry[];
  readonly suspects: readonly Suspect[];
  /** The average is `scale` times what was received; 0: nobody contributed, and nothing was received. */
  readonly scale: number;
  /** This peer's part of the average, 0 to 1. */
  readonly share: number;
  readonly epoch: number;
  readonly txBytes: number;
  readonly rxBytes: number;
  readonly retriedOps: number;
  /** From the round's begin to its end, waiting for other peers included. */
  readonly seconds: number;
}

/** Set these ops apart from the caller's own, which are free to use small tags. */
const ROSTER_TAG = 0x64_69_6c_6f_63_6f_00n;
const SUM_TAG = ROSTER_TAG + 1n;

/** Resolves with the same outcome on every live peer; rejects as its ops do, and may then be made again. */
export async function exchange(
  communicator: Communicator,
  wire: Wire,
  offer: Offer,
  limits: () => CallOptions,
): Promise<Outcome> {
  const start = performance.now();
  const traffic = { txBytes: 0, rxBytes: 0, retriedOps: 0 };
  const count = <T extends { readonly txBytes: number; readonly rxBytes: number }>(result: T): T => {
    traffic.txBytes += result.txBytes;
    traffic.rxBytes += result.rxBytes;
    return result;
  };
  for (;;) {
    try {
      const roster = await gatherRoster(communicator, offer.own, { ...limits(), tag: ROSTER_TAG });
      count(roster.result);
      const plan = planSum(roster, offer);
      const { total, heaviest, isInStep: inStep } = plan;
      const { entries, result } = roster;
      const end = (scale: number, epoch: number): Outcome => ({
        isInStep: inStep,
        offered: entries,
        entries: plan.entries,
        suspects: plan.suspects,
        scale,
        share: total === 0 ? 0 : plan.weight / total,
        epoch,
        ...traffic,
        seconds: (performance.now() - start) / 1000,
      });
      if (!inStep || total === 0) return end(0, result.epoch);
      // The heaviest sends its contribution as it is; with equal weights everybody does.
      const wanted = plan.weight / heaviest;
      if (wanted === 0) offer.send.fill(0);
      else if (wanted !== offer.factor) await elementwise("scale", [offer.send], [wanted / offer.factor]);
      offer.factor = wanted;
      const sum = count(
        await wire.sum(communicator, offer.send, offer.recv, {
          ...limits(),
          tag: SUM_TAG,
          entries: plan.entries,
          heaviest,
        }),
      );
      if (sum.worldSize === entries.length) return end(heaviest / total, sum.epoch);
      // Somebody who is on the roster wasn't there any more: the weights were others'.
      traffic.retriedOps++;
    } catch (error) {
      // A withdrawal is of another member, which calls again or leaves, as one that died has left.
      if (!(error instanceof PeerLostError || error instanceof CancelledError)) throw error;
      traffic.retriedOps++;
    }
  }
}

interface SumPlan {
  readonly isInStep: boolean;
  /** With the weights that count. */
  readonly entries: readonly RosterEntry[];
  readonly suspects: readonly Suspect[];
  /** This peer's. */
  readonly weight: number;
  readonly heaviest: number;
  readonly total: number;
}

function planSum(roster: Roster, { own, history, outlierFactor }: Offer): SumPlan {
  const suspects = suspectsAmong(roster.entries, history, outlierFactor);
  const leftOut = new Set(suspects.map(({ peerId }) => peerId));
  const entries = roster.entries.map((entry) =>
    leftOut.has(entry.peerId) ? { ...entry, weight: 0 } : entry,
  );
  const weights = entries.map(({ weight }) => weight);
  return {
    isInStep: isInStep(roster),
    entries,
    suspects,
    weight: leftOut.has(own.peerId) ? 0 : own.weight,
    heaviest: Math.max(...weights),
    total: weights.reduce((sum, weight) => sum + weight, 0),
  };
}
