/**
 * What a peer's user wants of the session (requests), and what the session tells (notices). The session is in a
 * worker thread, the user on the main thread; these messages are what passes between them.
 */
import type { Member, StateEntry, SyncFetch, SyncStrategy } from "./messages.js";

/** Each request gets exactly one reply with its id. */
export type SessionRequest =
  | { readonly id: number; readonly kind: "has-pending-peers" }
  | { readonly id: number; readonly kind: "update-topology" }
  | {
      readonly id: number;
      readonly kind: "sync-offer";
      readonly revision: number;
      readonly strategy: SyncStrategy;
      readonly entries: readonly StateEntry[];
    }
  /** Says how the fetches of the plan went; the reply comes when the whole group is through. */
  | { readonly id: number; readonly kind: "sync-done"; readonly ok: boolean; readonly reason: string }
  /** Tells the coordinator goodbye and ends the worker's stream; the worker exits after the reply. */
  | { readonly id: number; readonly kind: "leave" };

export interface SyncPlanReply {
  readonly revision: number;
  readonly source: Member | undefined;
  readonly fetches: readonly SyncFetch[];
}

/** Value of a successful reply, by the request's kind. */
export interface SessionReplies {
  "has-pending-peers": boolean;
  /** Whether a new view was installed by this call. */
  "update-topology": boolean;
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

export type SessionNotice =
  | { readonly kind: "reply"; readonly id: number; readonly value: SessionReplies[keyof SessionReplies] }
  | { readonly kind: "reply"; readonly id: number; readonly error: SessionError }
  /** Registered with the coordinator, waiting for the members' consent. */
  | { readonly kind: "pending"; readonly peerId: number }
  /** The first view that holds this peer is installed. */
  | { readonly kind: "admitted"; readonly peerId: number }
  /** A later view is installed. */
  | { readonly kind: "installed"; readonly epoch: number }
  /** The session is over (coordinator lost, removed, refused); open requests are failed with the same error. */
  | { readonly kind: "ended"; readonly error: SessionError };
