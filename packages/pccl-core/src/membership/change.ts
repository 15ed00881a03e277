/**
 * From one view to the next: Prepare, Ready, Install. A change begins when the membership or a link of the
 * installed view is lost, when newcomers are let in, or when the first world begins; it ends with an Install.
 * Members that answered a Prepare are frozen, so a change that lost its purpose is still carried through.
 */
import { PREPARE_ATTEMPTS_MAX, PREPARE_TIMEOUT_MS } from "../base/limits.js";
import { isLoopback } from "../base/address.js";
import type { Member, OpReport, PeerMessage, Ring } from "./messages.js";
import { linkedPairs, orderAvoiding, pairKey } from "./ring.js";
import {
  admittedPeers,
  type Change,
  type CoordinatorState,
  groupMembers,
  log,
  type Peer,
  type PeerId,
  pendingPeers,
  remove,
  send,
  type Turn,
} from "./state.js";
import { decide, opKey } from "./verdicts.js";

/** Starts the change that is due, if any. Returns whether one began. */
export function beginDueChange(state: CoordinatorState, turn: Turn): boolean {
  if (state.change !== undefined) return false;
  const admitted = admittedPeers(state);
  if (admitted.length === 0) {
    const pending = pendingPeers(state);
    if (pending.length === 0 || pending.length < state.config.minPeers) return false;
    prepare(state, turn, pending, "the first world begins");
    return true;
  }
  const lost = state.rings.flatMap((ring) => ring.peerIds).filter((id) => !state.peers.has(id));
  if (lost.length > 0) {
    prepare(state, turn, admitted, `without ${peerList(lost)}`);
    return true;
  }
  if (state.relink !== undefined) {
    prepare(state, turn, admitted, state.relink);
    return true;
  }
  return false;
}

/** Lets all pending peers in; `voters` are answered when the view is installed. */
export function admitPending(state: CoordinatorState, turn: Turn, voters: ReadonlyMap<PeerId, number>): void {
  const pending = pendingPeers(state);
  const reason = `to admit ${peerList(pending.map((peer) => peer.id))}`;
  prepare(state, turn, [...admittedPeers(state), ...pending], reason, { voters });
}

function prepare(
  state: CoordinatorState,
  turn: Turn,
  peers: readonly Peer[],
  reason: string,
  { attempt = 1, voters = new Map() }: { attempt?: number; voters?: ReadonlyMap<PeerId, number> } = {},
): void {
  const epoch = ++state.epoch;
  const members = peers.map(({ id, group, endpoint }): Member => ({ peerId: id, group, endpoint }));
  const view = { epoch, members, rings: ringsOf(state, peers), key: state.config.key };
  state.relink = undefined;
  state.change = {
    reason,
    attempt,
    view,
    // A member whose engine doesn't answer in time isn't saved by its heartbeats.
    deadlineMs: turn.nowMs + 2 * PREPARE_TIMEOUT_MS + state.config.leaseMs,
    ready: new Map(),
    voters,
  };
  log(turn, { event: "preparing", epoch, worldSize: peers.length, attempt, reason });
  for (const peer of peers) send(turn, peer, { kind: "prepare", view });
}

/** Members keep their order, newcomers are appended by id, and pairs that can't be linked are kept apart. */
function ringsOf(state: CoordinatorState, peers: readonly Peer[]): Ring[] {
  const groups = [...new Set(peers.map((peer) => peer.group))].sort((a, b) => a - b);
  return groups.map((group) => {
    const ids = new Set(peers.filter((peer) => peer.group === group).map((peer) => peer.id));
    const old = (state.rings.find((ring) => ring.group === group)?.peerIds ?? []).filter((id) => ids.has(id));
    const newcomers = [...ids].filter((id) => !old.includes(id)).sort((a, b) => a - b);
    return { group, peerIds: orderAvoiding([...old, ...newcomers], state.unlinkable) };
  });
}

