/**
 * What the coordinator knows, and what its steps may do. Everything here is plain data owned by whoever calls
 * step(): no clock, no I/O, no randomness. The server (control/server.ts) and the simulator (sim/) are callers.
 */
import type { PcclErrorCode } from "../base/errors.js";
import type { Call } from "./calls.js";
import { type Channel, push, UNNUMBERED } from "./channel.js";
import type {
  CoordinatorMessage,
  Endpoint,
  Envelope,
  LinkFailure,
  LostPeer,
  OpReport,
  PathSpeed,
  PeerMessage,
  Relay,
  Ring,
  RingOp,
} from "./messages.js";
import type { SyncRecord } from "./election.js";
import type { Sync } from "./sync.js";
import type { PathRecord } from "./host-paths.js";

/** Names one stream; given out by the caller of step(), never used twice. */
export type ConnectionId = number;
export type PeerId = number;

/** Removed peers that are told why when they attach again. */
const REMOVALS_MAX = 1_024;

export interface CoordinatorConfig {
  readonly leaseMs: number;
  /** Peers that must be there before the first world begins. */
  readonly minPeers: number;
  readonly peersMax: number;
  /** 16 bytes from a random source: members present them to each other's data ports. */
  readonly key: Uint8Array;
}

export interface Peer {
  readonly id: PeerId;
  /** What an attach has to show. */
  readonly secret: Uint8Array;
  readonly group: number;
  readonly endpoint: Endpoint;
  /** Equal for peers that can share memory; empty for one that shares none. */
  readonly hostId: string;
  readonly channel: Channel<CoordinatorMessage>;
  /** Undefined: detached, its stream broke and it hasn't attached again yet. */
  connection: ConnectionId | undefined;
  phase: "pending" | "admitted";
  heardAtMs: number;
  /** A probe of the peer's data port is under way. */
  probing: boolean;
  /** The data port has answered a probe: from then on its refusal says something. */
  reachable: boolean;
  /** The control call that this peer waits in; changed by setCall(). */
  call: Call | undefined;
}

/** A view on its way: prepared by the members whose ring changes, not installed yet. */
export interface Change {
  readonly reason: string;
  /** Counts the Prepares since the membership or the ring order of this change last differed. */
  readonly attempt: number;
  readonly epoch: number;
  readonly rings: readonly Ring[];
  readonly relays: readonly Relay[];
  /** Groups whose members were told to prepare, by this attempt or an earlier one: their old ring is frozen. */
  readonly touched: ReadonlySet<number>;
  /** Everybody in the view. */
  readonly members: ReadonlySet<PeerId>;
  /** Those of them who have to be ready: the members of the touched groups. */
  readonly preparing: ReadonlySet<PeerId>;
  deadlineMs: number;
  /** A member is gone since the Prepare. */
  incomplete: boolean;
  /** Members that have answered, with the links that they could not build. */
  readonly ready: Map<PeerId, readonly LinkFailure[]>;
  /** Open updateTopology calls that this change answers, as request ids by peer. */
  readonly voters: Map<PeerId, number>;
}

/** An op that a member waits in because others haven't called it. */
export interface Stall extends RingOp {
  readonly missing: readonly PeerId[];
  /** Whom the member was asked to abort the op for; its answer is to come. */
  asked: PeerId | undefined;
}

/** Of the path between two peers. */
export interface Measurement {
  readonly from: PeerId;
  readonly to: PeerId;
  /** Who dials for it: `to`, after `from` has tried and couldn't. */
  readonly by: "from" | "to";
  deadlineMs: number;
}

/** Admitted peers, and how many of them wait in each call. */
export type Tally = { members: number } & Record<Call["kind"], number>;

