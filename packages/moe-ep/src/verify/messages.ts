/** Between `moe-ep verify` and its rank processes. */
import type { Planner } from "../planner/plan.js";
import type { RankResults } from "./golden-run.js";

export interface VerifyJob {
  /** Paths of golden layers. */
  readonly files: readonly string[];
  readonly planners: readonly Planner[];
}

export interface VerifyMessage {
  readonly kind: "results";
  readonly file: string;
  readonly planner: Planner;
  readonly results: RankResults;
}
