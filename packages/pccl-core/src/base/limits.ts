/** Limits on everything that could otherwise grow. Units are last in the name. */

/** Raised with every change of proto/ or of the data-plane frames that an older peer can't follow. */
export const PROTOCOL_VERSION = 4;

/** Default port of the coordinator. */
export const COORDINATOR_PORT = 48148;

/** A peer that hasn't been heard for this long is dead. */
export const LEASE_DEFAULT_MS = 5_000;
export const LEASE_MIN_MS = 500;
export const LEASE_MAX_MS = 600_000;

/** Heartbeats per lease, so that a lost or late one doesn't kill. */
export const HEARTBEATS_PER_LEASE = 5;

/** Heartbeats without an answer after which a peer takes its stream for broken, and makes another one. */
export const HEARTBEATS_UNANSWERED_MAX = 3;

/** How long building the links of a new view may take. */
export const PREPARE_TIMEOUT_MS = 5_000;

/** Prepares of one change of view before an old member that can't be linked, not even by a relay, is removed. */
export const PREPARE_ATTEMPTS_MAX = 3;
/** The same for a newcomer. */
export const ADMISSION_ATTEMPTS_MAX = 2;

/** How long a peer may take to measure its paths to another one, which takes it some seconds, after its lease. */
export const MEASUREMENT_TIMEOUT_MS = 15_000;
/** What was measured is used again for so long, unless the call says otherwise. */
export const MEASUREMENT_AGE_DEFAULT_MS = 600_000;
/** Other hosts that one is measured with in one call, about. */
export const MEASURED_PARTNERS_MAX = 64;

/** Moves that a search for a better ring order looks at while the coordinator's peers wait: some 50 ms of its time. */
export const RING_SEARCH_EVALUATIONS = 300_000;

export const PEERS_MAX = 4_096;

/** Characters of what a peer says of the host that it is on. */
export const HOST_ID_CHARACTERS_MAX = 64;

export const GROUP_MAX: number = 2 ** 32 - 1;

/** Groups of up to so many link everybody with everybody; native/src/base/limits.h has the same number. */
export const FULLY_LINKED_MAX = 16;

/** The longest time that a Node timer can wait for. */
export const TIMEOUT_MAX_MS: number = 2 ** 31 - 1;

/** How long to keep trying to reach the coordinator: at first, and when it is gone later. */
export const CONNECT_TIMEOUT_DEFAULT_MS = 10_000;
export const COORDINATOR_TIMEOUT_DEFAULT_MS = 60_000;

/** Ops in flight on one peer; native/src/base/limits.h has the same numbers. */
export const OPS_IN_FLIGHT_DEFAULT = 16;
export const OPS_IN_FLIGHT_MAX = 256;

/**
 * All-reduces of one list. A list that fails withdraws all of its ops at once, and native code remembers that many of
 * which the other members are ahead: early_ops_max in native/src/base/limits.h.
 */
export const OPS_PER_LIST_MAX = 4_096;

/** TCP connections that make up one link; native/src/base/limits.h has the same number. */
export const CONNECTIONS_PER_PEER_MAX = 64;

/** Tensors of one shared state, and bytes of one name. */
export const STATE_TENSORS_MAX = 65_536;
export const STATE_NAME_BYTES_MAX = 512;
/** How many members that have all of a state, and how many that fetch it too, one that fetches is told of. */
export const SYNC_SOURCES_MAX = 16;

/** gRPC message size: a SyncOffer with STATE_TENSORS_MAX entries fits. */
export const CONTROL_MESSAGE_BYTES_MAX: number = 64 * 1024 * 1024;

/** Messages of the coordinator that a peer may leave unacknowledged. */
export const OUTBOX_MESSAGES_MAX = 4_096;
