/** What is measured of shared state, and what comes out. */
import type { Transport } from "../job.js";

/** All peers need the same one. */
export interface StateJob {
  /** Peers that have the content, and peers that fetch what differs. */
  readonly holders: number;
  readonly receivers: number;
  /** holders + receivers */
  readonly world: number;
  readonly sizesBytes: readonly number[];
  /** The share of the leaves of 64 KiB that differ, more than 0. */
  readonly changed: number;
  /** In how many equal tensors the size is. */
  readonly tensors: number;
  readonly transport: Transport;
  readonly memory: "array" | "alloc";
  readonly iterations: number;
}

/** One line of the results. Names and units are public: `pccl bench state --json` prints exactly this. */
export interface StateMeasurement {
  readonly holders: number;
  readonly receivers: number;
  readonly bytes: number;
  readonly tensors: number;
  readonly changed: number;
  readonly transport: Transport;
  /** A sync of equal states: hashing and the agreement. */
  readonly unchangedSeconds: number;
  /** A whole sync, of the receiver that it took longest; median and least. */
  readonly medianSeconds: number;
  readonly minSeconds: number;
  /** What one receiver got, hashes included, and its share of the size. */
  readonly rxBytes: number;
  readonly movedShare: number;
  /** Bytes that differ by how much longer the median is than an unchanged sync; null when it isn't. */
  readonly transferGBps: number | null;
  /** Every byte of every receiver was compared. */
  readonly verified: true;
}
