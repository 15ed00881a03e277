/**
 * What a simulated peer's user does: a training loop that all peers run alike. Each yield is one call; the program
 * goes on with its outcome. Retries are the caller's, as they are in real programs.
 */
import type { SyncStrategy } from "../membership/messages.js";
import { type Series, seriesKey } from "./engine.js";
import type { Random } from "./random.js";

/** An all-reduce, with what this peer adds to the sum; or, with `from` and `to`, a send, with what the sender gives. */
export interface ProgramOp extends Series {
  readonly value: number;
}

/** The sum, or what was sent, with the ring that it was computed in and that one's epoch; or the code of an error. */
export type OpResult =
  | { readonly value: number; readonly epoch: number; readonly ring: readonly number[] }
  | string;

export type Call =
  | { readonly kind: "has-pending-peers" }
  | { readonly kind: "update-topology" }
  | { readonly kind: "optimize-topology" }
  | {
      readonly kind: "sync";
      readonly revision: number;
      readonly strategy: SyncStrategy;
      readonly content: number;
    }
  /** Concurrent ones. */
  | { readonly kind: "ops"; readonly ops: readonly ProgramOp[] }
  | { readonly kind: "compute"; readonly ms: number };

export type Outcome =
  | { readonly kind: "answer"; readonly value: boolean }
  | { readonly kind: "synced"; readonly revision: number; readonly content: number }
  /** By seriesKey(). */
  | { readonly kind: "ops"; readonly results: ReadonlyMap<string, OpResult> }
  | { readonly kind: "computed" }
  | { readonly kind: "error"; readonly code: string };

export type Program = Generator<Call, void, Outcome>;

/** A call that a peer makes where the others make another one. */
export type Deviation = "update-topology" | "optimize-topology" | "sync";

