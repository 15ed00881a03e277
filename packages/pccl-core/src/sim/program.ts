/**
 * What a simulated peer's user does: a training loop that all peers run alike. Each yield is one call; the program
 * goes on with its outcome. Retries are the caller's, as they are in real programs.
 */
import type { SyncStrategy } from "../membership/messages.js";
import type { Random } from "./random.js";

export type Call =
  | { readonly kind: "has-pending-peers" }
  | { readonly kind: "update-topology" }
  | {
      readonly kind: "sync";
      readonly revision: number;
      readonly strategy: SyncStrategy;
      readonly content: number;
    }
  /** Concurrent ops; the outcome names those that failed. */
  | { readonly kind: "all-reduce"; readonly tags: readonly bigint[] }
  | { readonly kind: "compute"; readonly ms: number };

export type Outcome =
  | { readonly kind: "answer"; readonly value: boolean }
  | { readonly kind: "synced"; readonly revision: number; readonly content: number }
  | { readonly kind: "reduced"; readonly failed: readonly bigint[] }
  | { readonly kind: "computed" }
  | { readonly kind: "error"; readonly code: string };

export type Program = Generator<Call, void, Outcome>;

export interface ProgramOptions {
  readonly random: Random;
  readonly steps: number;
  /** What the peer's state holds before its first sync. */
  readonly content: number;
  /** Probability of calling updateTopology where the others call hasPendingPeers. */
  readonly deviation: number;
  /** This peer's rank, as its communicator says. */
  readonly rank: () => number;
}

const RETRYABLE = new Set(["ERR_PCCL_PEER_LOST", "ERR_PCCL_STATE_FETCH_FAILED"]);

export function* trainingProgram(options: ProgramOptions): Program {
  const { random, steps } = options;
  let { content } = options;
  let revision = 0;
  for (let newcomer = true; ; newcomer = false) {
    // A newcomer's first call has to be the one that the members are about to make.
    if (!newcomer) yield* letPendingPeersIn(random, options.deviation);
    const synced = yield* syncUntilDone(revision, content, options.rank);
    ({ revision, content } = synced);
    if (revision >= steps) return;
    yield { kind: "compute", ms: random.between(0, 300) };
    let tags: readonly bigint[] = [1n, 2n, 3n].slice(0, 1 + (revision % 3));
    while (tags.length > 0) {
      const outcome = yield { kind: "all-reduce", tags };
      if (outcome.kind !== "reduced") throw new Error(`all-reduce ended with ${JSON.stringify(outcome)}`);
      tags = outcome.failed;
    }
    // The same on every peer that began the step with the same content.
    content = (Math.imul(content, 31) + revision) | 0;
    revision++;
  }
}

function* letPendingPeersIn(random: Random, deviation: number): Generator<Call, void, Outcome> {
  for (let deviates = random.chance(deviation); ; deviates = false) {
    const outcome = yield { kind: deviates ? "update-topology" : "has-pending-peers" };
    if (outcome.kind === "error" && outcome.code === "ERR_PCCL_CALL_MISMATCH") continue;
    if (outcome.kind !== "answer") throw new Error(`a vote ended with ${JSON.stringify(outcome)}`);
    if (deviates || !outcome.value) return;
    const updated = yield { kind: "update-topology" };
    if (updated.kind !== "answer") throw new Error(`update-topology ended with ${JSON.stringify(updated)}`);
    return;
  }
}

function* syncUntilDone(
  revision: number,
  content: number,
  rank: () => number,
): Generator<Call, { revision: number; content: number }, Outcome> {
  for (let strategy: SyncStrategy = "enforce-popular"; ; ) {
    const outcome = yield { kind: "sync", revision, strategy, content };
    if (outcome.kind === "synced") return outcome;
    if (outcome.kind !== "error") throw new Error(`sync ended with ${JSON.stringify(outcome)}`);
    // With the last holder gone, the first in the ring loads a checkpoint, as I7 allows.
    if (outcome.code === "ERR_PCCL_STATE_LOST") strategy = rank() === 0 ? "send-only" : "enforce-popular";
    else if (RETRYABLE.has(outcome.code)) strategy = "enforce-popular";
    else throw new Error(`sync failed with ${outcome.code}`);
  }
}