export interface CoordinatorState {
  readonly config: CoordinatorConfig;
  /** Streams that haven't registered yet. */
  readonly strangers: Map<
    ConnectionId,
    { readonly address: string; readonly secret: Uint8Array; readonly sinceMs: number }
  >;
  /** In the order of their ids. */
  readonly peers: Map<PeerId, Peer>;
  readonly peerOf: Map<ConnectionId, PeerId>;
  nextPeerId: PeerId;
  /** Why peers were removed, the latest ones, for those that attach again. */
  readonly removals: Map<PeerId, string>;
  /** The highest epoch that any peer was told; never given out twice. */
  epoch: number;
  /** 0 before the first install and while the world is empty. */
  installedEpoch: number;
  /** Rings of the installed view; may name members that are gone until the next install. */
  rings: readonly Ring[];
  relays: readonly Relay[];
  /** Admitted peers that are gone since the last install. */
  readonly departed: LostPeer[];
  change: Change | undefined;
  /** Groups in which a link between living members broke, with the reason to build the ring again. */
  readonly relink: Map<number, string>;
  /** Pairs that could not be linked, by pairKey(), and relays that didn't work, by relayKey(). */
  readonly unlinkable: Set<string>;
  /** Ops of the installed rings as their members reported them when they froze, by opKey(). */
  readonly reports: Map<PeerId, Map<string, OpReport>>;
  readonly stalls: Map<PeerId, Stall[]>;
  readonly syncs: Map<number, Sync>;
  readonly records: Map<number, SyncRecord>;
  /** By the peer that sends, then by the one that receives. */
  readonly paths: Map<PeerId, Map<PeerId, PathRecord>>;
  /** Those that are under way, by their ids. */
  readonly measurements: Map<number, Measurement>;
  nextMeasurementId: number;
  /** All admitted peers wait in optimizeTopology: from whom to whom is still to be measured. */
  optimizing: { readonly queue: [PeerId, PeerId][] } | undefined;
  /** By group: the order that its ring is to get, until the next install. */
  readonly orders: Map<number, readonly PeerId[]>;
  /**
   * By group, and over all of them; kept by admit(), setCall() and forget(), so that an event costs no walk over
   * all peers. They follow from `peers`: see recount(). The order of the groups means nothing.
   */
  readonly tallies: Map<number, Tally>;
  total: Tally;
  tickedAtMs: number | undefined;
}

/** refused: the host lives and nothing listens there; alive: somebody does; unknown: no answer. */
export type ProbeResult = "refused" | "alive" | "unknown";

export type CoordinatorEvent =
  /** `address`: the host that the stream comes from. `secret`: 16 random bytes, in case it registers. */
  | {
      readonly kind: "connected";
      readonly connection: ConnectionId;
      readonly address: string;
      readonly secret: Uint8Array;
    }
  | ({ readonly kind: "message"; readonly connection: ConnectionId } & Envelope<PeerMessage>)
  /** The stream carried something that is not a message. */
  | { readonly kind: "invalid"; readonly connection: ConnectionId; readonly reason: string }
  | { readonly kind: "disconnected"; readonly connection: ConnectionId; readonly reason: string }
  /** What a probe has found. */
  | { readonly kind: "probed"; readonly peerId: PeerId; readonly result: ProbeResult }
  /** The state was restored after the coordinator's end: every stream is gone. */
  | { readonly kind: "restarted" }
  /** Due a few times per lease. */
  | { readonly kind: "tick" }
  /** The coordinator is about to end: tells everybody. */
  | { readonly kind: "shutdown" };

