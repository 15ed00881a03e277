export {
  BufferInUseError,
  CallInProgressError,
  CallMismatchError,
  CancelledError,
  ClosedError,
  CoordinatorLostError,
  CoordinatorUnreachableError,
  DescriptorMismatchError,
  ERROR_CATALOGUE,
  ERROR_CLASSES,
  InternalError,
  InvalidArgumentError,
  JournalFailedError,
  JournalInUseError,
  JournalUnreadableError,
  LayoutMismatchError,
  ListenFailedError,
  OutOfMemoryError,
  NativeLoadError,
  NonFiniteInputError,
  NotFiniteError,
  NotInstalledError,
  OpsInFlightError,
  PcclError,
  type PcclErrorCode,
  type PcclErrorDetails,
  PcclTimeoutError,
  PeerLostError,
  RemovedError,
  StateFetchFailedError,
  StateLostError,
  StateMismatchError,
  StateRevisionError,
  TagInUseError,
  TooManyOpsError,
  UnknownOptionError,
  VersionMismatchError,
} from "./base/errors.js";
export type { CallOptions } from "./peer/call-limits.js";
export {
  type AllReduceAllOptions,
  Communicator,
  type SyncOptions,
} from "./peer/communicator.js";
export { type ConnectOptions, connect } from "./peer/connect.js";
export type {
  Algorithm,
  AllReduceCall,
  AllReduceOptions,
  AllToAllOptions,
  CollectiveResult,
  MoveOptions,
  OpOptions,
  RecvOptions,
  ReduceOp,
  ReduceOptions,
  RootOptions,
  SendOptions,
  Transport,
} from "./peer/collective-call.js";
export type { Collectives } from "./peer/collectives.js";
export type { CommunicatorEvents, EpochEvent, PeerJoinedEvent, PeerLostEvent } from "./peer/events.js";
export type { AllReduceAllResult } from "./peer/reduce-list.js";
export {
  dequantize,
  quantize,
  type Quantize,
  quantizedBytes,
  type QuantizedFormat,
  type QuantizeOptions,
} from "./peer/quantization.js";
export { SharedState, type SharedStateOptions } from "./peer/shared-state.js";
export type { SyncResult } from "./peer/state-sync.js";
export type { ArrayOf, DType, Tensor } from "./peer/tensor.js";
