/**
 * From one view to the next: Prepare, Ready, Install. A change begins when the membership or a link of the
 * installed view is lost, when newcomers are let in, or when the first world begins; it ends with an Install.
 * Members that answered a Prepare are frozen, so a change that lost its purpose is still carried through. A group
 * whose ring stays the same is not touched: its members only hear of the Install.
 */
import { ADMISSION_ATTEMPTS_MAX, PREPARE_ATTEMPTS_MAX, PREPARE_TIMEOUT_MS } from "../base/limits.js";
import { isLoopback } from "../base/address.js";
import type { Member, OpReport, PeerMessage, Relay, Ring, View } from "./messages.js";
import { endsOf, linkedPairs, linkedPeers, orderAvoiding, pairKey, relayKey, relaysFor } from "./ring.js";
import {
  admit,
  admittedPeers,
  type Change,
  type CoordinatorState,
  groupMembers,
  log,
  type Peer,
  type PeerId,
  pendingPeers,
  remove,
  ringOf,
  send,
  setCall,
  type Turn,
} from "./state.js";
import { decide, opKey, takesPart } from "./verdicts.js";

/** Starts the change that is due, if any. Returns whether one began. */
export function beginDueChange(state: CoordinatorState, turn: Turn): boolean {
  if (state.change !== undefined) return false;
  if (state.total.members === 0) {
    const pending = pendingPeers(state);
    if (pending.length === 0 || pending.length < state.config.minPeers) return false;
    prepare(state, turn, pending, "the first world begins");
    return true;
  }
  if (state.departed.length > 0) {
    const lost = state.departed.map((peer) => peer.peerId);
    prepare(state, turn, admittedPeers(state), `without ${peerList(lost)}`);
    return true;
  }
  const [relink] = state.relink.values();
  if (relink === undefined) return false;
  prepare(state, turn, admittedPeers(state), relink);
  return true;
}

/** Lets all pending peers in; `voters` are answered when the view is installed. */
export function admitPending(state: CoordinatorState, turn: Turn, voters: Map<PeerId, number>): void {
  const pending = pendingPeers(state);
  const reason = `to admit ${peerList(pending.map((peer) => peer.id))}`;
  prepare(state, turn, [...admittedPeers(state), ...pending], reason, { voters });
}

/** Gives rings another order; `voters` are answered when the view is installed. */
export function adoptOrders(
  state: CoordinatorState,
  turn: Turn,
  orders: ReadonlyMap<number, readonly PeerId[]>,
  voters: Map<PeerId, number>,
): void {
  for (const [group, peerIds] of orders) state.orders.set(group, peerIds);
  prepare(state, turn, admittedPeers(state), "in a better ring order", { voters });
}

function prepare(
  state: CoordinatorState,
  turn: Turn,
  peers: readonly Peer[],
  reason: string,
  {
    attempt = 1,
    voters = new Map(),
    touched: before = new Set(),
  }: Partial<Pick<Change, "attempt" | "voters" | "touched">> = {},
): void {
  const epoch = ++state.epoch;
  const { rings, relays } = planRings(state, peers, epoch, before);
  const touched = new Set([
    ...before,
    ...rings.filter((ring) => ring.epoch === epoch).map(({ group }) => group),
  ]);
  const preparing = peers.filter((peer) => touched.has(peer.group));
  const change: Change = {
    reason,
    attempt,
    epoch,
    rings,
    relays,
    touched,
    members: new Set(peers.map((peer) => peer.id)),
    preparing: new Set(preparing.map((peer) => peer.id)),
    deadlineMs: changeDeadlineMs(state, turn),
    incomplete: false,
    ready: new Map(),
    voters,
  };
  state.change = change;
  for (const group of touched) state.relink.delete(group);
  log(turn, { event: "preparing", epoch, worldSize: peers.length, attempt, reason });
  for (const peer of preparing) send(turn, peer, { kind: "prepare", view: viewOf(state, change, peer) });
}