/** What happened, for logs, the command line and tests. */
export type CoordinatorLog =
  | { readonly event: "joined"; readonly peerId: PeerId; readonly group: number; readonly endpoint: Endpoint }
  | {
      readonly event: "refused";
      readonly address: string;
      readonly code: PcclErrorCode;
      readonly reason: string;
    }
  /** The first probe of its data port: only a port that has answered can later tell the end of its process. */
  | {
      readonly event: "probed";
      readonly peerId: PeerId;
      readonly endpoint: Endpoint;
      readonly result: ProbeResult;
    }
  | { readonly event: "detached"; readonly peerId: PeerId; readonly reason: string }
  | { readonly event: "attached"; readonly peerId: PeerId; readonly resent: number }
  | { readonly event: "restarted"; readonly peers: number; readonly epoch: number }
  | { readonly event: "left"; readonly peerId: PeerId; readonly worldSize: number }
  | {
      readonly event: "removed";
      readonly peerId: PeerId;
      readonly reason: string;
      readonly worldSize: number;
    }
  | {
      readonly event: "preparing";
      readonly epoch: number;
      readonly worldSize: number;
      readonly attempt: number;
      readonly reason: string;
    }
  | {
      readonly event: "admitted";
      readonly peerId: PeerId;
      readonly epoch: number;
      readonly worldSize: number;
    }
  | {
      readonly event: "installed";
      readonly epoch: number;
      readonly worldSize: number;
      readonly commits: number;
      readonly aborts: number;
    }
  | { readonly event: "contradiction"; readonly group: number; readonly reason: string }
  | {
      readonly event: "synced";
      readonly group: number;
      readonly revision: number;
      readonly receivers: number;
    }
  | ({ readonly event: "measured"; readonly from: PeerId; readonly to: PeerId } & PathSpeed)
  | { readonly event: "not-measured"; readonly from: PeerId; readonly to: PeerId; readonly reason: string }
  /** What optimizeTopology has found for a ring: of its slowest path, and of a chunk's way round; and was before. */
  | {
      readonly event: "topology";
      readonly group: number;
      readonly adopted: boolean;
      readonly peerIds: readonly PeerId[];
      readonly bytesPerSecond: number;
      readonly bytesPerSecondBefore: number;
      readonly roundSeconds: number;
      readonly roundSecondsBefore: number;
    }
  | {
      readonly event: "call-failed";
      readonly peerIds: readonly PeerId[];
      readonly code: PcclErrorCode;
      readonly reason: string;
    };

export type CoordinatorEffect =
  | ({ readonly kind: "send"; readonly connection: ConnectionId } & Envelope<CoordinatorMessage>)
  /** Find out whether anything listens on the peer's data port; the answer is a `probed` event. */
  | { readonly kind: "probe"; readonly peerId: PeerId; readonly endpoint: Endpoint }
  /** Ends the stream after what was sent on it. */
  | { readonly kind: "end"; readonly connection: ConnectionId }
  | { readonly kind: "log"; readonly log: CoordinatorLog };

/** One step's surroundings: the time, and the effects so far. */
export interface Turn {
  readonly nowMs: number;
  readonly effects: CoordinatorEffect[];
}

export function createCoordinator(config: CoordinatorConfig): CoordinatorState {
  return {
    config,
    strangers: new Map(),
    peers: new Map(),
    peerOf: new Map(),
    nextPeerId: 1,
    removals: new Map(),
    epoch: 0,
    installedEpoch: 0,
    rings: [],
    relays: [],
    departed: [],
    change: undefined,
    relink: new Map(),
    unlinkable: new Set(),
    reports: new Map(),
    stalls: new Map(),
    syncs: new Map(),
    records: new Map(),
    paths: new Map(),
    measurements: new Map(),
    nextMeasurementId: 1,
    optimizing: undefined,
    orders: new Map(),
    tallies: new Map(),
    total: emptyTally(),
    tickedAtMs: undefined,
  };
}

/** Sends now or, to a detached peer, when it has attached again. */
export function send(turn: Turn, peer: Peer, message: CoordinatorMessage): void {
  const seq = push(peer.channel, message);
  if (peer.connection === undefined) return;
  const ack = peer.channel.received;
  turn.effects.push({ kind: "send", connection: peer.connection, seq, ack, message });
}

/** Sends what only means something on this stream. */
export function sendUnnumbered(turn: Turn, peer: Peer, message: CoordinatorMessage): void {
  if (peer.connection === undefined) return;
  const ack = peer.channel.received;
  turn.effects.push({ kind: "send", connection: peer.connection, seq: UNNUMBERED, ack, message });
}

export function log(turn: Turn, entry: CoordinatorLog): void {
  turn.effects.push({ kind: "log", log: entry });
}

/** Admitted peers that aren't gone, oldest first. */
export function admittedPeers(state: CoordinatorState): Peer[] {
  return [...state.peers.values()].filter((peer) => peer.phase === "admitted");
}

/** Peers that could be let in now: a detached one couldn't prepare. */
export function pendingPeers(state: CoordinatorState): Peer[] {
  return [...state.peers.values()].filter(
    (peer) => peer.phase === "pending" && peer.connection !== undefined,
  );
}

