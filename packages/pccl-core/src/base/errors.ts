/** The errors of this library: one base class, and a class for each code of the catalogue. */
import { type CatalogueEntry, ERROR_CATALOGUE, type PcclErrorCode } from "./error-catalogue.js";

export { ERROR_CATALOGUE, isPcclErrorCode, type PcclErrorCode } from "./error-catalogue.js";

export interface PcclErrorDetails {
  /** The peer that the error is about, when there is one. */
  readonly peerId?: number | undefined;
  /** The view in which it happened, when there was one. */
  readonly epoch?: number | undefined;
  readonly cause?: unknown;
}

/** Every error of this library. `code` is stable; the message names the operation, the peer and the phase. */
export abstract class PcclError extends Error {
  readonly code: PcclErrorCode;
  readonly retryable: boolean;
  /** What happened: the message without its advice. */
  readonly reason: string;
  readonly peerId: number | undefined;
  readonly epoch: number | undefined;

  constructor(code: PcclErrorCode, message: string, details: PcclErrorDetails = {}) {
    const entry: CatalogueEntry = ERROR_CATALOGUE[code];
    const sentence = /[.!?]$/.test(message) ? message : `${message}.`;
    super(`${sentence} ${entry.remedy}`, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.reason = sentence;
    this.code = code;
    this.retryable = entry.retryable;
    this.peerId = details.peerId;
    this.epoch = details.epoch;
  }
}

export class InvalidArgumentError extends PcclError {
  declare readonly code: "ERR_PCCL_INVALID_ARGUMENT";
}

export class UnknownOptionError extends PcclError {
  declare readonly code: "ERR_PCCL_UNKNOWN_OPTION";
}

export class BufferInUseError extends PcclError {
  declare readonly code: "ERR_PCCL_BUFFER_IN_USE";
}

export class TagInUseError extends PcclError {
  declare readonly code: "ERR_PCCL_TAG_IN_USE";
}

export class TooManyOpsError extends PcclError {
  declare readonly code: "ERR_PCCL_TOO_MANY_OPS";
}

export class OpsInFlightError extends PcclError {
  declare readonly code: "ERR_PCCL_OPS_IN_FLIGHT";
}

export class CallInProgressError extends PcclError {
  declare readonly code: "ERR_PCCL_CALL_IN_PROGRESS";
}

export class NotInstalledError extends PcclError {
  declare readonly code: "ERR_PCCL_NOT_INSTALLED";
}

export class DescriptorMismatchError extends PcclError {
  declare readonly code: "ERR_PCCL_DESCRIPTOR_MISMATCH";
}

export class CallMismatchError extends PcclError {
  declare readonly code: "ERR_PCCL_CALL_MISMATCH";
}

export class PeerLostError extends PcclError {
  declare readonly code: "ERR_PCCL_PEER_LOST";
}

export class CancelledError extends PcclError {
  declare readonly code: "ERR_PCCL_CANCELLED";
}

export class ClosedError extends PcclError {
  declare readonly code: "ERR_PCCL_CLOSED";
}

export class CoordinatorUnreachableError extends PcclError {
  declare readonly code: "ERR_PCCL_COORDINATOR_UNREACHABLE";
}

export class CoordinatorLostError extends PcclError {
  declare readonly code: "ERR_PCCL_COORDINATOR_LOST";
}

export class VersionMismatchError extends PcclError {
  declare readonly code: "ERR_PCCL_VERSION_MISMATCH";
}

export class RemovedError extends PcclError {
  declare readonly code: "ERR_PCCL_REMOVED";
}

export class PcclTimeoutError extends PcclError {
  declare readonly code: "ERR_PCCL_TIMEOUT";
}

export class ListenFailedError extends PcclError {
  declare readonly code: "ERR_PCCL_LISTEN_FAILED";
}

export class OutOfMemoryError extends PcclError {
  declare readonly code: "ERR_PCCL_OUT_OF_MEMORY";
}

export class NonFiniteInputError extends PcclError {
  declare readonly code: "ERR_PCCL_NON_FINITE_INPUT";
}

export class JournalInUseError extends PcclError {
  declare readonly code: "ERR_PCCL_JOURNAL_IN_USE";
}

export class JournalUnreadableError extends PcclError {
  declare readonly code: "ERR_PCCL_JOURNAL_UNREADABLE";
}

export class JournalFailedError extends PcclError {
  declare readonly code: "ERR_PCCL_JOURNAL_FAILED";
}

export class StateMismatchError extends PcclError {
  declare readonly code: "ERR_PCCL_STATE_MISMATCH";
}

export class StateRevisionError extends PcclError {
  declare readonly code: "ERR_PCCL_STATE_REVISION";
}

export class StateStrategyError extends PcclError {
  declare readonly code: "ERR_PCCL_STATE_STRATEGY";
}

export class StateLostError extends PcclError {
  declare readonly code: "ERR_PCCL_STATE_LOST";
}

export class StateChangedError extends PcclError {
  declare readonly code: "ERR_PCCL_STATE_CHANGED";
}

export class StateFetchFailedError extends PcclError {
  declare readonly code: "ERR_PCCL_STATE_FETCH_FAILED";
}

export class LayoutMismatchError extends PcclError {
  declare readonly code: "ERR_PCCL_LAYOUT_MISMATCH";
}

export class NotFiniteError extends PcclError {
  declare readonly code: "ERR_PCCL_NOT_FINITE";
}

export class CheckpointUnreadableError extends PcclError {
  declare readonly code: "ERR_PCCL_CHECKPOINT_UNREADABLE";
}

export class NativeLoadError extends PcclError {
  declare readonly code: "ERR_PCCL_NATIVE_LOAD";
}

export class InternalError extends PcclError {
  declare readonly code: "ERR_PCCL_INTERNAL";
}

type ErrorClass<Code extends PcclErrorCode> = new (
  ...parameters: ConstructorParameters<typeof PcclError>
) => PcclError & { readonly code: Code };

/** The class of each code: a code without one, or with that of another code, doesn't compile. */
export const ERROR_CLASSES: { readonly [Code in PcclErrorCode]: ErrorClass<Code> } = {
  ERR_PCCL_INVALID_ARGUMENT: InvalidArgumentError,
  ERR_PCCL_UNKNOWN_OPTION: UnknownOptionError,
  ERR_PCCL_BUFFER_IN_USE: BufferInUseError,
  ERR_PCCL_TAG_IN_USE: TagInUseError,
  ERR_PCCL_TOO_MANY_OPS: TooManyOpsError,
  ERR_PCCL_OPS_IN_FLIGHT: OpsInFlightError,
  ERR_PCCL_CALL_IN_PROGRESS: CallInProgressError,
  ERR_PCCL_NOT_INSTALLED: NotInstalledError,
  ERR_PCCL_DESCRIPTOR_MISMATCH: DescriptorMismatchError,
  ERR_PCCL_CALL_MISMATCH: CallMismatchError,
  ERR_PCCL_PEER_LOST: PeerLostError,
  ERR_PCCL_CANCELLED: CancelledError,
  ERR_PCCL_CLOSED: ClosedError,
  ERR_PCCL_COORDINATOR_UNREACHABLE: CoordinatorUnreachableError,
  ERR_PCCL_COORDINATOR_LOST: CoordinatorLostError,
  ERR_PCCL_VERSION_MISMATCH: VersionMismatchError,
  ERR_PCCL_REMOVED: RemovedError,
  ERR_PCCL_TIMEOUT: PcclTimeoutError,
  ERR_PCCL_LISTEN_FAILED: ListenFailedError,
  ERR_PCCL_OUT_OF_MEMORY: OutOfMemoryError,
  ERR_PCCL_NON_FINITE_INPUT: NonFiniteInputError,
  ERR_PCCL_JOURNAL_IN_USE: JournalInUseError,
  ERR_PCCL_JOURNAL_UNREADABLE: JournalUnreadableError,
  ERR_PCCL_JOURNAL_FAILED: JournalFailedError,
  ERR_PCCL_STATE_MISMATCH: StateMismatchError,
  ERR_PCCL_STATE_REVISION: StateRevisionError,
  ERR_PCCL_STATE_STRATEGY: StateStrategyError,
  ERR_PCCL_STATE_LOST: StateLostError,
  ERR_PCCL_STATE_CHANGED: StateChangedError,
  ERR_PCCL_STATE_FETCH_FAILED: StateFetchFailedError,
  ERR_PCCL_LAYOUT_MISMATCH: LayoutMismatchError,
  ERR_PCCL_NOT_FINITE: NotFiniteError,
  ERR_PCCL_CHECKPOINT_UNREADABLE: CheckpointUnreadableError,
  ERR_PCCL_NATIVE_LOAD: NativeLoadError,
  ERR_PCCL_INTERNAL: InternalError,
};

/** An error of the code's class. `message` says what happened; the catalogue's advice is put behind it. */
export function pcclError(code: PcclErrorCode, message: string, details?: PcclErrorDetails): PcclError {
  return new ERROR_CLASSES[code](code, message, details);
}
