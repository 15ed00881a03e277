/**
 * Many ops at once beside one of the same size: 16 all-reduces of 4 MiB, and one of 64 MiB, by turns.
 *
 *   npm run bench -- concurrency [--peers 2,4] [--transports tcp,shm] [--ops 16] [--size-mib 64] [--rounds 5] [--out FILE]
 */
import { parseArgs } from "node:util";
import { benchCommand, readBench } from "./pccl-bench.js";
import { runCommand } from "./run-command.js";
import { medianOf, ratioOf, writeResults } from "./statistics.js";

const MIB = 2 ** 20;

interface Row {
  readonly peers: number;
  readonly transport: "tcp" | "shm";
  /** Seconds of each round. */
  readonly one: readonly number[];
  readonly many: readonly number[];
  /** Above 1: many at once took longer. */
  readonly ratio: number;
}

async function measure(
  peers: number,
  transport: "tcp" | "shm",
  { ops, bytes, rounds }: { readonly ops: number; readonly bytes: number; readonly rounds: number },
  signal: AbortSignal,
): Promise<Row> {
  const run = async (further: readonly string[]): Promise<number> => {
    const command = benchCommand("all-reduce", peers, bytes, transport, further);
    const seconds = await runCommand(command, (output) => readBench(output, transport), signal);
    signal.throwIfAborted();
    if (typeof seconds === "string") throw new Error(`${command.join(" ")}: ${seconds}`);
    return seconds;
  };
  const [one, many]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    one.push(await run([]));
    many.push(await run(["--concurrency", String(ops)]));
  }
  return { peers, transport, one, many, ratio: ratioOf(many, one) };
}

const { values } = parseArgs({
  options: {
    peers: { type: "string", default: "2,4" },
    transports: { type: "string", default: "tcp,shm" },
    ops: { type: "string", default: "16" },
    "size-mib": { type: "string", default: "64" },
    rounds: { type: "string", default: "5" },
    out: { type: "string" },
  },
});
const shape = {
  ops: Number(values.ops),
  bytes: Number(values["size-mib"]) * MIB,
  rounds: Number(values.rounds),
};
const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => interrupted.abort(new Error(name)));
}
const rows: Row[] = [];
console.log(`peers  transport  one of ${values["size-mib"]} MiB/ms  ${shape.ops} at once/ms  ratio`);
for (const transport of values.transports.split(",") as ("tcp" | "shm")[]) {
  for (const peers of values.peers.split(",").map(Number)) {
    const row = await measure(peers, transport, shape, interrupted.signal);
    rows.push(row);
    const [one, many] = [row.one, row.many].map((seconds) => (medianOf(seconds) * 1e3).toFixed(2));
    console.log(
      `${String(peers).padStart(5)}  ${transport.padEnd(9)}  ${String(one).padStart(16)}  ` +
        `${String(many).padStart(13)}  ${row.ratio.toFixed(2).padStart(5)}`,
    );
  }
}
writeResults(values.out, rows);
