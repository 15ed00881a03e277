/**
 * optimizeTopology: when all admitted peers call it, the paths that nobody knows, or that were measured too long ago,
 * are measured, each ring gets the best order for them, and the peers are answered. All of it follows from the facts
 * as they are after each event: who dies meanwhile takes its paths along, who withdraws stops what is still to be
 * measured, and what was measured stays known.
 *
 * Nodes are hosts, since peers of one host don't need the network for each other; the first of a host's peers in ring
 * order measures for it. Each peer is in one measurement at a time, so that they don't disturb each other.
 */
import {
  FULLY_LINKED_MAX,
  MEASUREMENT_TIMEOUT_MS,
  MEASURED_PARTNERS_MAX,
  RING_SEARCH_EVALUATIONS,
} from "../base/limits.js";
import { isBetter, ringCost, slowestOf } from "../topology/paths.js";
import { solveRing } from "../topology/solve.js";
import { type Call, refuse } from "./calls.js";
import { adoptOrders } from "./change.js";
import { type FindPath, hostsOf, latestBetween, type PathRecord, pathsBetweenHosts } from "./host-paths.js";
import type { Endpoint, PeerMessage, Ring } from "./messages.js";
import { pairKey } from "./ring.js";
import {
  admittedPeers,
  commonCall,
  type CoordinatorState,
  log,
  type Measurement,
  type Peer,
  type PeerId,
  ringOf,
  send,
  setCall,
  type Turn,
} from "./state.js";

/** A ring whose slowest path is as fast isn't worth new ranks unless its round is so much shorter. */
const ROUND_GAIN_MIN = 0.05;

/** Carries the call on as far as it goes now. Returns whether anything was done. */
export function settleOptimize(state: CoordinatorState, turn: Turn): boolean {
  if (commonCall(state.total) !== "optimizeTopology") {
    state.optimizing = undefined;
    return false;
  }
  // A change that is under way is finished first; if it was made for this call it answers it.
  if (state.change !== undefined) return false;
  if (state.optimizing === undefined) {
    const maxAgeMs = admittedPeers(state).reduce(
      (least, { call }) => Math.min(least, (call as Call & { kind: "optimizeTopology" }).maxAgeMs),
      Number.POSITIVE_INFINITY,
    );
    state.optimizing = { queue: pairsToMeasure(state, turn.nowMs - maxAgeMs) };
  }
  if (beginMeasurements(state, turn, state.optimizing.queue)) return true;
  const isRunning = [...state.measurements.values()].some(
    ({ a, b }) => isAdmitted(state, a) && isAdmitted(state, b),
  );
  if (state.optimizing.queue.length > 0 || isRunning) return false;
  state.optimizing = undefined;
  adoptBestRings(state, turn);
  return true;
}

/** Pairs of peers, ordered so that as many as can be are measured side by side. */
function pairsToMeasure(state: CoordinatorState, sinceMs: number): [PeerId, PeerId][] {
  const find = findPath(state);
  const isKnown = (from: readonly PeerId[], to: readonly PeerId[]): boolean =>
    (latestBetween(find, from, to)?.measuredAtMs ?? Number.NEGATIVE_INFINITY) >= sinceMs;
  return state.rings.flatMap((ring) => {
    const hosts = hostsOf(ring);
    const pairs: [PeerId, PeerId][] = [];
    for (const [i, j] of tournament(hosts.length)) {
      const [a, b] = [hosts[i] as PeerId[], hosts[j] as PeerId[]];
      if (!(isKnown(a, b) && isKnown(b, a))) pairs.push([a[0] as PeerId, b[0] as PeerId]);
      // The rest of a large group has its turn with the next call.
      if (pairs.length >= (hosts.length * MEASURED_PARTNERS_MAX) / 2) break;
    }
    return pairs;
  });
}

/** All pairs of 0 … size-1 in rounds in which everybody has one partner: the circle method of tournaments. */
function* tournament(size: number): Generator<[number, number]> {
  const seats = size + (size % 2);
  for (let round = 0; round < seats - 1; round++) {
    for (let i = 0; i < seats / 2; i++) {
      const a = i === 0 ? seats - 1 : (round + i) % (seats - 1);
      const b = (round + seats - 1 - i) % (seats - 1);
      if (a < size && b < size) yield a < b ? [a, b] : [b, a];
    }
  }
}

