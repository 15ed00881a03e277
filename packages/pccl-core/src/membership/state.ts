/**
 * What the coordinator knows, and what its steps may do. Everything here is plain data owned by whoever calls
 * step(): no clock, no I/O, no randomness. The server (control/server.ts) and the simulator (sim/) are callers.
 */
import type { PcclErrorCode } from "../base/errors.js";
import type {
  CoordinatorMessage,
  Endpoint,
  LinkFailure,
  OpReport,
  PeerMessage,
  Ring,
  View,
} from "./messages.js";
import type { Sync, SyncRecord } from "./sync.js";
import type { Call } from "./votes.js";

/** Names one stream; given out by the caller of step(), never used twice. */
export type ConnectionId = number;
export type PeerId = number;

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
  readonly connection: ConnectionId;
  readonly group: number;
  readonly endpoint: Endpoint;
  phase: "pending" | "admitted";
  heardAtMs: number;
  /** The control call that this peer waits in. */
  call: Call | undefined;
}

/** A view on its way: prepared by its members, not installed yet. */
export interface Change {
  readonly reason: string;
  /** Counts the Prepares since the membership or the ring order of this change last differed. */
  readonly attempt: number;
  readonly view: View;
  readonly deadlineMs: number;
  /** Members that have answered, with the links that they could not build. */
  readonly ready: Map<PeerId, readonly LinkFailure[]>;
  /** Open updateTopology calls that this change answers, as request ids by peer. */
  readonly voters: ReadonlyMap<PeerId, number>;
}

export interface CoordinatorState {
  readonly config: CoordinatorConfig;
  /** Streams that haven't registered yet. */
  readonly strangers: Map<ConnectionId, { readonly address: string; readonly sinceMs: number }>;
  readonly peers: Map<PeerId, Peer>;
  readonly peerOf: Map<ConnectionId, PeerId>;
  nextPeerId: PeerId;
  /** The highest epoch that any peer was told; never given out twice. */
  epoch: number;
  /** 0 before the first install and while the world is empty. */
  installedEpoch: number;
  /** Rings of the installed view; may name members that are gone until the next install. */
  rings: readonly Ring[];
  change: Change | undefined;
  /** A link between living members of the installed view broke: the reason to build it again. */
  relink: string | undefined;
  /** Pairs that could not be linked, by pairKey(): ring orders avoid them where they can. */
  readonly unlinkable: Set<string>;
  /** Ops of the installed epoch as their members reported them when they froze, by opKey(). */
  readonly reports: Map<PeerId, Map<string, OpReport>>;
  readonly syncs: Map<number, Sync>;
  readonly records: Map<number, SyncRecord>;
  tickedAtMs: number | undefined;
}

export type CoordinatorEvent =
  /** `address`: the host that the stream comes from. */
  | { readonly kind: "connected"; readonly connection: ConnectionId; readonly address: string }
  | { readonly kind: "message"; readonly connection: ConnectionId; readonly message: PeerMessage }
  /** The stream carried something that is not a message. */
  | { readonly kind: "invalid"; readonly connection: ConnectionId; readonly reason: string }
  | { readonly kind: "disconnected"; readonly connection: ConnectionId; readonly reason: string }
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
  | {
      readonly event: "call-failed";
      readonly peerIds: readonly PeerId[];
      readonly code: PcclErrorCode;
      readonly reason: string;
    };

export type CoordinatorEffect =
  | { readonly kind: "send"; readonly connection: ConnectionId; readonly message: CoordinatorMessage }
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
    epoch: 0,
    installedEpoch: 0,
    rings: [],
    change: undefined,
    relink: undefined,
    unlinkable: new Set(),
    reports: new Map(),
    syncs: new Map(),
    records: new Map(),
    tickedAtMs: undefined,
  };
}

export function send(turn: Turn, peer: Peer, message: CoordinatorMessage): void {
  turn.effects.push({ kind: "send", connection: peer.connection, message });
}

export function log(turn: Turn, entry: CoordinatorLog): void {
  turn.effects.push({ kind: "log", log: entry });
}

/** Living admitted peers, oldest first. */
export function admittedPeers(state: CoordinatorState): Peer[] {
  return [...state.peers.values()].filter((peer) => peer.phase === "admitted");
}

export function pendingPeers(state: CoordinatorState): Peer[] {
  return [...state.peers.values()].filter((peer) => peer.phase === "pending");
}

/** Living admitted peers of a group in the ring order of the installed view. */
export function groupMembers(state: CoordinatorState, group: number): Peer[] {
  const ring = state.rings.find((candidate) => candidate.group === group);
  return (ring?.peerIds ?? []).flatMap((id) => {
    const peer = state.peers.get(id);
    return peer?.phase === "admitted" ? [peer] : [];
  });
}

/** Forgets a peer and ends its stream; what waited for it is settled at the end of the step. */
export function forget(state: CoordinatorState, turn: Turn, peer: Peer): void {
  state.peers.delete(peer.id);
  state.peerOf.delete(peer.connection);
  state.reports.delete(peer.id);
  for (const pair of state.unlinkable) {
    if (pair.split("-").includes(String(peer.id))) state.unlinkable.delete(pair);
  }
  turn.effects.push({ kind: "end", connection: peer.connection });
}

/** Removes a peer, telling it why as long as its stream lives. */
export function remove(state: CoordinatorState, turn: Turn, peer: Peer, reason: string): void {
  send(turn, peer, { kind: "removed", reason });
  forget(state, turn, peer);
  log(turn, { event: "removed", peerId: peer.id, reason, worldSize: admittedPeers(state).length });
}