export function onReady(
  state: CoordinatorState,
  peer: Peer,
  { epoch, failures, ops }: PeerMessage & { kind: "ready" },
): void {
  // The frozen epoch stays the same until an Install, so reports of a Ready that came too late count as well.
  const reports = state.reports.get(peer.id) ?? new Map<string, OpReport>();
  for (const report of ops) if (report.epoch === state.installedEpoch) reports.set(opKey(report), report);
  state.reports.set(peer.id, reports);
  const { change } = state;
  if (change?.view.epoch !== epoch || !change.view.members.some((member) => member.peerId === peer.id))
    return;
  change.ready.set(peer.id, failures);
}

export function onLinkLost(
  state: CoordinatorState,
  peer: Peer,
  { epoch, peerId, reason }: PeerMessage & { kind: "link-lost" },
): void {
  const { change } = state;
  if (change?.view.epoch === epoch) {
    // Built, and lost again before the install: this attempt has failed for that pair.
    const failures = change.ready.get(peer.id);
    if (failures !== undefined) change.ready.set(peer.id, [...failures, { peerId, reason }]);
  } else if (change === undefined && epoch === state.installedEpoch && peer.phase === "admitted") {
    // If the other end is dead rather than unlinked, the Prepare finds out: its lease ends, or its stream does.
    if (groupMembers(state, peer.group).some((member) => member.id === peerId)) {
      state.relink = `the link between peer ${peer.id} and peer ${peerId} broke: ${reason}`;
    }
  }
}

/** Carries the change on as far as it goes now. Returns whether anything was done. */
export function settleChange(state: CoordinatorState, turn: Turn): boolean {
  const { change } = state;
  if (change === undefined) return false;
  const members = change.view.members.flatMap(({ peerId }) => state.peers.get(peerId) ?? []);
  if (members.length < change.view.members.length) {
    if (members.every((peer) => peer.phase === "pending")) {
      // No installed view is left to carry on: the first world, or an empty one, begins by its own rule.
      state.change = undefined;
    } else {
      const gone = change.view.members.map((member) => member.peerId).filter((id) => !state.peers.has(id));
      prepare(state, turn, members, `without ${peerList(gone)}`, { voters: change.voters });
    }
    return true;
  }
  if (change.ready.size < members.length) return false;
  const failures = failedPairs(change);
  if (failures.size === 0) install(state, turn, change, members);
  else if (change.attempt < PREPARE_ATTEMPTS_MAX) {
    const reason = `again: ${[...failures.values()][0]}`;
    prepare(state, turn, members, reason, { ...change, attempt: change.attempt + 1 });
  } else avoidOrRemove(state, turn, change, members, failures);
  return true;
}

/** Removes members that live but never answered the Prepare. */
export function expireChange(state: CoordinatorState, turn: Turn): void {
  const { change } = state;
  if (change === undefined || turn.nowMs < change.deadlineMs) return;
  for (const { peerId } of change.view.members) {
    const peer = state.peers.get(peerId);
    if (peer !== undefined && !change.ready.has(peerId)) {
      remove(
        state,
        turn,
        peer,
        `peer ${peerId} lives but did not prepare epoch ${change.view.epoch} in time`,
      );
    }
  }
}

/** Links of the view that could not be built, with a sentence about each. */
function failedPairs(change: Change): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const [from, failures] of change.ready) {
    for (const { peerId, reason } of failures) {
      const key = pairKey(from, peerId);
      if (!pairs.has(key)) pairs.set(key, `peer ${from} could not be linked with peer ${peerId}: ${reason}`);
    }
  }
  // A peer that names a pair which the view doesn't link could otherwise keep the change from ever ending.
  const real = new Set(change.view.rings.flatMap((ring) => linkedPairs(ring.peerIds, pairs.keys())));
  return new Map([...pairs].filter(([pair]) => real.has(pair)));
}

