/** What the demo and its child processes tell each other over Node's IPC channel. */
import type { OuterStep } from "@pccl/core/diloco";

export interface TrainingConfig {
  /** Path of a file with the whole text: one copy, so that all processes learn from and measure on the same. */
  readonly textFile: string;
  readonly seed: number;
  /** Number of the process, which gives its order of the training data. */
  readonly ordinal: number;
  readonly outerSteps: number;
  readonly innerSteps: number;
}

export interface PeerConfig extends TrainingConfig {
  readonly coordinator: string;
}

/** This process's part of the held-out text: [batch, loss in nats per byte]. */
export type HeldOutShare = readonly (readonly [batch: number, loss: number])[];

export type PeerMessage =
  /** Waits for the consent of the peers that train. */
  | { readonly kind: "pending"; readonly peerId: number }
  /** Holds the group's parameters, which have `index` outer steps behind them. */
  | {
      readonly kind: "joined";
      readonly peerId: number;
      readonly index: number;
      readonly worldSize: number;
      readonly epoch: number;
      readonly digest: string;
      readonly heldOut: HeldOutShare;
    }
  /** A sign of life within an outer step, about once a second. */
  | { readonly kind: "inner"; readonly index: number; readonly done: number; readonly loss: number }
  | {
      readonly kind: "outer";
      readonly step: OuterStep;
      /** Of the parameters' and momentum's hashes. */
      readonly digest: string;
      readonly heldOut: HeldOutShare;
    }
  /** Has done all outer steps and left the world. */
  | { readonly kind: "finished" }
  | { readonly kind: "sample"; readonly text: string };

export type PeerCommand =
  /** Outer steps up to this one may begin. */
  { readonly kind: "proceed"; readonly until: number } | { readonly kind: "sample"; readonly length: number };

export type BaselineMessage =
  /** A sign of life between two measurements. */
  | { readonly kind: "inner" }
  | {
      readonly kind: "measured";
      /** Inner steps done. */
      readonly steps: number;
      readonly heldOut: number;
      /** Time of the inner steps so far. */
      readonly seconds: number;
    };
