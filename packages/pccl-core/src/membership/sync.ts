/** Shared state: a group's sync from the offers to the last member that has fetched. */
import { failCalls, refuse } from "./calls.js";
import { elect, type Offer, type Plan } from "./election.js";
import type { PeerMessage, SyncSource } from "./messages.js";
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

/** One member's part of a sync whose plans are out. */
export interface Participant {
  /** Of its offer. */
  readonly requestId: number;
  /** It isn't kept waiting for others, and hears of the end. */
  readonly background: boolean;
  /** failed: it couldn't fetch, gave up, or is gone; the others go on without it. */
  state: "fetching" | "done" | "failed";
}

export interface Sync {
  readonly revision: number;
  readonly receivers: number;
  readonly participants: ReadonlyMap<PeerId, Participant>;
}

/** Whether the peer is in a sync whose plans are out, and which will end without any further call. */
export function isSyncing(state: CoordinatorState, peer: Peer): boolean {
  const participant = state.syncs.get(peer.group)?.participants.get(peer.id);
  return participant !== undefined && peer.call?.requestId === participant.requestId;
}

export function onSyncDone(
  state: CoordinatorState,
  turn: Turn,
  peer: Peer,
  { requestId, ok, reason }: PeerMessage & { kind: "sync-done" },
): void {
  const sync = state.syncs.get(peer.group);
  const participant = sync?.participants.get(peer.id);
  // A late answer to a sync that is over for this peer.
  if (sync === undefined || participant?.requestId !== requestId || participant.state !== "fetching") return;
  if (!ok) {
    const message = `syncSharedState: peer ${peer.id} could not fetch what it lacks: ${reason}`;
    return failParticipant(state, turn, peer, participant, "ERR_PCCL_STATE_FETCH_FAILED", message);
  }
  participant.state = "done";
  if (!participant.background) return;
  send(turn, peer, { kind: "sync-complete", requestId, revision: sync.revision });
  setCall(state, peer, undefined);
}

/** The caller gives up a sync whose plans are out. */
export function withdrawFromSync(state: CoordinatorState, turn: Turn, peer: Peer): void {
  const participant = state.syncs.get(peer.group)?.participants.get(peer.id);
  if (participant === undefined) return;
  const message = "syncSharedState: withdrawn while the group fetched.";
  failParticipant(state, turn, peer, participant, "ERR_PCCL_CANCELLED", message);
}

function failParticipant(
  state: CoordinatorState,
  turn: Turn,
  peer: Peer,
  participant: Participant,
  code: "ERR_PCCL_STATE_FETCH_FAILED" | "ERR_PCCL_CANCELLED",
  message: string,
): void {
  participant.state = "failed";
  refuse(turn, peer, participant.requestId, code, message);
  setCall(state, peer, undefined);
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
    begin(state, turn, group);
    changed = true;
  }
  return changed;
}

function settleTransfer(
  state: CoordinatorState,
  turn: Turn,
  group: number,
  { revision, participants, receivers }: Sync,
): boolean {
  const all = [...participants];
  if (all.some(([, { state: of }]) => of === "fetching")) return false;
  state.syncs.delete(group);
  const holders = all.filter(([, { state: of }]) => of === "done").map(([id]) => id);
  // If all of them failed or are gone, the group still has what it had.
  if (holders.length === 0) return true;
  state.records.set(group, { revision, holders: new Set(holders) });
  for (const peer of groupMembers(state, group)) {
    const participant = participants.get(peer.id);
    if (participant?.state !== "done") continue;
    const { requestId, background } = participant;
    send(turn, peer, { kind: background ? "sync-ended" : "sync-complete", requestId, revision });
    if (!background) setCall(state, peer, undefined);
  }
  log(turn, { event: "synced", group, revision, receivers });
  return true;
}

function begin(state: CoordinatorState, turn: Turn, group: number): void {
  const members = groupMembers(state, group);
  const offers: Offer[] = [];
  const participants = new Map<PeerId, Participant>();
  for (const { id, call } of members) {
    if (call?.kind !== "syncSharedState") return;
    const { revision, strategy, entries, background } = call.offer;
    offers.push({ peerId: id, revision, strategy, entries });
    participants.set(id, { requestId: call.requestId, background, state: "fetching" });
  }
  const { revision, plans, refusals } = elect(offers, state.records.get(group));
  for (const { peerId, code, reason } of refusals) {
    participants.delete(peerId);
    failCalls(
      state,
      turn,
      members.filter(({ id }) => id === peerId),
      code,
      `syncSharedState: ${reason}`,
    );
  }
  if (plans.length === 0) return;
  const receivers = plans.filter(({ fetches }) => fetches.length > 0).length;
  state.syncs.set(group, { revision, receivers, participants });
  for (const plan of plans) sendPlan(state, turn, plan, revision);
}

function sendPlan(state: CoordinatorState, turn: Turn, plan: Plan, revision: number): void {
  const peer = state.peers.get(plan.peerId) as Peer;
  const { fetches, share, shares } = plan;
  const sources = (ids: readonly PeerId[], complete: boolean): readonly SyncSource[] =>
    ids.map((id) => {
      const { group, endpoint } = state.peers.get(id) as Peer;
      return { member: { peerId: id, group, endpoint }, complete };
    });
  send(turn, peer, {
    kind: "sync-plan",
    requestId: peer.call?.requestId ?? 0,
    revision,
    sources: [...sources(plan.sources, true), ...sources(plan.helpers, false)],
    share,
    shares,
    fetches,
  });
}
