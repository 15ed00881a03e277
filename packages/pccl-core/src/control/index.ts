export type { RestoredLog } from "./log.js";
export type { CoordinatorLog } from "../membership/state.js";
export {
  Coordinator,
  type CoordinatorLogger,
  type CoordinatorOptions,
  type PeerSnapshot,
} from "./server.js";
