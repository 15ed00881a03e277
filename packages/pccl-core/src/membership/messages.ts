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

export interface Ring {
  readonly group: number;
  readonly peerIds: readonly number[];
}

export interface View {
  readonly epoch: number;
  readonly members: readonly Member[];
  readonly rings: readonly Ring[];
  readonly key: Uint8Array;
}

export type OpState = "not-done" | "done" | "committed" | "aborted";

export interface OpReport {
  readonly epoch: number;
  readonly tag: bigint;
  readonly seq: number;
  readonly state: OpState;
}

export interface OpVerdict {
  readonly epoch: number;
  readonly tag: bigint;
  readonly seq: number;
  readonly commit: boolean;
}

export interface LinkFailure {
  readonly peerId: number;
  readonly reason: string;
}

export type SyncStrategy = "enforce-popular" | "receive-only" | "send-only";

export interface StateEntry {
  readonly name: string;
  readonly dtype: string;
  readonly count: number;
  /** 32 hex digits. */
  readonly hash: string;
}

export interface SyncFetch {
  readonly name: string;
  readonly hash: string;
}

export type PeerMessage =
  | {
      readonly kind: "register";
      readonly protocolVersion: number;
      readonly group: number;
      readonly endpoint: Endpoint;
    }
  | { readonly kind: "heartbeat" }
  | {
      readonly kind: "ready";
      readonly epoch: number;
      readonly failures: readonly LinkFailure[];
      readonly ops: readonly OpReport[];
    }
  | { readonly kind: "link-lost"; readonly epoch: number; readonly peerId: number; readonly reason: string }
  | { readonly kind: "pending-vote"; readonly requestId: number }
  | { readonly kind: "topology-vote"; readonly requestId: number }
  | {
      readonly kind: "sync-offer";
      readonly requestId: number;
      readonly revision: number;
      readonly strategy: SyncStrategy;
      readonly entries: readonly StateEntry[];
    }
  | { readonly kind: "sync-done"; readonly requestId: number; readonly ok: boolean; readonly reason: string }
  | { readonly kind: "leave" };

export type CoordinatorMessage =
  | { readonly kind: "registered"; readonly peerId: number; readonly leaseMs: number }
  | { readonly kind: "rejected"; readonly code: string; readonly message: string }
  | { readonly kind: "heartbeat" }
  | { readonly kind: "prepare"; readonly view: View }
  | { readonly kind: "install"; readonly epoch: number; readonly verdicts: readonly OpVerdict[] }
  | { readonly kind: "pending-answer"; readonly requestId: number; readonly pending: boolean }
  | { readonly kind: "topology-answer"; readonly requestId: number; readonly changed: boolean }
  | {
      readonly kind: "sync-plan";
      readonly requestId: number;
      readonly revision: number;
      /** Absent when there is nothing to fetch. */
      readonly source: Member | undefined;
      readonly fetches: readonly SyncFetch[];
    }
  | { readonly kind: "sync-complete"; readonly requestId: number; readonly revision: number }
  | {
      readonly kind: "call-failed";
      readonly requestId: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly kind: "removed"; readonly reason: string };
