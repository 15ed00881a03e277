/** The programs of bench/peers, each built with a library from Debian's packages if it is there or may be installed. */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { onPath, ROOT, run } from "./command.mjs";
import { unlessUnchanged } from "./stamp.mjs";
import { hasHeader, installPackages } from "./system-packages.mjs";

const FOLDER = "build/peers";
const FLAGS = ["-std=c++20", "-O3", "-march=native"];

/**
 * Open MPI and MPICH both bring an `mpirun`, and Debian lets one of them have the name: their own names are used here.
 * @typedef {object} PeerProgram
 * @property {string} name
 * @property {readonly string[]} packages
 * @property {() => boolean} present whether the packages are installed
 * @property {string} compiler
 * @property {string} source in bench/peers
 * @property {readonly string[]} libraries
 */
/** @type {readonly PeerProgram[]} */
const PROGRAMS = [
  {
    name: "open-mpi",
    packages: ["openmpi-bin", "libopenmpi-dev"],
    present: () => onPath("mpicxx.openmpi") && onPath("mpirun.openmpi"),
    compiler: "mpicxx.openmpi",
    source: "mpi_collectives.cc",
    libraries: [],
  },
  {
    name: "mpich",
    packages: ["mpich", "libmpich-dev"],
    present: () => onPath("mpicxx.mpich") && onPath("mpirun.mpich"),
    compiler: "mpicxx.mpich",
    source: "mpi_collectives.cc",
    libraries: [],
  },
  {
    name: "gloo",
    packages: ["libgloo-dev"],
    present: () => hasHeader("gloo/allreduce.h"),
    compiler: "c++",
    source: "gloo_all_reduce.cc",
    libraries: ["-lgloo"],
  },
  {
    name: "socket-ring",
    packages: [],
    present: () => true,
    compiler: "c++",
    source: "socket_ring.cc",
    libraries: [],
  },
];

/** @param {PeerProgram} program @returns {Promise<string>} its path */
async function build({ name, packages, present, compiler, source, libraries }) {
  if (!present()) await installPackages(packages);
  const path = join(FOLDER, name);
  await unlessUnchanged(
    { name: `peers-${name}`, inputs: ["bench/peers", "scripts/lib/peer-programs.mjs"], outputs: [path] },
    async () => {
      process.stderr.write(`building ${path}\n`);
      mkdirSync(join(ROOT, FOLDER), { recursive: true });
      const from = join("bench", "peers", source);
      const { code, output } = await run([compiler, ...FLAGS, from, "-o", path, ...libraries]);
      if (code !== 0 || !existsSync(join(ROOT, path)))
        throw new Error(`${source} can't be built:\n${output}`);
    },
  );
  return join(ROOT, path);
}

/**
 * Builds what can be built.
 * @param {readonly string[]} [names] default: all
 * @returns {Promise<Record<string, { path?: string, reason?: string }>>} by name: where the program is, or why it isn't
 */
export async function buildPeerPrograms(names = PROGRAMS.map(({ name }) => name)) {
  /** @type {Record<string, { path?: string, reason?: string }>} */
  const built = {};
  for (const program of PROGRAMS.filter(({ name }) => names.includes(name))) {
    try {
      built[program.name] = { path: await build(program) };
    } catch (error) {
      built[program.name] = { reason: error instanceof Error ? error.message : String(error) };
    }
  }
  return built;
}