function isAdmitted(state: CoordinatorState, id: PeerId): boolean {
  return state.peers.get(id)?.phase === "admitted";
}

/** Those of the queue whose peers are in no other one. */
function beginMeasurements(state: CoordinatorState, turn: Turn, queue: [PeerId, PeerId][]): boolean {
  const busy = new Set([...state.measurements.values()].flatMap(({ a, b }) => [a, b]));
  const left: [PeerId, PeerId][] = [];
  let begun = false;
  for (const [a, b] of queue) {
    if (!isAdmitted(state, a) || !isAdmitted(state, b)) continue;
    if (busy.has(a) || busy.has(b)) {
      left.push([a, b]);
      continue;
    }
    busy.add(a).add(b);
    measure(state, turn, { a, b, again: false, deadlineMs: measurementDeadlineMs(state, turn) });
    begun = true;
  }
  queue.splice(0, queue.length, ...left);
  return begun;
}

/** A peer that lives and doesn't answer keeps nobody waiting for longer. */
export function measurementDeadlineMs(state: CoordinatorState, turn: Turn): number {
  return turn.nowMs + MEASUREMENT_TIMEOUT_MS + state.config.leaseMs;
}

function measure(state: CoordinatorState, turn: Turn, measurement: Measurement): void {
  const { a, b } = measurement;
  const id = state.nextMeasurementId++;
  const [dialler, target] = [state.peers.get(a) as Peer, state.peers.get(b) as Peer];
  state.measurements.set(id, measurement);
  send(turn, dialler, {
    kind: "measure",
    measurementId: id,
    target: { peerId: b, group: target.group, endpoint: endpointOf(state, dialler, target) },
  });
}

/** Where the other one is reached, through a relay if there has to be one. */
function endpointOf(state: CoordinatorState, from: Peer, to: Peer): Endpoint {
  const relay = state.relays.find(({ a, b }) => pairKey(a, b) === pairKey(from.id, to.id));
  return (state.peers.get(relay?.via ?? to.id) ?? to).endpoint;
}

export function onMeasured(
  state: CoordinatorState,
  turn: Turn,
  peer: Peer,
  { measurementId, result }: PeerMessage & { kind: "measured" },
): void {
  const measurement = state.measurements.get(measurementId);
  // Too late, or the other one is gone.
  if (measurement?.a !== peer.id) return;
  state.measurements.delete(measurementId);
  const { a, b, again } = measurement;
  if ("reason" in result) {
    // Of two peers only one may be able to reach the other.
    if (!again) {
      measure(state, turn, { a: b, b: a, again: true, deadlineMs: measurementDeadlineMs(state, turn) });
    } else recordUnreachable(state, turn, measurement, result.reason);
    return;
  }
  const { rttMs, txBytesPerSecond, rxBytesPerSecond } = result;
  record(state, a, b, { bytesPerSecond: txBytesPerSecond, rttMs, measuredAtMs: turn.nowMs });
  record(state, b, a, { bytesPerSecond: rxBytesPerSecond, rttMs, measuredAtMs: turn.nowMs });
  log(turn, { event: "measured", from: a, to: b, ...result });
}

function recordUnreachable(state: CoordinatorState, turn: Turn, { a, b }: Measurement, reason: string): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    record(state, from, to, { bytesPerSecond: 0, rttMs: 0, measuredAtMs: turn.nowMs });
  }
  log(turn, { event: "not-measured", from: a, to: b, reason });
}

function record({ paths }: CoordinatorState, from: PeerId, to: PeerId, found: PathRecord): void {
  const records = paths.get(from);
  if (records === undefined) paths.set(from, new Map([[to, found]]));
  else records.set(to, found);
}

