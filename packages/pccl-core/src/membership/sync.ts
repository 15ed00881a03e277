/** Shared state: which content a group agrees on, and who fetches what from whom. */
import type { PcclErrorCode } from "../base/errors.js";
import { failCalls } from "./calls.js";
import type { PeerMessage, StateEntry, SyncFetch, SyncStrategy } from "./messages.js";
import {
  commonCall,
  type CoordinatorState,
  groupMembers,
  log,
  type Peer,
  type PeerId,
  send,
  setCall,
  type Turn,
} from "./state.js";

/** The last sync that a group completed. */
export interface SyncRecord {
  readonly revision: number;
  /** Those who took part in it; the dead among them don't count. */
  readonly holders: ReadonlySet<PeerId>;
}

/** A sync whose plans are out. */
export interface Sync {
  readonly revision: number;
  readonly participants: readonly PeerId[];
  readonly receivers: number;
  readonly done: Set<PeerId>;
  /** Participants that are gone since. */
  readonly lost: PeerId[];
}

export interface Offer {
  readonly peerId: PeerId;
  readonly revision: number;
  readonly strategy: SyncStrategy;
  readonly entries: readonly StateEntry[];
}

export interface Plan {
  readonly peerId: PeerId;
  readonly source: PeerId | undefined;
  readonly fetches: readonly SyncFetch[];
}

export type Election =
  | { readonly ok: true; readonly revision: number; readonly plans: readonly Plan[] }
  | { readonly ok: false; readonly code: PcclErrorCode; readonly reason: string };

/**
 * Elects the content that the whole group will hold. `offers` are in ring order, one for each member.
 *
 * While a holder of the last revision lives, only holders are candidates, and nobody may be further than one
 * revision ahead (I7). Without a record everybody is a candidate who doesn't only receive. When there is a record
 * but no holder is left, somebody has to say explicitly (send-only) that his content is the one to go on with.
 * Among the candidates with the highest revision the most frequent content wins, ties by ring order.
 */
export function elect(offers: readonly Offer[], record: SyncRecord | undefined): Election {
  const difference = firstDifference(offers);
  if (difference !== undefined) return refusal("ERR_PCCL_STATE_MISMATCH", difference);

  const holders = offers.filter((offer) => record?.holders.has(offer.peerId));
  if (record !== undefined && holders.length > 0) {
    const offender = offers.find(({ peerId, revision }) =>
      record.holders.has(peerId)
        ? revision !== record.revision && revision !== record.revision + 1
        : revision > record.revision + 1,
    );
    if (offender !== undefined) {
      return refusal(
        "ERR_PCCL_STATE_REVISION",
        `peer ${offender.peerId} offers revision ${offender.revision}, but the group's last one is ` +
          `${record.revision}, so that only ${record.revision} or ${record.revision + 1} can follow.`,
      );
    }
  }
  const candidates =
    record === undefined
      ? offers.filter((offer) => offer.strategy !== "receive-only")
      : holders.length > 0
        ? holders.filter((offer) => offer.strategy !== "receive-only")
        : offers.filter((offer) => offer.strategy === "send-only");
  if (candidates.length === 0) {
    return refusal(
      "ERR_PCCL_STATE_LOST",
      record === undefined || holders.length > 0
        ? "every peer that could give the state offers it receive-only."
        : `no holder of the group's last revision ${record.revision} is left, and no peer offers another state send-only.`,
    );
  }

  const revision = candidates.reduce((highest, offer) => Math.max(highest, offer.revision), 0);
  const contents = new Map(offers.map((offer) => [offer.peerId, contentOf(offer)]));
  const elected = mostFrequent(
    candidates
      .filter((offer) => offer.revision === revision)
      .map((offer) => contents.get(offer.peerId) ?? ""),
  );
  const sources = offers.filter((offer) => contents.get(offer.peerId) === elected);
  const winner = sources[0];
  if (winner === undefined) throw new Error("the elected content has no owner");
  const conflict = offers.find((offer) => offer.strategy === "send-only" && !sources.includes(offer));
  if (conflict !== undefined) {
    const [first] = fetchesOf(conflict, winner);
    return refusal(
      "ERR_PCCL_STATE_MISMATCH",
      `peer ${conflict.peerId} offers send-only, but its content is not the elected one of peer ${winner.peerId}: ` +
        `tensor ${JSON.stringify(first?.name)} differs.`,
    );
  }

  let turn = 0;
  const plans = offers.map((offer): Plan => {
    const fetches = fetchesOf(offer, winner);
    if (fetches.length === 0) return { peerId: offer.peerId, source: undefined, fetches };
    // One holder after the other, so that none of them serves everybody.
    return { peerId: offer.peerId, source: sources[turn++ % sources.length]?.peerId, fetches };
  });
  return { ok: true, revision, plans };
}

function refusal(code: PcclErrorCode, reason: string): Election {
  return { ok: false, code, reason };
}