/** A member whose engine doesn't answer in time isn't saved by its heartbeats. */
export function changeDeadlineMs(state: CoordinatorState, turn: Turn): number {
  return turn.nowMs + 2 * PREPARE_TIMEOUT_MS + state.config.leaseMs;
}

/**
 * Members keep their order, or get the one that was found for them; newcomers are appended by id, and pairs that can't
 * be linked are kept apart, or get a relay. A ring that is the installed one stays it, unless it has been frozen already or has to be built again.
 */
function planRings(
  state: CoordinatorState,
  peers: readonly Peer[],
  epoch: number,
  touched: ReadonlySet<number>,
): { readonly rings: readonly Ring[]; readonly relays: readonly Relay[]; readonly stuck: readonly string[] } {
  const idsOf = new Map<number, Set<PeerId>>();
  for (const { id, group } of peers) {
    const ids = idsOf.get(group);
    if (ids === undefined) idsOf.set(group, new Set([id]));
    else ids.add(id);
  }
  const plans = [...idsOf]
    .sort(([a], [b]) => a - b)
    .map(([group, ids]) => {
      const installed = ringOf(state, group);
      const order = state.orders.get(group) ?? installed?.peerIds ?? [];
      const old = order.filter((id) => ids.has(id));
      if (
        installed !== undefined &&
        old.length === ids.size &&
        old.length === installed.peerIds.length &&
        old.every((id, rank) => id === installed.peerIds[rank]) &&
        !touched.has(group) &&
        !state.relink.has(group)
      ) {
        return { ring: installed, relays: state.relays.filter(({ a }) => ids.has(a)), stuck: [] };
      }
      for (const id of old) ids.delete(id);
      const peerIds = orderAvoiding([...old, ...[...ids].sort((a, b) => a - b)], state.unlinkable);
      const hosts = hostNumbers(peerIds.map((id) => state.peers.get(id)?.hostId ?? ""));
      return { ring: { group, epoch, peerIds, hosts }, ...relaysFor(peerIds, state.unlinkable) };
    });
  return {
    rings: plans.map((plan) => plan.ring),
    relays: plans.flatMap((plan) => plan.relays),
    stuck: plans.flatMap((plan) => plan.stuck),
  };
}

/** A number for each host, from 0 in the order in which they come; an empty id is a host of its own. */
function hostNumbers(hostIds: readonly string[]): number[] {
  const numbers = new Map<string, number>();
  return hostIds.map((hostId, index) => {
    const host = hostId === "" ? `peer ${index}` : `host ${hostId}`;
    const number = numbers.get(host) ?? numbers.size;
    numbers.set(host, number);
    return number;
  });
}

/** What one member has to know: its ring, and where the members are that it may have to dial. */
function viewOf(state: CoordinatorState, { epoch, rings, relays, members }: Change, peer: Peer): View {
  const ring = rings.find(({ group }) => group === peer.group) as Ring;
  const own = relays.filter(({ a, b, via }) => a === peer.id || b === peer.id || via === peer.id);
  const dialled = new Set([
    ...linkedPeers(ring.peerIds, peer.id),
    ...own.flatMap(({ a, b, via }) => [a, b, via]),
  ]);
  dialled.delete(peer.id);
  return {
    epoch,
    worldSize: members.size,
    ring,
    members: [...dialled].flatMap((id): Member[] => {
      const member = state.peers.get(id);
      return member === undefined ? [] : [{ peerId: id, group: member.group, endpoint: member.endpoint }];
    }),
    relays: own,
    key: state.config.key,
  };
}

export function onReady(
  state: CoordinatorState,
  peer: Peer,
  { epoch, failures, ops }: PeerMessage & { kind: "ready" },
): void {
  // The frozen ring stays the same until an Install, so reports of a Ready that came too late count as well.
  const frozen = peer.phase === "admitted" ? ringOf(state, peer.group)?.epoch : undefined;
  const reports = state.reports.get(peer.id) ?? new Map<string, OpReport>();
  for (const report of ops) {
    if (report.epoch === frozen && takesPart(report, peer.id)) reports.set(opKey(report), report);
  }
  state.reports.set(peer.id, reports);
  const { change } = state;
  if (change?.epoch === epoch && change.preparing.has(peer.id)) change.ready.set(peer.id, failures);
}

