/** Limits on everything that could otherwise grow. Units are last in the name. */

/** Raised with every change of proto/ or of the data-plane frames that an older peer can't follow. */
export const PROTOCOL_VERSION = 2;

/** Default port of the coordinator. */
export const COORDINATOR_PORT = 48148;

/** A peer that hasn't been heard for this long is dead. */
export const LEASE_DEFAULT_MS = 5_000;
export const LEASE_MIN_MS = 500;
export const LEASE_MAX_MS = 600_000;

/** Heartbeats per lease, so that a lost or late one doesn't kill. */
export const HEARTBEATS_PER_LEASE = 5;

/** How long building the links of a new view may take. */
export const PREPARE_TIMEOUT_MS = 5_000;

/** Prepares of one change of view before an old member that can't be linked, not even by a relay, is removed. */
export const PREPARE_ATTEMPTS_MAX = 3;

export const PEERS_MAX = 4_096;
export const GROUP_MAX: number = 2 ** 32 - 1;

/** Ops in flight on one peer; native/src/base/limits.h has the same number. */
export const OPS_IN_FLIGHT_MAX = 16;

/** Tensors of one shared state, and bytes of one name. */
export const STATE_TENSORS_MAX = 65_536;
export const STATE_NAME_BYTES_MAX = 512;

/** gRPC message size: a SyncOffer with STATE_TENSORS_MAX entries fits. */
export const CONTROL_MESSAGE_BYTES_MAX: number = 64 * 1024 * 1024;

/** Messages of the coordinator that a peer may leave unacknowledged. */
export const OUTBOX_MESSAGES_MAX = 4_096;