/** A sentence about the first difference in names, types or lengths, or undefined. */
function firstDifference(offers: readonly Offer[]): string | undefined {
  const [first, ...others] = offers;
  if (first === undefined) return undefined;
  const expected = new Map(first.entries.map((entry) => [entry.name, entry]));
  for (const other of others) {
    const names = new Set<string>();
    for (const { name, dtype, count } of other.entries) {
      names.add(name);
      const entry = expected.get(name);
      const quoted = JSON.stringify(name);
      if (entry === undefined)
        return `peer ${other.peerId} has tensor ${quoted}, peer ${first.peerId} doesn't.`;
      if (entry.dtype !== dtype || entry.count !== count) {
        return (
          `tensor ${quoted} has ${count} × ${dtype} on peer ${other.peerId}, ` +
          `${entry.count} × ${entry.dtype} on peer ${first.peerId}.`
        );
      }
    }
    const missing = first.entries.find((entry) => !names.has(entry.name));
    if (missing !== undefined) {
      return `peer ${first.peerId} has tensor ${JSON.stringify(missing.name)}, peer ${other.peerId} doesn't.`;
    }
  }
  return undefined;
}

/** Equal for two offers of the same layout if and only if all their hashes are. */
function contentOf(offer: Offer): string {
  return [...offer.entries]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((entry) => entry.hash)
    .join();
}

/** The first of the values that occur most often. */
function mostFrequent(values: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best), ["", 0])[0];
}

function fetchesOf(offer: Offer, winner: Offer): SyncFetch[] {
  const own = new Map(offer.entries.map((entry) => [entry.name, entry.hash]));
  return winner.entries
    .filter(({ name, hash }) => own.get(name) !== hash)
    .map(({ name, hash }) => ({ name, hash }));
}

export function onSyncDone(
  state: CoordinatorState,
  turn: Turn,
  peer: Peer,
  { requestId, ok, reason }: PeerMessage & { kind: "sync-done" },
): void {
  const sync = state.syncs.get(peer.group);
  // A late answer to a sync that has failed meanwhile.
  if (sync === undefined || peer.call?.requestId !== requestId) return;
  if (ok) sync.done.add(peer.id);
  else {
    const message = `syncSharedState: peer ${peer.id} could not fetch what it lacks: ${reason}`;
    failSync(state, turn, peer.group, "ERR_PCCL_STATE_FETCH_FAILED", message);
  }
}

export function failSync(
  state: CoordinatorState,
  turn: Turn,
  group: number,
  code: PcclErrorCode,
  message: string,
): void {
  state.syncs.delete(group);
  failCalls(state, turn, groupMembers(state, group), code, message);
}

/** Carries each group's sync on as far as it goes now. Returns whether anything was done. */
export function settleSyncs(state: CoordinatorState, turn: Turn): boolean {
  let changed = false;
  for (const group of new Set([...state.syncs.keys(), ...state.records.keys()])) {
    if (state.tallies.has(group)) continue;
    // Nobody holds anything: the group begins anew with whoever joins it next.
    state.syncs.delete(group);
    state.records.delete(group);
  }
  for (const [group, sync] of state.syncs) changed = settleTransfer(state, turn, group, sync) || changed;
  for (const { group } of state.rings) {
    if (commonCall(state.tallies.get(group)) !== "syncSharedState" || state.syncs.has(group)) continue;
    beginTransfer(state, turn, group);
    changed = true;
  }
  return changed;
}

function settleTransfer(
  state: CoordinatorState,
  turn: Turn,
  group: number,
  { revision, participants, receivers, done, lost }: Sync,
): boolean {
  if (lost.length > 0) {
    const message = `syncSharedState: peer ${lost.join(", ")} was lost while the group fetched revision ${revision}.`;
    failSync(state, turn, group, "ERR_PCCL_PEER_LOST", message);
    return true;
  }
  if (done.size < participants.length) return false;
  state.syncs.delete(group);
  state.records.set(group, { revision, holders: new Set(participants) });
  for (const peer of groupMembers(state, group)) {
    if (peer.call === undefined) continue;
    send(turn, peer, { kind: "sync-complete", requestId: peer.call.requestId, revision });
    setCall(state, peer, undefined);
  }
  log(turn, { event: "synced", group, revision, receivers });
  return true;
}

function beginTransfer(state: CoordinatorState, turn: Turn, group: number): void {
  const members = groupMembers(state, group);
  const offers: Offer[] = [];
  for (const { id, call } of members) {
    if (call?.kind !== "syncSharedState") return;
    const { revision, strategy, entries } = call.offer;
    offers.push({ peerId: id, revision, strategy, entries });
  }
  const election = elect(offers, state.records.get(group));
  if (!election.ok) {
    return failSync(state, turn, group, election.code, `syncSharedState: ${election.reason}`);
  }
  const { revision, plans } = election;
  state.syncs.set(group, {
    revision,
    participants: members.map((peer) => peer.id),
    receivers: plans.filter((plan) => plan.fetches.length > 0).length,
    done: new Set(),
    lost: [],
  });
  for (const peer of members) {
    const plan = plans.find((candidate) => candidate.peerId === peer.id);
    const source = plan?.source === undefined ? undefined : state.peers.get(plan.source);
    send(turn, peer, {
      kind: "sync-plan",
      requestId: peer.call?.requestId ?? 0,
      revision,
      source: source && { peerId: source.id, group, endpoint: source.endpoint },
      fetches: plan?.fetches ?? [],
    });
  }
}
