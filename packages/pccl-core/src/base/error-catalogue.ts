/**
 * The one catalogue of errors: code, meaning, whether a retry can help, and what the caller does about it.
 * Each code has a class in errors.ts. Native code names the same codes (native/src/base/error.cc); a test compares the two lists.
 */

export interface CatalogueEntry {
  /** The same call may succeed when it is made again. */
  readonly retryable: boolean;
  readonly meaning: string;
  readonly remedy: string;
}

export const ERROR_CATALOGUE = {
  ERR_PCCL_INVALID_ARGUMENT: {
    retryable: false,
    meaning: "An argument or option has the wrong type or value. Nothing was changed.",
    remedy: "Fix the argument that the message names.",
  },
  ERR_PCCL_UNKNOWN_OPTION: {
    retryable: false,
    meaning: "An options object has a key that the call doesn't know. Nothing was changed.",
    remedy: "Check the spelling against the keys that the message lists.",
  },
  ERR_PCCL_BUFFER_IN_USE: {
    retryable: false,
    meaning: "A buffer overlaps one that another op in flight uses.",
    remedy: "Await the other op first, or use another buffer.",
  },
  ERR_PCCL_TAG_IN_USE: {
    retryable: false,
    meaning: "An op of the group with the same tag is in flight on this peer.",
    remedy: "Give concurrent ops different tags, the same on every peer.",
  },
  ERR_PCCL_TOO_MANY_OPS: {
    retryable: false,
    meaning: "The limit of ops in flight is reached.",
    remedy: "Await some of them, or let allReduceAll schedule them.",
  },
  ERR_PCCL_OPS_IN_FLIGHT: {
    retryable: false,
    meaning: "A topology or sync call was made while ops are in flight on this peer.",
    remedy: "Await the ops first.",
  },
  ERR_PCCL_CALL_IN_PROGRESS: {
    retryable: false,
    meaning: "A topology or sync call of this peer is in progress, and the new call can't run beside it.",
    remedy: "Await the first call, then make the second.",
  },
  ERR_PCCL_NOT_INSTALLED: {
    retryable: false,
    meaning: "The peer has no view yet: it has not been admitted.",
    remedy: "Await connect() before using the communicator.",
  },
  ERR_PCCL_DESCRIPTOR_MISMATCH: {
    retryable: false,
    meaning:
      "Members of one op called different kinds of ops, or with different count, dtype, reduction or root.",
    remedy: "Make every peer call the op with the same arguments. Nothing was combined or moved.",
  },
  ERR_PCCL_CALL_MISMATCH: {
    retryable: false,
    meaning: "All peers wait, but in different calls, so that none could ever return.",
    remedy: "Make every peer make the same topology and sync calls in the same order.",
  },
  ERR_PCCL_PEER_LOST: {
    retryable: true,
    meaning: "A peer or a link was lost while the op was running, or before it began; nobody has its result.",
    remedy:
      "Make the same call again: the new view is installed. Buffers whose shape depends on the ranks are to be shaped by it.",
  },
  ERR_PCCL_CANCELLED: {
    retryable: true,
    meaning: "Another member's caller withdrew the op or the sync before it was done.",
    remedy: "Retry together with that member, or stop. Buffers are as before the call.",
  },
  ERR_PCCL_CLOSED: {
    retryable: false,
    meaning: "The communicator was closed.",
    remedy: "Don't use a communicator after close().",
  },
  ERR_PCCL_COORDINATOR_UNREACHABLE: {
    retryable: true,
    meaning: "No connection to the coordinator could be made.",
    remedy: "Check the address, that `pccl coordinator` runs there, and that no firewall blocks its port.",
  },
  ERR_PCCL_COORDINATOR_LOST: {
    retryable: false,
    meaning: "The connection to the coordinator ended; this communicator can't continue.",
    remedy: "Restart the coordinator if it is down, then connect again.",
  },
  ERR_PCCL_VERSION_MISMATCH: {
    retryable: false,
    meaning: "Peer and coordinator speak different protocol versions.",
    remedy: "Install the same version of @pccl/core on both.",
  },
  ERR_PCCL_REMOVED: {
    retryable: false,
    meaning: "The coordinator removed this peer; the message says why.",
    remedy: "Connect again to join as a new peer.",
  },
  ERR_PCCL_TIMEOUT: {
    retryable: true,
    meaning: "The time allowed for the call ran out.",
    remedy: "Allow more time, or look at the peers that the message names.",
  },
  ERR_PCCL_LISTEN_FAILED: {
    retryable: false,
    meaning: "The system refused an address or port to listen on, or memory for it.",
    remedy: "Choose a free port and an address of this machine.",
  },
  ERR_PCCL_OUT_OF_MEMORY: {
    retryable: false,
    meaning: "The system has no memory left for a tensor, or for the copy that undoes an op in place.",
    remedy: "Use smaller tensors, or reduce out of place, which needs no copy.",
  },
  ERR_PCCL_NON_FINITE_INPUT: {
    retryable: false,
    meaning:
      "A member's input to a quantized op has NaN, an infinity, or a number that is too large for a bf16 or f16.",
    remedy:
      'Find out where that peer\'s values come from; nonFinite: "pass" lets them through to the result. Buffers in place are as before the call.',
  },
  ERR_PCCL_JOURNAL_IN_USE: {
    retryable: false,
    meaning: "Another coordinator of this machine uses the same state directory.",
    remedy: "Stop the other coordinator, or give this one a directory of its own.",
  },
  ERR_PCCL_JOURNAL_UNREADABLE: {
    retryable: false,
    meaning: "A coordinator's journal is damaged, or another version of this library wrote it.",
    remedy:
      "Start the version that wrote it, or restore the file. Without it peers can't go on: move it away and connect them again.",
  },
  ERR_PCCL_JOURNAL_FAILED: {
    retryable: false,
    meaning:
      "A coordinator's state directory can't be used: no permission, no space, or an error of the disk. A running coordinator has stopped.",
    remedy: "Remove the cause and start the coordinator again with the same directory: its peers go on.",
  },
  ERR_PCCL_STATE_MISMATCH: {
    retryable: false,
    meaning: "Peers offer shared states with different names, types or lengths.",
    remedy: "Build the same model on every peer; the message names the first difference.",
  },
  ERR_PCCL_STATE_REVISION: {
    retryable: false,
    meaning: "A peer offers a revision that doesn't follow the group's last one.",
    remedy: "Advance the revision by one per sync, or join with the revision that sync returned.",
  },
  ERR_PCCL_STATE_STRATEGY: {
    retryable: false,
    meaning: "The strategies that the peers offer their shared states with don't go together.",
    remedy:
      "Use enforce-popular on all peers, or send-only on some and receive-only on the others; seed a group only when no holder is left.",
  },
  ERR_PCCL_STATE_LOST: {
    retryable: false,
    meaning: "Every holder of the group's last revision is gone.",
    remedy: "Load a checkpoint on one peer and call seedSharedState with it, syncSharedState on the others.",
  },
  ERR_PCCL_STATE_CHANGED: {
    retryable: true,
    meaning:
      "A tensor of a shared state was written to while it was being synced, and another peer got to see that.",
    remedy: "Write to the tensors only between syncs; with background, only after `served` has resolved.",
  },
  ERR_PCCL_STATE_FETCH_FAILED: {
    retryable: true,
    meaning: "No peer was left from which all tensors that differ could be fetched.",
    remedy: "Sync again. This peer's tensors are unchanged, and what has come needn't come again.",
  },
  ERR_PCCL_LAYOUT_MISMATCH: {
    retryable: false,
    meaning: "A parameter source doesn't have the names and lengths that training began with.",
    remedy: "Keep the model's layout fixed while it trains.",
  },
  ERR_PCCL_NOT_FINITE: {
    retryable: false,
    meaning: "A model's parameters hold NaN or infinity. Nothing was sent, so no other peer was harmed.",
    remedy: "Lower the learning rate or skip such batches; restart this peer to take the group's parameters.",
  },
  ERR_PCCL_CHECKPOINT_UNREADABLE: {
    retryable: false,
    meaning: "A checkpoint's files are damaged, or of another format.",
    remedy: "Restore them, or delete that checkpoint: the one before is then used.",
  },
  ERR_PCCL_NATIVE_LOAD: {
    retryable: false,
    meaning: "The native addon is missing or can't be loaded.",
    remedy: "Run `npm run bootstrap` in the repository; the message has the loader's reason.",
  },
  ERR_PCCL_INTERNAL: {
    retryable: false,
    meaning: "A rule that this library keeps was broken: a bug.",
    remedy: "Report it with the message and stack.",
  },
} as const;

export type PcclErrorCode = keyof typeof ERROR_CATALOGUE;

export function isPcclErrorCode(code: unknown): code is PcclErrorCode {
  return typeof code === "string" && Object.hasOwn(ERROR_CATALOGUE, code);
}
