export {
  BufferInUseError,
  CallInProgressError,
  CallMismatchError,
  CancelledError,
  CheckpointUnreadableError,
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
  StateChangedError,
  StateFetchFailedError,
  StateLostError,
  StateMismatchError,
  StateRevisionError,
  StateStrategyError,
  TagInUseError,
  TooManyOpsError,
  UnknownOptionError,
  VersionMismatchError,
} from "./base/errors.js";
export type { CallOptions } from "./peer/call-limits.js";
export {
  type AllReduceAllOptions,
  Communicator,
  type OptimizeOptions,
  type SyncOptions,
  type TopologyOptions,
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
export { SharedState, type SharedStateOptions, type SharedTensor } from "./peer/shared-state.js";
export type { Served, SyncResult } from "./peer/state-sync.js";
export type { PathInfo, Topology } from "./peer/topology.js";
export type { ArrayOf, DType, Tensor } from "./peer/tensor.js";