export function onLinkLost(
  state: CoordinatorState,
  peer: Peer,
  { epoch, peerId, reason }: PeerMessage & { kind: "link-lost" },
): void {
  const { change } = state;
  if (change?.epoch === epoch) {
    // Built, and lost again before the install: this attempt has failed for that pair.
    const failures = change.ready.get(peer.id);
    if (failures !== undefined) change.ready.set(peer.id, [...failures, { peerId, reason }]);
    return;
  }
  const ring = peer.phase === "admitted" ? ringOf(state, peer.group) : undefined;
  // A frozen ring is replaced anyway. If the other end is dead rather than unlinked, the Prepare finds out: its
  // lease ends, or its stream does.
  if (ring?.epoch !== epoch || change?.touched.has(peer.group) === true || !ring.peerIds.includes(peerId))
    return;
  // The engine has tried for a whole lease to build it again.
  state.unlinkable.add(pairKey(peer.id, peerId));
  state.relink.set(peer.group, `the link between peer ${peer.id} and peer ${peerId} broke: ${reason}`);
}

/** Carries the change on as far as it goes now. Returns whether anything was done. */
export function settleChange(state: CoordinatorState, turn: Turn): boolean {
  const { change } = state;
  if (change === undefined) return false;
  const membersOf = (): Peer[] => [...change.members].flatMap((id) => state.peers.get(id) ?? []);
  if (change.incomplete) {
    const members = membersOf();
    if (members.every((peer) => peer.phase === "pending")) {
      // No installed view is left to carry on: the first world, or an empty one, begins by its own rule.
      state.change = undefined;
    } else {
      const gone = [...change.members].filter((id) => !state.peers.has(id));
      const { voters, touched } = change;
      prepare(state, turn, members, `without ${peerList(gone)}`, { voters, touched });
    }
    return true;
  }
  if (change.ready.size < change.preparing.size) return false;
  const members = membersOf();
  const failures = failedPairs(change);
  if (failures.size === 0) install(state, turn, change, members);
  else goAround(state, turn, change, members, failures);
  return true;
}

