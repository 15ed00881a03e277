/** What a stress run and its peer processes tell each other over IPC. */

export interface PeerConfig {
  readonly coordinator: string;
  readonly group: number;
  readonly connectionsPerPeer: number;
}

/** What a peer is in; the last one that it told is what it hangs in. */
export type Phase =
  | "connect"
  | "admission"
  | "hasPendingPeers"
  | "updateTopology"
  | "syncSharedState"
  | "exchange"
  | "allReduceAll"
  | "close";

export interface StepReport {
  readonly kind: "step";
  /** Steps that the shared state has behind it; counted by the state itself, so that newcomers count on. */
  readonly step: number;
  readonly revision: number;
  readonly epoch: number;
  readonly groupWorldSize: number;
  /** Of the state, into which every result has been folded. */
  readonly hash: string;
  /** An element of a collective's result that isn't what it has to be, in words. */
  readonly wrong: string | undefined;
  readonly reduces: number;
  readonly retriedOps: number;
  /** How long the reduces took. */
  readonly reduceMs: number;
}

export type PeerMessage =
  | { readonly kind: "phase"; readonly phase: Phase }
  | { readonly kind: "admitted"; readonly peerId: number }
  | StepReport
  /** The communicator can't go on; the process ends after it. */
  | { readonly kind: "ended"; readonly code: string; readonly message: string };

export interface PeerCommand {
  readonly kind: "leave";
}
