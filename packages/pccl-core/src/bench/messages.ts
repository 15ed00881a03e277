/** What a benchmark and its peer processes tell each other over IPC. */
import type { BenchJob, Measurement, Progress } from "./job.js";
import type { StateJob, StateMeasurement } from "./state/job.js";

/** One of the two jobs. */
export interface PeerConfig {
  readonly coordinator: string;
  readonly job?: BenchJob;
  readonly state?: StateJob;
}

export type PeerMessage =
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "measurement"; readonly measurement: Measurement | StateMeasurement }
  /** All is done; the process ends by itself. */
  | { readonly kind: "done" }
  /** `code` is empty for an error that isn't this library's. */
  | { readonly kind: "failed"; readonly code: string; readonly reason: string };
