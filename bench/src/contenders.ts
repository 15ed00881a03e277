/** The libraries that are compared, each as a command to run. */
import { benchCommand, readBench } from "./pccl-bench.js";

/** One thing that all contenders measure: f32, sums; all-reduce in place. */
export interface Case {
  readonly collective: "all-reduce" | "all-to-all" | "all-to-all-v";
  readonly peers: number;
  /** As `pccl bench --help` defines them. */
  readonly bytes: number;
  /** Of an all-to-all-v: the share of each peer's data that goes to rank 0. */
  readonly skew?: number;
}

/** Where the programs of bench/peers are, or why there are none. */
export type Programs = Readonly<Record<string, { readonly path?: string; readonly reason?: string }>>;

export interface Contender {
  readonly name: string;
  /** Undefined: it has no such collective. */
  readonly command: (what: Case) => readonly [string, ...string[]] | undefined;
  /** Reads the median, in seconds, out of what the command prints. */
  readonly read: (output: string) => number;
}

function ours(transport: "tcp" | "shm", isAllocated = false): Contender {
  return {
    name: isAllocated ? "ours alloc" : `ours ${transport}`,
    command: ({ collective, peers, bytes, skew }) =>
      benchCommand(collective === "all-reduce" ? collective : "all-to-all", peers, bytes, transport, [
        ...(isAllocated ? ["--alloc"] : []),
        ...(skew === undefined ? [] : ["--skew", String(skew)]),
      ]),
    read: (output) => readBench(output, transport),
  };
}

/** "MEDIAN MIN MAX", as bench/peers/measure.h prints them. */
function readNumbers(output: string): number {
  const median = Number(/^(\d\S*) \S+ \S+$/m.exec(output)?.[1]);
  if (!(median > 0)) throw new Error(`it printed ${JSON.stringify(output.slice(0, 200))}`);
  return median;
}

function mpi(name: string, program: string, launcher: readonly [string, ...string[]]): Contender {
  return {
    name,
    command: ({ collective, peers, bytes, skew }) => [
      ...launcher,
      ...["-n", String(peers), program, collective, String(bytes)],
      ...(skew === undefined ? [] : [String(skew)]),
    ],
    read: readNumbers,
  };
}

function allReduceProgram(name: string, program: string): Contender {
  return {
    name,
    command: ({ collective, peers, bytes }) =>
      collective === "all-reduce" ? [program, String(peers), String(bytes)] : undefined,
    read: readNumbers,
  };
}

// More ranks than cores, none bound to one, and no other transport than the one that is meant.
const OPEN_MPI = [
  "mpirun.openmpi",
  ...["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1"],
] as const;

const BUILDERS: Readonly<Record<string, (path: string) => Contender[]>> = {
  gloo: (path) => [allReduceProgram("Gloo tcp", path)],
  "socket-ring": (path) => [allReduceProgram("bare ring tcp", path)],
  "open-mpi": (path) => [
    mpi("Open MPI tcp", path, [...OPEN_MPI, "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]),
    mpi("Open MPI shm", path, [...OPEN_MPI, "--mca", "btl", "vader,self"]),
  ],
  mpich: (path) => [mpi("MPICH shm", path, ["mpirun.mpich"])],
};

/** Ours, and all others that there are. */
export function contendersOf(programs: Programs): Contender[] {
  const others = Object.entries(BUILDERS).flatMap(([name, make]) => {
    const path = programs[name]?.path;
    return path === undefined ? [] : make(path);
  });
  return [ours("tcp"), ours("shm"), ours("shm", true), ...others];
}
