/** What the data plane has to reach beside other libraries, as data, and whether a comparison shows it. */
import type { Case } from "./contenders.js";
import { medianOf, ratioOf } from "./statistics.js";

/** Seconds of each round, by contender; NaN where it failed. */
export type Rounds = ReadonlyMap<string, readonly number[]>;

interface Goal {
  readonly applies: (what: Case) => boolean;
  readonly ours: string;
  /** A contender whose time is at least `limit` times ours; without one, ours takes `limit` seconds at most. */
  readonly theirs?: string;
  readonly limit: number;
}

export interface Verdict {
  readonly goal: string;
  readonly value: number;
  readonly isMet: boolean;
}

const MIB = 2 ** 20;

function allReduce(...sizes: readonly number[]): (what: Case) => boolean {
  return ({ collective, bytes }) => collective === "all-reduce" && sizes.includes(bytes);
}

function small(peers: number): (what: Case) => boolean {
  return (what) => allReduce(4_096)(what) && what.peers === peers;
}

const withCounts = ({ collective }: Case): boolean => collective === "all-to-all-v";

const GOALS: readonly Goal[] = [
  { applies: allReduce(64 * MIB, 256 * MIB), ours: "ours tcp", theirs: "Gloo tcp", limit: 1.25 },
  { applies: allReduce(64 * MIB, 256 * MIB), ours: "ours tcp", theirs: "Open MPI tcp", limit: 1.25 },
  { applies: allReduce(64 * MIB, 256 * MIB), ours: "ours tcp", theirs: "bare ring tcp", limit: 0.95 },
  { applies: allReduce(64 * MIB, 256 * MIB), ours: "ours shm", theirs: "Open MPI shm", limit: 1.5 },
  { applies: allReduce(4 * MIB), ours: "ours shm", theirs: "Open MPI shm", limit: 1 },
  { applies: small(2), ours: "ours shm", limit: 60e-6 },
  { applies: small(4), ours: "ours shm", limit: 150e-6 },
  { applies: small(2), ours: "ours tcp", limit: 120e-6 },
  { applies: small(4), ours: "ours tcp", limit: 400e-6 },
  { applies: withCounts, ours: "ours shm", theirs: "Open MPI tcp", limit: 1 },
  { applies: withCounts, ours: "ours shm", theirs: "Open MPI shm", limit: 1 },
];

/** All goals that there are for this case, and for which there was a measurement. */
export function verdictsOn(what: Case, rounds: Rounds): Verdict[] {
  return GOALS.flatMap(({ applies, ours, theirs, limit }) => {
    if (!applies(what)) return [];
    const own = rounds.get(ours) ?? [];
    const value = theirs === undefined ? medianOf(own) : ratioOf(rounds.get(theirs) ?? [], own);
    if (Number.isNaN(value)) return [];
    return theirs === undefined
      ? { goal: `${ours} within ${limit * 1e6} µs`, value, isMet: value <= limit }
      : { goal: `${theirs} / ${ours} at least ${limit}`, value, isMet: value >= limit };
  });
}