/** Tells what is known of the paths between the members of the peer's group. */
export function onTopologyQuery(state: CoordinatorState, turn: Turn, peer: Peer, requestId: number): void {
  const ring = ringOf(state, peer.group);
  if (peer.phase === "pending" || ring === undefined) {
    const message = `topology: peer ${peer.id} is not admitted yet.`;
    return refuse(turn, peer, requestId, "ERR_PCCL_NOT_INSTALLED", message);
  }
  const members = new Set(ring.peerIds);
  const paths = ring.peerIds.flatMap((from) =>
    [...(state.paths.get(from) ?? [])].flatMap(([to, { bytesPerSecond, rttMs, measuredAtMs }]) =>
      members.has(to)
        ? [{ from, to, bytesPerSecond, rttMs, ageMs: Math.max(0, turn.nowMs - measuredAtMs) }]
        : [],
    ),
  );
  send(turn, peer, { kind: "topology-info", requestId, info: { epoch: state.installedEpoch, ring, paths } });
}

/** Gives up what has had its time. */
export function expireMeasurements(state: CoordinatorState, turn: Turn): void {
  for (const [id, measurement] of state.measurements) {
    if (turn.nowMs < measurement.deadlineMs) continue;
    state.measurements.delete(id);
    recordUnreachable(
      state,
      turn,
      measurement,
      `peer ${measurement.a} lives but has not said what it measured`,
    );
  }
}

/** What is known of a path that the ring may take. */
function findPath({ paths, unlinkable, relays }: CoordinatorState): FindPath {
  const relayed = new Set(relays.map(({ a, b }) => pairKey(a, b)));
  return (from, to) => {
    const found = paths.get(from)?.get(to);
    const pair = pairKey(from, to);
    // What was measured before the two lost each other counts for nothing.
    return found !== undefined && unlinkable.has(pair) && !relayed.has(pair)
      ? { ...found, bytesPerSecond: 0 }
      : found;
  };
}

function adoptBestRings(state: CoordinatorState, turn: Turn): void {
  const orders = new Map<number, readonly PeerId[]>();
  for (const ring of state.rings) {
    const better = betterOrder(state, turn, ring);
    if (better !== undefined) orders.set(ring.group, better);
  }
  const voters = admittedPeers(state);
  if (orders.size > 0) {
    const requests = voters.map((peer): [PeerId, number] => [peer.id, (peer.call as Call).requestId]);
    return adoptOrders(state, turn, orders, new Map(requests));
  }
  for (const peer of voters) {
    const { requestId } = peer.call as Call;
    setCall(state, peer, undefined);
    send(turn, peer, { kind: "topology-answer", requestId, changed: false });
  }
}

/** The ring's peers in a better order, if there is one that is worth new ranks. The first one stays the first. */
function betterOrder(state: CoordinatorState, turn: Turn, ring: Ring): readonly PeerId[] | undefined {
  const hosts = hostsOf(ring);
  if (hosts.length < 3) return undefined;
  const paths = pathsBetweenHosts(hosts, findPath(state));
  const now = hosts.map((_, node) => node);
  // The same search each time, from where the last one has come to: seeded by the ring's epoch.
  const best = solveRing(paths, { start: now, seed: ring.epoch, evaluations: RING_SEARCH_EVALUATIONS });
  const [cost, before] = [ringCost(paths, best), ringCost(paths, now)];
  const peerIds = best.flatMap((node) => hosts[node] as PeerId[]);
  // Hosts that a large ring goes through more than once, from before they were told apart, are worth it by themselves.
  const isTangled = ring.peerIds.length > FULLY_LINKED_MAX && hosts.flat().join() !== ring.peerIds.join();
  const adopted =
    isTangled ||
    (isBetter(cost, before) &&
      (cost.level < before.level || cost.round < before.round * (1 - ROUND_GAIN_MIN)));
  log(turn, {
    event: "topology",
    group: ring.group,
    adopted,
    peerIds: adopted ? peerIds : ring.peerIds,
    bytesPerSecond: 1 / slowestOf(paths, adopted ? best : now),
    bytesPerSecondBefore: 1 / slowestOf(paths, now),
    roundSeconds: adopted ? cost.round : before.round,
    roundSecondsBefore: before.round,
  });
  return adopted ? peerIds : undefined;
}
