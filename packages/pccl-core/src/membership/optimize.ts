/**
 * optimizeTopology: when all admitted peers call it, the paths that nobody knows, or that were measured too long ago,
 * are measured, each ring gets the best order for them, and the peers are answered. All of it follows from the facts
 * as they are after each event: who dies meanwhile takes its paths along, who withdraws stops what is still to be
 * measured, and what was measured stays known.
 *
 * Nodes are hosts, since peers of one host don't need the network for each other; the first of a host's peers in ring
 * order measures for it. Each peer sends for one measurement at a time, and receives for one, as it does in a ring.
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
  // A change that is due or under way is finished first; if it was made for this call it answers it.
  if (state.change !== undefined || state.departed.length > 0 || state.relink.size > 0) return false;
  if (state.optimizing === undefined) {
    const maxAgeMs = admittedPeers(state).reduce(
      (least, { call }) => Math.min(least, (call as Call & { kind: "optimizeTopology" }).maxAgeMs),
      Number.POSITIVE_INFINITY,
    );
    state.optimizing = { queue: pathsToMeasure(state, turn.nowMs - maxAgeMs) };
  }
  if (beginMeasurements(state, turn, state.optimizing.queue)) return true;
  if (state.optimizing.queue.length > 0 || state.measurements.size > 0) return false;
  state.optimizing = undefined;
  adoptBestRings(state, turn);
  return true;
}

/** From whom to whom, ordered so that as many as can be are measured side by side. */
function pathsToMeasure(state: CoordinatorState, sinceMs: number): [PeerId, PeerId][] {
  const find = findPath(state);
  return state.rings.flatMap((ring) => {
    const hosts = hostsOf(ring);
    const size = hosts.length;
    const wanted: [PeerId, PeerId][] = [];
    // In each round everybody sends to one other host and receives from one, as in a ring.
    for (let round = 1; round < size; round++) {
      for (let i = 0; i < size; i++) {
        const [from, to] = [hosts[i] as PeerId[], hosts[(i + round) % size] as PeerId[]];
        const known = latestBetween(find, from, to)?.measuredAtMs ?? Number.NEGATIVE_INFINITY;
        if (known < sinceMs) wanted.push([from[0] as PeerId, to[0] as PeerId]);
      }
      // The rest of a large group has its turn with the next call.
      if (wanted.length >= size * MEASURED_PARTNERS_MAX) break;
    }
    return wanted;
  });
}

function isAdmitted(state: CoordinatorState, id: PeerId): boolean {
  return state.peers.get(id)?.phase === "admitted";
}

/** Those of the queue whose ends don't send, or receive, for another one already. */
function beginMeasurements(state: CoordinatorState, turn: Turn, queue: [PeerId, PeerId][]): boolean {
  const running = [...state.measurements.values()];
  const senders = new Set(running.map(({ from }) => from));
  const receivers = new Set(running.map(({ to }) => to));
  const left: [PeerId, PeerId][] = [];
  let begun = false;
  for (const [from, to] of queue) {
    if (!isAdmitted(state, from) || !isAdmitted(state, to)) continue;
    if (senders.has(from) || receivers.has(to)) {
      left.push([from, to]);
      continue;
    }
    senders.add(from);
    receivers.add(to);
    measure(state, turn, from, to, "from");
    begun = true;
  }
  queue.splice(0, queue.length, ...left);
  return begun;
}

/** A peer that lives and doesn't answer keeps nobody waiting for longer. */
export function measurementDeadlineMs(state: CoordinatorState, turn: Turn): number {
  return turn.nowMs + MEASUREMENT_TIMEOUT_MS + state.config.leaseMs;
}

function measure(state: CoordinatorState, turn: Turn, from: PeerId, to: PeerId, by: Measurement["by"]): void {
  const measurementId = state.nextMeasurementId++;
  state.measurements.set(measurementId, { from, to, by, deadlineMs: measurementDeadlineMs(state, turn) });
  const [dialler, target] = (by === "from" ? [from, to] : [to, from]).map(
    (id) => state.peers.get(id) as Peer,
  ) as [Peer, Peer];
  send(turn, dialler, {
    kind: "measure",
    measurementId,
    target: { peerId: target.id, group: target.group, endpoint: endpointOf(state, dialler, target) },
    direction: by === "from" ? "send" : "receive",
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
  if (measurement?.[measurement.by] !== peer.id) return;
  state.measurements.delete(measurementId);
  const { from, to, by } = measurement;
  if (!("reason" in result)) {
    record(state, from, to, { ...result, measuredAtMs: turn.nowMs });
    log(turn, { event: "measured", from, to, ...result });
  } else if (by === "from") {
    // Of two peers only one may be able to reach the other.
    measure(state, turn, from, to, "to");
  } else recordUnreachable(state, turn, measurement, result.reason);
}

function recordUnreachable(
  state: CoordinatorState,
  turn: Turn,
  { from, to }: Measurement,
  reason: string,
): void {
  record(state, from, to, { bytesPerSecond: 0, rttMs: 0, measuredAtMs: turn.nowMs });
  log(turn, { event: "not-measured", from, to, reason });
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
      `peer ${measurement[measurement.by]} lives but has not said what it measured`,
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
  // Of more hosts than can be solved exactly each call searches on from where the last one has come to, another way.
  const seed = Math.floor(turn.nowMs);
  const best = solveRing(paths, { start: now, seed, evaluations: RING_SEARCH_EVALUATIONS });
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