/**
 * Links that can't be built after several attempts: another ring order if one does without them, else a member
 * has to go. A newcomer goes before an old member does (I8): the newest one of those with the most failed links.
 */
function avoidOrRemove(
  state: CoordinatorState,
  turn: Turn,
  change: Change,
  members: readonly Peer[],
  failures: ReadonlyMap<string, string>,
): void {
  for (const pair of failures.keys()) state.unlinkable.add(pair);
  const stuck = ringsOf(state, members).flatMap((ring) => linkedPairs(ring.peerIds, failures.keys()));
  if (stuck.length === 0) {
    prepare(state, turn, members, "in another ring order", { voters: change.voters });
    return;
  }
  const newcomers = members.filter((peer) => peer.phase === "pending");
  const candidates = newcomers.some((peer) => stuck.some((pair) => hasEnd(pair, peer.id)))
    ? newcomers
    : members;
  let rest = stuck;
  while (rest.length > 0) {
    const worst = [...candidates]
      .sort((a, b) => failuresOf(rest, b.id) - failuresOf(rest, a.id) || b.id - a.id)
      .at(0);
    const pair = rest.find((key) => worst !== undefined && hasEnd(key, worst.id));
    // What is left are links between old members, which get their own attempts without the newcomers.
    if (worst === undefined || pair === undefined) break;
    rest = rest.filter((key) => !hasEnd(key, worst.id));
    const hint = isLoopback(worst.endpoint.host)
      ? `; peer ${worst.id} advertises ${worst.endpoint.host}, which only its own host can reach`
      : "";
    remove(
      state,
      turn,
      worst,
      `${failures.get(pair)} (after ${PREPARE_ATTEMPTS_MAX} attempts, and no ring order does without)${hint}`,
    );
  }
}

function hasEnd(pair: string, id: PeerId): boolean {
  return pair.split("-").includes(String(id));
}

function failuresOf(pairs: readonly string[], id: PeerId): number {
  return pairs.filter((pair) => hasEnd(pair, id)).length;
}

function install(state: CoordinatorState, turn: Turn, change: Change, members: readonly Peer[]): void {
  const { epoch, rings } = change.view;
  const frozen = state.installedEpoch;
  const verdictsOf = new Map(
    rings.map(({ group }) => {
      const survivors = groupMembers(state, group);
      const { verdicts, contradictions } = decide(
        frozen,
        new Map(survivors.map((peer) => [peer.id, state.reports.get(peer.id) ?? new Map()])),
      );
      for (const reason of contradictions) log(turn, { event: "contradiction", group, reason });
      return [group, verdicts] as const;
    }),
  );
  for (const peer of members) {
    const verdicts = peer.phase === "admitted" ? (verdictsOf.get(peer.group) ?? []) : [];
    send(turn, peer, { kind: "install", epoch, verdicts });
  }
  state.installedEpoch = epoch;
  state.rings = rings;
  state.reports.clear();
  state.change = undefined;
  // What is linked now can be linked.
  for (const ring of rings) {
    for (const pair of linkedPairs(ring.peerIds, state.unlinkable)) state.unlinkable.delete(pair);
  }
  const all = [...verdictsOf.values()].flat();
  const commits = all.filter((verdict) => verdict.commit).length;
  const worldSize = members.length;
  log(turn, { event: "installed", epoch, worldSize, commits, aborts: all.length - commits });
  for (const peer of members) {
    if (peer.phase === "pending") {
      peer.phase = "admitted";
      log(turn, { event: "admitted", peerId: peer.id, epoch, worldSize });
    }
    const requestId = change.voters.get(peer.id);
    if (requestId !== undefined && peer.call?.requestId === requestId) {
      peer.call = undefined;
      send(turn, peer, { kind: "topology-answer", requestId, changed: true });
    }
  }
}

function peerList(ids: readonly PeerId[]): string {
  return `${ids.length === 1 ? "peer" : "peers"} ${ids.join(", ")}`;
}
