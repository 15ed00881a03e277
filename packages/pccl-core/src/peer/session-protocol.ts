/**
 * What the main thread's Communicator and the control session's worker thread say to each other.
 * The session holds the gRPC stream and drives the native engine's views; the Communicator holds the promises.
 */
export type {
  InstalledNotice,
  SessionError,
  SessionNotice,
  SessionReplies,
  SessionRequest,
  SyncPlanReply,
} from "../membership/session-protocol.js";
export type { TopologyInfo } from "../membership/messages.js";

export interface SessionWorkerData {
  readonly engineId: number;
  /** HOST:PORT of the coordinator. */
  readonly coordinator: string;
  readonly group: number;
  /** Empty host: the address that the coordinator sees. */
  readonly advertise: { readonly host: string; readonly port: number };
  /** Equal for peers that can share memory; empty for one that shares none. */
  readonly hostId: string;
  /** How long to keep trying to reach the coordinator at first, and how long when it is gone later. */
  readonly connectTimeoutMs: number;
  readonly coordinatorTimeoutMs: number;
}
