/**
 * The control plane's messages as the domain sees them: tagged unions with plain numbers and bigints.
 * control/wire.ts turns them into proto/pccl/v1/membership.proto and back, with range checks.
 */

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export interface Member {
  readonly peerId: number;
  readonly group: number;
  readonly endpoint: Endpoint;
}

/** A group's peers in order; a peer's rank is its index. */
export interface Ring {
  readonly group: number;
  /** The view in which this ring came to be: it names the ring's ops and links, and outlives views without changes. */
  readonly epoch: number;
  readonly peerIds: readonly number[];
  /** For each of them a number that it has in common with those on the same host, and with nobody else. */
  readonly hosts: readonly number[];
}

/** Two members that can't be linked directly, and the third one that passes their bytes on. */
export interface Relay {
  readonly a: number;
  readonly b: number;
  readonly via: number;
}

/** A view as one member is told it. */
export interface View {
  readonly epoch: number;
  /** Members over all groups. */
  readonly worldSize: number;
  /** The receiver's own. */
  readonly ring: Ring;
  /** Those members of the ring whose data port the receiver may have to dial. */
  readonly members: readonly Member[];
  /** Those that the receiver takes part in. */
  readonly relays: readonly Relay[];
  readonly key: Uint8Array;
}

export interface JoinedPeer {
  readonly peerId: number;
  readonly group: number;
}

export interface LostPeer extends JoinedPeer {
  readonly reason: string;
}

export type OpState = "not-done" | "done" | "committed" | "aborted";

