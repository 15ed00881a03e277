export { ERROR_CATALOGUE, PcclError, type PcclErrorCode } from "./base/errors.js";
export {
  type AllReduceAllOptions,
  type AllReduceAllResult,
  type AllReduceOptions,
  type AllReduceResult,
  Communicator,
  type ConnectOptions,
  connect,
  type SyncOptions,
} from "./peer/communicator.js";
export type { AllReduceCall } from "./peer/reduce-call.js";
export { SharedState, type SharedStateOptions } from "./peer/shared-state.js";
export type { SyncResult } from "./peer/state-sync.js";
export type { DType, Tensor } from "./peer/tensor.js";