/** Admitted peers of a group that aren't gone, in the ring order of the installed view. */
export function groupMembers(state: CoordinatorState, group: number): Peer[] {
  return (ringOf(state, group)?.peerIds ?? []).flatMap((id) => {
    const peer = state.peers.get(id);
    return peer?.phase === "admitted" ? [peer] : [];
  });
}

export function ringOf(state: CoordinatorState, group: number): Ring | undefined {
  return state.rings.find((ring) => ring.group === group);
}

export function emptyTally(): Tally {
  return { members: 0, hasPendingPeers: 0, updateTopology: 0, optimizeTopology: 0, syncSharedState: 0 };
}

/** Counts `tallies` and `total` anew, for a state that was stored without them. */
export function recount(state: CoordinatorState): void {
  state.tallies.clear();
  state.total = emptyTally();
  for (const peer of admittedPeers(state)) {
    count(state, peer, "members", 1);
    if (peer.call !== undefined) count(state, peer, peer.call.kind, 1);
  }
}

function count(state: CoordinatorState, { group }: Peer, what: keyof Tally, difference: number): void {
  let tally = state.tallies.get(group);
  if (tally === undefined) state.tallies.set(group, (tally = emptyTally()));
  tally[what] += difference;
  state.total[what] += difference;
  if (tally.members === 0) state.tallies.delete(group);
}

/** The call that all of them wait in; "different" ones; undefined when one of them doesn't wait. */
export function commonCall(tally: Tally = emptyTally()): Call["kind"] | "different" | undefined {
  const { members, ...waiting } = tally;
  let sum = 0;
  for (const [kind, callers] of Object.entries(waiting)) {
    if (members > 0 && callers === members) return kind as Call["kind"];
    sum += callers;
  }
  return members === 0 || sum < members ? undefined : "different";
}

export function admit(state: CoordinatorState, peer: Peer): void {
  peer.phase = "admitted";
  count(state, peer, "members", 1);
}

/** An admitted peer begins to wait in a call, or waits no longer. */
export function setCall(state: CoordinatorState, peer: Peer, call: Call | undefined): void {
  if (peer.call !== undefined) count(state, peer, peer.call.kind, -1);
  peer.call = call;
  if (call !== undefined) count(state, peer, call.kind, 1);
}

/** Forgets a peer and ends its stream; what waited for it is settled at the end of the step. */
export function forget(state: CoordinatorState, turn: Turn, peer: Peer, reason: string): void {
  state.peers.delete(peer.id);
  state.reports.delete(peer.id);
  state.stalls.delete(peer.id);
  for (const key of state.unlinkable) {
    if (key.split(/[-@]/).includes(String(peer.id))) state.unlinkable.delete(key);
  }
  state.paths.delete(peer.id);
  for (const [from, records] of state.paths) {
    records.delete(peer.id);
    if (records.size === 0) state.paths.delete(from);
  }
  for (const [id, { from, to }] of state.measurements) {
    if (from === peer.id || to === peer.id) state.measurements.delete(id);
  }
  if (peer.phase === "admitted") {
    setCall(state, peer, undefined);
    count(state, peer, "members", -1);
    state.departed.push({ peerId: peer.id, group: peer.group, reason });
    const participant = state.syncs.get(peer.group)?.participants.get(peer.id);
    if (participant !== undefined) participant.state = "failed";
  }
  if (state.change?.members.has(peer.id)) state.change.incomplete = true;
  if (peer.connection === undefined) return;
  state.peerOf.delete(peer.connection);
  turn.effects.push({ kind: "end", connection: peer.connection });
}

/** Removes a peer, telling it why: now, or when it attaches again. */
export function remove(state: CoordinatorState, turn: Turn, peer: Peer, reason: string): void {
  sendUnnumbered(turn, peer, { kind: "removed", reason });
  forget(state, turn, peer, reason);
  state.removals.set(peer.id, reason);
  for (const id of state.removals.keys()) {
    if (state.removals.size <= REMOVALS_MAX) break;
    state.removals.delete(id);
  }
  log(turn, { event: "removed", peerId: peer.id, reason, worldSize: state.total.members });
}
