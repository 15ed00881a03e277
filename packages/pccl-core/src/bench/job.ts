/** What is measured, and what comes out: the same for peers in processes of this one's and for peers anywhere. */
import type { ReduceOp } from "@pccl/bindings";
import type { QuantizedFormat } from "../peer/quantization.js";
import type { DType } from "../peer/tensor.js";
import type { CollectiveName, Place } from "./collectives.js";

/** On links that have their speed at once. */
export const WARM_UP_SECONDS_DEFAULT = 0.1;

export type Transport = "auto" | "tcp" | "shm";

/** All peers need the same one. */
export interface BenchJob {
  readonly collective: CollectiveName;
  readonly world: number;
  /** Each is rounded down to whole elements, and whole blocks of them. */
  readonly sizesBytes: readonly number[];
  readonly dtype: DType;
  readonly op: ReduceOp;
  /** What elements are sent as, of reductions of f32; undefined: as they are. */
  readonly quantize: QuantizedFormat | undefined;
  readonly place: Place;
  readonly transport: Transport;
  /** Undefined: what connect() takes by itself. */
  readonly connectionsPerPeer: number | undefined;
  /** The TCP connections' congestion control; undefined: the system's own choice. */
  readonly congestionControl: string | undefined;
  /** For code to be compiled, and for connections to get up to speed, before anything is timed. */
  readonly warmUpSeconds: number;
  /** Undefined: as many as take about a second. */
  readonly iterations: number | undefined;
  /** The share of each peer's data that goes to rank 0, of an all-to-all with counts; undefined: one without. */
  readonly skew: number | undefined;
  /** What the tensors are: ordinary arrays, or memory from Communicator.alloc. */
  readonly memory: "array" | "alloc";
  /** Ops at once, which share the size. */
  readonly concurrency: number;
}

/** One line of the results. Names and units are public: `pccl bench --json` prints exactly this. */
export interface Measurement {
  readonly collective: CollectiveName;
  readonly world: number;
  readonly bytes: number;
  readonly dtype: DType | "none";
  readonly op: ReduceOp | "none";
  readonly quantize: QuantizedFormat | "none";
  /** What carried the bytes: "mixed" when some links were of one kind and some of the other, "none" in a world of one. */
  readonly transport: "tcp" | "shm" | "mixed" | "none";
  readonly medianSeconds: number;
  readonly minSeconds: number;
  readonly maxSeconds: number;
  readonly algbwGBps: number;
  readonly busbwGBps: number;
  /**
   * Every element of the result was checked on every peer before the measurement; without that there is none. Where it
   * is quantized: that it is within the format's error, and that all peers have the same bits.
   */
  readonly verified: true;
}

export interface Progress {
  readonly phase: "joining" | "checking" | "measuring";
  /** 0 while joining. */
  readonly bytes: number;
}