export interface ProgramOptions {
  readonly random: Random;
  readonly steps: number;
  /** What the peer's state holds before its first sync. */
  readonly content: number;
  /** By the number of the place in the program, counted from its first call. */
  readonly deviations: ReadonlyMap<number, Deviation>;
  /** What its communicator says: its id, and the ids of the group in rank order. */
  readonly peerId: () => number;
  readonly peers: () => readonly number[];
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
/** Two that were neighbours aren't even linked in the new ring, which is a large one: they give up. */
const UNLINKED = "ERR_PCCL_INVALID_ARGUMENT";

interface State {
  readonly revision: number;
  readonly content: number;
}

export function* trainingProgram(options: ProgramOptions): Program {
  const { random, steps, deviations } = options;
  let place = 0;
  const detour = (state: State): Generator<Call, Way | undefined, Outcome> =>
    deviate(deviations.get(place++), state);
  // A newcomer's first call has to be the one that the members are about to make.
  let way: Way = { to: "sync", state: { revision: 0, content: options.content } };
  for (;;) {
    if (way.to === "vote") way = (yield* detour(way.state)) ?? (yield* letPendingPeersIn(way.state));
    const state: State = way.to === "step" ? way.state : yield* syncUntilDone(way.state, options);
    if (state.revision >= steps) return;
    yield { kind: "compute", ms: random.between(0, 300) };
    way = (yield* detour(state)) ?? (yield* reduce(state, random));
    if (way.to !== "exchange") continue;
    way = (yield* detour(way.state)) ?? (yield* exchange(way, options));
  }
}

/** Where a program goes next; all peers to the sync of their step after a mismatch. */
type Way =
  | { readonly to: "vote" | "sync" | "step"; readonly state: State }
  /** `ring`: in which the step's last op was computed; all of its members know that. */
  | { readonly to: "exchange"; readonly state: State; readonly ring: readonly number[] };

/** Where to go now, after a mismatch, because newcomers are there, or since the others have come there too. */
function* deviate(deviation: Deviation | undefined, state: State): Generator<Call, Way | undefined, Outcome> {
  if (deviation === undefined) return undefined;
  const outcome = yield deviation === "sync"
    ? { ...state, kind: "sync", strategy: "enforce-popular" }
    : { kind: deviation };
  if (outcome.kind === "synced") {
    const { revision, content } = outcome;
    return { to: "step", state: { revision, content } };
  }
  if (outcome.kind === "answer") return outcome.value ? { to: "sync", state } : undefined;
  if (outcome.kind === "error" && outcome.code === ASTRAY) return { to: "sync", state };
  if (outcome.kind === "error" && RETRIED.has(outcome.code)) return undefined;
  throw new Error(`${deviation} ended with ${JSON.stringify(outcome)}`);
}

function* letPendingPeersIn(state: State): Generator<Call, Way, Outcome> {
  // All groups' peers have the same answer, and so come to the same next call.
  if (yield* vote("has-pending-peers")) {
    if ((yield* vote("optimize-topology")) !== undefined) yield* vote("update-topology");
  }
  return { to: "sync", state };
}

type Vote = "has-pending-peers" | "update-topology" | "optimize-topology";

/** Until it is answered; undefined when the peers are at different places. */
function* vote(kind: Vote): Generator<Call, boolean | undefined, Outcome> {
  for (;;) {
    const outcome = yield { kind };
    if (outcome.kind === "answer") return outcome.value;
    if (outcome.kind === "error" && outcome.code === ASTRAY) return undefined;
    if (outcome.kind !== "error" || !RETRIED.has(outcome.code)) {
      throw new Error(`${kind} ended with ${JSON.stringify(outcome)}`);
    }
  }
}

function* syncUntilDone(
  { revision, content }: State,
  { peerId, peers }: ProgramOptions,
): Generator<Call, State, Outcome> {
  for (let strategy: SyncStrategy = "enforce-popular"; ; ) {
    const outcome = yield { kind: "sync", revision, strategy, content };
    if (outcome.kind === "synced") return { revision: outcome.revision, content: outcome.content };
    if (outcome.kind !== "error") throw new Error(`sync ended with ${JSON.stringify(outcome)}`);
    // With the last holder gone, the first in the ring loads a checkpoint, as I7 allows.
    if (outcome.code === "ERR_PCCL_STATE_LOST") {
      strategy = peers()[0] === peerId() ? "seed" : "enforce-popular";
    } else if (outcome.code === "ERR_PCCL_STATE_STRATEGY") strategy = "enforce-popular";
    else if (RETRIED.has(outcome.code) || outcome.code === ASTRAY) strategy = "enforce-popular";
    else throw new Error(`sync failed with ${outcome.code}`);
  }
}

/** A step: concurrent ops. The new content comes from the old one and their sums. */
function* reduce(state: State, random: Random): Generator<Call, Way, Outcome> {
  const { revision, content } = state;
  const tags = [1n, 2n, 3n].slice(0, 1 + (revision % 3));
  const results = yield* run(tags.map((tag) => ({ tag, value: random.below(1_000_000) })));
  if (results === undefined) return { to: "sync", state };
  const { ring } = results.reduce((latest, result) => (result.epoch > latest.epoch ? result : latest));
  const start = (Math.imul(content, 31) + revision) | 0;
  const next = results.reduce((hash, { value }) => (Math.imul(hash, 31) + value) | 0, start);
  return { to: "exchange", state: { revision: revision + 1, content: next }, ring };
}

/** Between each two neighbours of the ring, both ways at once, until both are committed or the other one is gone. */
function* exchange(
  { state, ring }: Way & { to: "exchange" },
  { random, peerId, peers }: ProgramOptions,
): Generator<Call, Way, Outcome> {
  const self = peerId();
  const rank = ring.indexOf(self);
  const other = ring[rank % 2 === 0 ? rank + 1 : rank - 1];
  if (other === undefined) return { to: "vote", state };
  const ops = [
    { tag: 1n, from: self, to: other, value: random.below(1_000_000) },
    { tag: 1n, from: other, to: self, value: 0 },
  ];
  const results = yield* run(ops, () => peers().includes(other));
  return { to: results === undefined ? "sync" : "vote", state };
}

/** Runs ops until all are committed, or nobody is left to run them with; undefined after a mismatch. */
function* run(
  ops: readonly ProgramOp[],
  canGoOn: () => boolean = () => true,
): Generator<Call, (OpResult & object)[] | undefined, Outcome> {
  const results = new Map<string, OpResult & object>();
  let left = ops;
  while (left.length > 0 && canGoOn()) {
    const outcome = yield { kind: "ops", ops: left };
    if (outcome.kind !== "ops") throw new Error(`ops ended with ${JSON.stringify(outcome)}`);
    for (const [key, result] of outcome.results) {
      if (typeof result !== "string") results.set(key, result);
      else if (result !== ASTRAY && result !== UNLINKED && !RETRIED.has(result))
        throw new Error(`op ${key} ended with ${result}`);
    }
    if ([...outcome.results.values()].includes(ASTRAY)) return undefined;
    left = left.filter((op) => {
      const key = seriesKey(op);
      return !results.has(key) && outcome.results.get(key) !== UNLINKED;
    });
  }
  return ops.flatMap((op) => results.get(seriesKey(op)) ?? []);
}