/** Names an op within its ring. */
export interface OpName {
  readonly tag: bigint;
  /** Counts the ops with this tag; those between two members for each tag, sender and receiver. */
  readonly seq: number;
  /** Of a send and its recv, both or none: the two members that alone take part. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
}

/** Names one op of one ring. */
export interface RingOp extends OpName {
  /** The ring's. */
  readonly epoch: number;
}

export interface OpReport extends RingOp {
  readonly state: OpState;
}

export interface OpVerdict extends RingOp {
  readonly commit: boolean;
}

export interface LinkFailure {
  readonly peerId: number;
  readonly reason: string;
}

/** seed: begins the group's state again, when no holder is left. */
export type SyncStrategy = "enforce-popular" | "receive-only" | "send-only" | "seed";

export interface StateEntry {
  readonly name: string;
  readonly dtype: string;
  readonly count: number;
  /** The root of its hash tree, 32 hex digits. */
  readonly hash: string;
  /** Its content isn't part of what must be the same. */
  readonly allowInequality: boolean;
}

export interface SyncSource {
  readonly member: Member;
  /** Otherwise it fetches itself, and has what came so far. */
  readonly complete: boolean;
}

export interface SyncFetch {
  readonly name: string;
  readonly hash: string;
}

/** A message with its number (0: not numbered) and the last number that came the other way. */
export interface Envelope<M> {
  readonly seq: number;
  readonly ack: number;
  readonly message: M;
}

/** What a path carries. */
export interface PathSpeed {
  readonly bytesPerSecond: number;
  /** When nothing is on the way. */
  readonly rttMs: number;
}

/** A peer's group as the coordinator knows it. */
export interface TopologyInfo {
  /** Of the installed view. */
  readonly epoch: number;
  readonly ring: Ring;
  /** What has been measured between its members. */
  readonly paths: readonly {
    readonly from: number;
    readonly to: number;
    /** 0: nothing got over it. */
    readonly bytesPerSecond: number;
    readonly rttMs: number;
    readonly ageMs: number;
  }[];
}

export type PeerMessage =
  | {
      readonly kind: "register";
      readonly protocolVersion: number;
      readonly group: number;
      readonly endpoint: Endpoint;
      /** Equal for peers that can share memory; empty for one that shares none. */
      readonly hostId: string;
    }
  /** The first message of a stream that takes the place of a broken one. */
  | {
      readonly kind: "attach";
      readonly protocolVersion: number;
      readonly peerId: number;
      readonly secret: Uint8Array;
      /** The last number that came from the coordinator. */
      readonly received: number;
    }
  | { readonly kind: "heartbeat" }
  | {
      readonly kind: "ready";
      readonly epoch: number;
      readonly failures: readonly LinkFailure[];
      readonly ops: readonly OpReport[];
    }
  /** `epoch`: the ring's. */
  | { readonly kind: "link-lost"; readonly epoch: number; readonly peerId: number; readonly reason: string }
  /** An op of the ring with this epoch waits for members that haven't called it. */
  | ({ readonly kind: "stalled"; readonly missing: readonly number[] } & RingOp)
  /** The answer to abort-op. */
  | ({ readonly kind: "abort-answer"; readonly aborted: boolean } & RingOp)
  | { readonly kind: "pending-vote"; readonly requestId: number }
  | { readonly kind: "topology-vote"; readonly requestId: number }
  | { readonly kind: "optimize-vote"; readonly requestId: number; readonly maxAgeMs: number }
  | { readonly kind: "topology-query"; readonly requestId: number }
  /** The answer to measure. */
  | {
      readonly kind: "measured";
      readonly measurementId: number;
      readonly result: PathSpeed | { readonly reason: string };
    }
  | {
      readonly kind: "sync-offer";
      readonly requestId: number;
      readonly revision: number;
      readonly strategy: SyncStrategy;
      /** Isn't kept waiting for those who fetch. */
      readonly background: boolean;
      readonly entries: readonly StateEntry[];
    }
  | { readonly kind: "sync-done"; readonly requestId: number; readonly ok: boolean; readonly reason: string }
  /** The caller doesn't wait in this call any longer. */
  | { readonly kind: "withdraw"; readonly requestId: number }
  | { readonly kind: "leave" };

export type CoordinatorMessage =
  | {
      readonly kind: "registered";
      readonly peerId: number;
      readonly leaseMs: number;
      /** 16 bytes that a later attach has to show. */
      readonly secret: Uint8Array;
    }
  /** `received`: the last number that came from the peer. */
  | { readonly kind: "attached"; readonly received: number }
  | { readonly kind: "rejected"; readonly code: string; readonly message: string }
  | { readonly kind: "heartbeat" }
  | { readonly kind: "prepare"; readonly view: View }
  | {
      readonly kind: "install";
      readonly epoch: number;
      readonly worldSize: number;
      readonly verdicts: readonly OpVerdict[];
      /** Since the view before, over all groups. */
      readonly joined: readonly JoinedPeer[];
      readonly lost: readonly LostPeer[];
    }
  /** Ends an op that waits for `missing`, which waits for this peer in another call; if it really still does. */
  | ({ readonly kind: "abort-op"; readonly missing: number } & RingOp)
  | { readonly kind: "pending-answer"; readonly requestId: number; readonly pending: boolean }
  /** To topology-vote and optimize-vote. */
  | { readonly kind: "topology-answer"; readonly requestId: number; readonly changed: boolean }
  | { readonly kind: "topology-info"; readonly requestId: number; readonly info: TopologyInfo }
  /** Find out what the path to this member carries, or the one from it; `endpoint` may be a relay's. */
  | {
      readonly kind: "measure";
      readonly measurementId: number;
      readonly target: Member;
      readonly direction: "send" | "receive";
    }
  | {
      readonly kind: "sync-plan";
      readonly requestId: number;
      readonly revision: number;
      /** Empty when there is nothing to fetch. */
      readonly sources: readonly SyncSource[];
      /** Of the `shares` members that fetch, this one is number `share`. */
      readonly share: number;
      readonly shares: number;
      readonly fetches: readonly SyncFetch[];
    }
  | { readonly kind: "sync-complete"; readonly requestId: number; readonly revision: number }
  /** Nobody fetches any more; to those whose call has ended before, because they offered so. */
  | { readonly kind: "sync-ended"; readonly requestId: number; readonly revision: number }
  | {
      readonly kind: "call-failed";
      readonly requestId: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly kind: "removed"; readonly reason: string };
