/**
 * What the collectives have in common for a benchmark: what its "bytes" are, and which bytes they make every link
 * carry. The definitions are those of nccl-tests (doc/PERFORMANCE.md there), so that figures can be compared.
 */

/** Where a result can be written: over what was sent, or elsewhere. */
export type Place = "in" | "out";

export interface Collective {
  /** What `bytes` counts, for the help. */
  readonly bytes: string;
  /** Whether that is a buffer with a block for each peer. */
  readonly blocks: boolean;
  readonly reduces: boolean;
  /** The default first. */
  readonly places: readonly Place[];
  /** What `algbw` is multiplied by to give `busbw`; `skew` is the share of what is sent that goes to rank 0. */
  readonly busFactor: (world: number, skew: number) => number;
}

const others = (world: number): number => (world - 1) / world;

export type CollectiveName =
  | "all-reduce"
  | "reduce-scatter"
  | "all-gather"
  | "broadcast"
  | "all-to-all"
  | "gather"
  | "scatter"
  | "send-recv"
  | "barrier";

export const COLLECTIVES: Readonly<Record<CollectiveName, Collective>> = {
  "all-reduce": {
    bytes: "each peer's tensor",
    blocks: false,
    reduces: true,
    places: ["in", "out"],
    busFactor: (world) => 2 * others(world),
  },
  "reduce-scatter": {
    bytes: "what each peer sends; it receives 1/N of that",
    blocks: true,
    reduces: true,
    places: ["out"],
    busFactor: others,
  },
  "all-gather": {
    bytes: "what each peer receives; it sends 1/N of that",
    blocks: true,
    reduces: false,
    places: ["out", "in"],
    busFactor: others,
  },
  broadcast: {
    bytes: "the tensor, which rank 0 sends to all",
    blocks: false,
    reduces: false,
    places: ["in"],
    busFactor: () => 1,
  },
  "all-to-all": {
    bytes: "what each peer sends, its own block included",
    blocks: true,
    reduces: false,
    places: ["out"],
    // What reaches the busiest peer from the others.
    busFactor: (world, skew) => (world - 1) * skew,
  },
  gather: {
    bytes: "what rank 0 receives; each peer sends 1/N of that",
    blocks: true,
    reduces: false,
    places: ["out"],
    busFactor: others,
  },
  scatter: {
    bytes: "what rank 0 sends; each peer receives 1/N of that",
    blocks: true,
    reduces: false,
    places: ["out"],
    busFactor: others,
  },
  "send-recv": {
    bytes: "what each peer sends to the next rank, while it receives as much from the one before",
    blocks: false,
    reduces: false,
    places: ["out"],
    busFactor: () => 1,
  },
  barrier: {
    bytes: "none",
    blocks: false,
    reduces: false,
    places: ["in"],
    busFactor: () => 0,
  },
};

export const COLLECTIVE_NAMES: readonly CollectiveName[] = Object.keys(COLLECTIVES) as CollectiveName[];
