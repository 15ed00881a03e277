/**
 * What a peer's user wants of the session (requests), and what the session tells (notices). The session is in a
 * worker thread, the user on the main thread; these messages are what passes between them.
 */
import type {
  JoinedPeer,
  LostPeer,
  StateEntry,
  SyncFetch,
  SyncSource,
  SyncStrategy,
  TopologyInfo,
} from "./messages.js";

/** Each request but a withdrawal gets exactly one reply with its id. */
export type SessionRequest =
  | { readonly id: number; readonly kind: "has-pending-peers" }
  | { readonly id: number; readonly kind: "update-topology" }
  | { readonly id: number; readonly kind: "optimize-topology"; readonly maxAgeMs: number }
  | { readonly id: number; readonly kind: "topology" }
  | {
      readonly id: number;
      readonly kind: "sync-offer";
      readonly revision: number;
      readonly strategy: SyncStrategy;
      /** Whether its sync-done is answered at once, and followed by sync-ended when nobody fetches any more. */
      readonly background: boolean;
      readonly entries: readonly StateEntry[];
    }
  /** Says how the fetches of the plan went; the reply comes when the whole group is through. */
  | { readonly id: number; readonly kind: "sync-done"; readonly ok: boolean; readonly reason: string }
  /**
   * The caller of request `target` doesn't wait for it any longer. That request gets its reply soon: its value when
   * it was too late, else ERR_PCCL_CANCELLED with the peers that it was waiting for. This one has no reply.
   */
  | { readonly id: number; readonly kind: "withdraw"; readonly target: number }
  /** Tells the coordinator goodbye and ends the worker's stream; the worker exits after the reply. */
  | { readonly id: number; readonly kind: "leave" };

export interface SyncPlanReply {
  readonly revision: number;
  readonly sources: readonly SyncSource[];
  readonly share: number;
  readonly shares: number;
  readonly fetches: readonly SyncFetch[];
}

/** Value of a successful reply, by the request's kind. */
export interface SessionReplies {
  "has-pending-peers": boolean;
  /** Whether a new view was installed by this call. */
  "update-topology": boolean;
  /** Whether this peer's world has got rings in another order. */
  "optimize-topology": boolean;
  topology: TopologyInfo;
  "sync-offer": SyncPlanReply;
  /** The revision that the group now has. */
  "sync-done": number;
  leave: undefined;
}

export interface SessionError {
  readonly code: string;
  readonly message: string;
  readonly peerId?: number | undefined;
}

export interface InstalledNotice {
  readonly epoch: number;
  readonly worldSize: number;
  /** This peer's group in ring order. */
  readonly ring: readonly number[];
  /** Since the view before, over all groups; empty in the first view. */
  readonly joined: readonly JoinedPeer[];
  readonly lost: readonly LostPeer[];
}

export type SessionNotice =
  | { readonly kind: "reply"; readonly id: number; readonly value: SessionReplies[keyof SessionReplies] }
  | { readonly kind: "reply"; readonly id: number; readonly error: SessionError }
  /** Registered with the coordinator, waiting for the members' consent. */
  | { readonly kind: "pending"; readonly peerId: number }
  /** The first view that holds this peer is installed. */
  | { readonly kind: "admitted"; readonly peerId: number; readonly view: InstalledNotice }
  /** A later view is installed. */
  | { readonly kind: "installed"; readonly view: InstalledNotice }
  /** The group's sync has failed while this peer fetches: what it fetches won't be needed. */
  | { readonly kind: "sync-failed"; readonly offerId: number; readonly error: SessionError }
  /** Nobody fetches any more in a sync that this peer offered to be in the background. */
  | { readonly kind: "sync-ended"; readonly offerId: number }
  /** The session is over (coordinator lost, removed, refused); open requests are failed with the same error. */
  | { readonly kind: "ended"; readonly error: SessionError };