/** Removes members that live but never answered the Prepare. */
export function expireChange(state: CoordinatorState, turn: Turn): void {
  const { change } = state;
  if (change === undefined || turn.nowMs < change.deadlineMs) return;
  for (const peerId of change.preparing) {
    const peer = state.peers.get(peerId);
    if (peer !== undefined && !change.ready.has(peerId)) {
      remove(state, turn, peer, `peer ${peerId} lives but did not prepare epoch ${change.epoch} in time`);
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
  const real = new Set(change.rings.flatMap((ring) => linkedPairs(ring.peerIds, pairs.keys())));
  return new Map([...pairs].filter(([pair]) => real.has(pair)));
}

/**
 * Links that can't be built: another ring order does without them, or relays do. If neither is possible the same is
 * tried again, and at last a member has to go: a newcomer first, since nothing is lost by its coming later, an old one
 * after more attempts (I8), and of several the newest one of those with the most failed links.
 */
function goAround(
  state: CoordinatorState,
  turn: Turn,
  change: Change,
  members: readonly Peer[],
  failures: ReadonlyMap<string, string>,
): void {
  forgetWhatIsLinked(state, change, failures);
  for (const pair of failures.keys()) {
    const relay = change.relays.find(({ a, b }) => pairKey(a, b) === pair);
    state.unlinkable.add(relay === undefined ? pair : relayKey(relay));
  }
  const { attempt, voters, touched } = change;
  const { stuck } = planRings(state, members, change.epoch, touched);
  const forNewcomers = stuck.some((pair) =>
    endsOf(pair).some((id) => state.peers.get(id)?.phase === "pending"),
  );
  const attemptsMax = forNewcomers ? ADMISSION_ATTEMPTS_MAX : PREPARE_ATTEMPTS_MAX;
  if (stuck.length === 0 || attempt < attemptsMax) {
    const how = stuck.length === 0 ? "in another ring order or through relays" : "again";
    const reason = `${how}: ${[...failures.values()][0]}`;
    prepare(state, turn, members, reason, { attempt: attempt + 1, voters, touched });
    return;
  }
  const candidates = forNewcomers ? members.filter((peer) => peer.phase === "pending") : members;
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
    const failure = failures.get(pair) ?? `peers ${pair} could not be linked`;
    remove(state, turn, worst, `${failure} (and no ring order or relay does without)${hint}`);
  }
}

/** What an attempt has linked, and not through a relay, can be linked, whatever an earlier one found. */
function forgetWhatIsLinked(
  state: CoordinatorState,
  { rings, relays }: Change,
  failures: ReadonlyMap<string, string> = new Map(),
): void {
  const relayed = new Set(relays.map(({ a, b }) => pairKey(a, b)));
  for (const { peerIds } of rings) {
    for (const pair of linkedPairs(peerIds, state.unlinkable)) {
      if (!failures.has(pair) && !relayed.has(pair)) state.unlinkable.delete(pair);
    }
  }
}

function hasEnd(pair: string, id: PeerId): boolean {
  return endsOf(pair).includes(id);
}

function failuresOf(pairs: readonly string[], id: PeerId): number {
  return pairs.filter((pair) => hasEnd(pair, id)).length;
}

function install(state: CoordinatorState, turn: Turn, change: Change, members: readonly Peer[]): void {
  const { epoch, rings, touched } = change;
  const verdictsOf = new Map(
    [...touched].map((group) => {
      const survivors = groupMembers(state, group);
      const { verdicts, contradictions } = decide(
        ringOf(state, group)?.epoch ?? 0,
        new Map(survivors.map((peer) => [peer.id, state.reports.get(peer.id) ?? new Map()])),
      );
      for (const reason of contradictions) log(turn, { event: "contradiction", group, reason });
      return [group, verdicts] as const;
    }),
  );
  const worldSize = members.length;
  const joined = members.flatMap(({ id, group, phase }) =>
    phase === "pending" ? [{ peerId: id, group }] : [],
  );
  const lost = state.departed.splice(0);
  for (const peer of members) {
    const old = peer.phase === "admitted";
    const verdicts = old ? (verdictsOf.get(peer.group) ?? []) : [];
    send(turn, peer, {
      kind: "install",
      epoch,
      worldSize,
      verdicts,
      joined: old ? joined : [],
      lost: old ? lost : [],
    });
  }
  state.installedEpoch = epoch;
  state.rings = rings;
  state.relays = change.relays;
  state.change = undefined;
  forgetWhatIsLinked(state, change);
  state.orders.clear();
  for (const peer of members) {
    if (!touched.has(peer.group)) continue;
    state.reports.delete(peer.id);
    state.stalls.delete(peer.id);
  }
  const all = [...verdictsOf.values()].flat();
  const commits = all.filter((verdict) => verdict.commit).length;
  log(turn, { event: "installed", epoch, worldSize, commits, aborts: all.length - commits });
  for (const peer of members) {
    if (peer.phase === "pending") {
      admit(state, peer);
      log(turn, { event: "admitted", peerId: peer.id, epoch, worldSize });
    }
    const requestId = change.voters.get(peer.id);
    if (requestId !== undefined && peer.call?.requestId === requestId) {
      setCall(state, peer, undefined);
      send(turn, peer, { kind: "topology-answer", requestId, changed: true });
    }
  }
}

function peerList(ids: readonly PeerId[]): string {
  return `${ids.length === 1 ? "peer" : "peers"} ${ids.join(", ")}`;
}
