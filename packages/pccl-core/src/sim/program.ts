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
  /** Concurrent ops, each with what this peer adds to its sum. */
  | { readonly kind: "all-reduce"; readonly ops: readonly { readonly tag: bigint; readonly value: number }[] }
  | { readonly kind: "compute"; readonly ms: number };

export type Outcome =
  | { readonly kind: "answer"; readonly value: boolean }
  | { readonly kind: "synced"; readonly revision: number; readonly content: number }
  /** Each op's sum, or the code of its error. */
  | { readonly kind: "reduced"; readonly results: ReadonlyMap<bigint, number | string> }
  | { readonly kind: "computed" }
  | { readonly kind: "error"; readonly code: string };

export type Program = Generator<Call, void, Outcome>;

/** A call that a peer makes where the others make another one. */
export type Deviation = "update-topology" | "sync";

export interface ProgramOptions {
  readonly random: Random;
  readonly steps: number;
  /** What the peer's state holds before its first sync. */
  readonly content: number;
  /** By the number of the place in the program, counted from its first call. */
  readonly deviations: ReadonlyMap<number, Deviation>;
  /** This peer's rank, as its communicator says. */
  readonly rank: () => number;
}

/** Made again without much ado. */
const RETRIED: ReadonlySet<string> = new Set([
  "ERR_PCCL_PEER_LOST",
  "ERR_PCCL_STATE_FETCH_FAILED",
  "ERR_PCCL_DESCRIPTOR_MISMATCH",
  "ERR_PCCL_CANCELLED",
]);
/** The peers are at different places of their programs; all of them go to the sync of the step that they are in. */
const ASTRAY = "ERR_PCCL_CALL_MISMATCH";

interface State {
  readonly revision: number;
  readonly content: number;
}

export function* trainingProgram(options: ProgramOptions): Program {
  const { random, steps, deviations } = options;
  let state: State = { revision: 0, content: options.content };
  let place = 0;
  for (let newcomer = true; ; newcomer = false) {
    // A newcomer's first call has to be the one that the members are about to make.
    if (!newcomer) yield* letPendingPeersIn(deviations.get(place++), state);
    for (let next: number | undefined; next === undefined; ) {
      state = yield* syncUntilDone(state, options.rank);
      if (state.revision >= steps) return;
      yield { kind: "compute", ms: random.between(0, 300) };
      if (yield* deviate(deviations.get(place++), state)) continue;
      next = yield* reduce(state, random);
      if (next !== undefined) state = { revision: state.revision + 1, content: next };
    }
  }
}

/** Returns whether to sync now, after a mismatch or because newcomers are there. */
function* deviate(deviation: Deviation | undefined, state: State): Generator<Call, boolean, Outcome> {
  if (deviation === undefined) return false;
  const outcome = yield deviation === "sync"
    ? { ...state, kind: "sync", strategy: "enforce-popular" }
    : { kind: deviation };
  if (outcome.kind !== "error") return outcome.kind === "answer" && outcome.value;
  if (outcome.code === ASTRAY) return true;
  if (RETRIED.has(outcome.code)) return false;
  throw new Error(`${deviation} ended with ${outcome.code}`);
}

function* letPendingPeersIn(deviation: Deviation | undefined, state: State): Generator<Call, void, Outcome> {
  if (yield* deviate(deviation, state)) return;
  if (yield* vote("has-pending-peers")) yield* vote("update-topology");
}

function* vote(kind: "has-pending-peers" | "update-topology"): Generator<Call, boolean, Outcome> {
  for (;;) {
    const outcome = yield { kind };
    if (outcome.kind === "answer") return outcome.value;
    if (outcome.kind === "error" && outcome.code === ASTRAY) return false;
    if (outcome.kind !== "error" || !RETRIED.has(outcome.code)) {
      throw new Error(`${kind} ended with ${JSON.stringify(outcome)}`);
    }
  }
}

function* syncUntilDone({ revision, content }: State, rank: () => number): Generator<Call, State, Outcome> {
  for (let strategy: SyncStrategy = "enforce-popular"; ; ) {
    const outcome = yield { kind: "sync", revision, strategy, content };
    if (outcome.kind === "synced") return { revision: outcome.revision, content: outcome.content };
    if (outcome.kind !== "error") throw new Error(`sync ended with ${JSON.stringify(outcome)}`);
    // With the last holder gone, the first in the ring loads a checkpoint, as I7 allows.
    if (outcome.code === "ERR_PCCL_STATE_LOST") strategy = rank() === 0 ? "send-only" : "enforce-popular";
    else if (RETRIED.has(outcome.code) || outcome.code === ASTRAY) strategy = "enforce-popular";
    else throw new Error(`sync failed with ${outcome.code}`);
  }
}

/**
 * A step: concurrent ops, again until all are committed. The new content comes from the old one and their sums;
 * undefined after a mismatch, which ends the step for all.
 */
function* reduce({ revision, content }: State, random: Random): Generator<Call, number | undefined, Outcome> {
  const sums = new Map<bigint, number>();
  let ops = [1n, 2n, 3n].slice(0, 1 + (revision % 3)).map((tag) => ({ tag, value: random.below(1_000_000) }));
  while (ops.length > 0) {
    const outcome = yield { kind: "all-reduce", ops };
    if (outcome.kind !== "reduced") throw new Error(`all-reduce ended with ${JSON.stringify(outcome)}`);
    for (const [tag, result] of outcome.results) {
      if (typeof result === "number") sums.set(tag, result);
      else if (result !== ASTRAY && !RETRIED.has(result)) throw new Error(`all-reduce ended with ${result}`);
    }
    if ([...outcome.results.values()].includes(ASTRAY)) return undefined;
    ops = ops.filter(({ tag }) => !sums.has(tag));
  }
  return [...sums]
    .sort(([a], [b]) => Number(a - b))
    .reduce((hash, [, sum]) => (Math.imul(hash, 31) + sum) | 0, (Math.imul(content, 31) + revision) | 0);
}
