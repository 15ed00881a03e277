export type { CoordinatorLog } from "../membership/state.js";
export {
  Coordinator,
  type CoordinatorLogger,
  type CoordinatorOptions,
  type PeerSnapshot,
} from "./server.js";
