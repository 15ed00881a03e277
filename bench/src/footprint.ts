/**
 * What a peer takes besides time: memory that an all-reduce adds, memory of an idle link, and CPU while it waits for a
 * peer that is late.
 *
 *   npm run bench -- footprint [--transports tcp,shm] [--sizes-mib 64,256] [--wait-seconds 10] [--out FILE]
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Coordinator } from "@pccl/core/coordinator";
import { type MemoryUse, RemotePeer, type Transport } from "./remote.js";
import { medianOf, writeResults } from "./statistics.js";

const MIB = 2 ** 20;
/** The smallest group, and the largest in which all are linked with all. */
const FEW_PEERS = 2;
const MANY_PEERS = 16;
/** An op that has used all buffers of the links. */
const USED_BYTES = 16 * MIB;

interface OpMemory extends MemoryUse {
  readonly peers: number;
  readonly transport: Transport;
  readonly bytes: number;
  readonly inPlace: boolean;
}

interface LinkMemory {
  readonly transport: Transport;
  /** Before the first op, and at rest after one that used all the buffers of the links. */
  readonly newBytes: number;
  readonly usedBytes: number;
}

interface Waiting {
  readonly transport: Transport;
  readonly seconds: number;
  /** Of one core, each for a peer that waited. */
  readonly shares: readonly number[];
}

/** Runs `body` with a group of processes, which are gone afterwards. */
async function withPeers<T>(
  count: number,
  transport: Transport,
  body: (peers: readonly RemotePeer[]) => Promise<T>,
): Promise<T> {
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: count });
  const peers = Array.from({ length: count }, () => new RemotePeer());
  try {
    await Promise.all(peers.map((peer) => peer.connect(coordinator.address, { transport })));
    return await body(peers);
  } finally {
    await Promise.all(peers.map((peer) => peer.kill()));
  }
}

/** The first op of new processes, on the peer that it costs most. */
async function opMemory(
  peers: number,
  transport: Transport,
  bytes: number,
  inPlace: boolean,
): Promise<OpMemory> {
  const uses = await withPeers(peers, transport, (group) =>
    Promise.all(group.map((peer) => peer.call("reduceMemory", { bytes, inPlace }))),
  );
  return {
    ...{ peers, transport, bytes, inPlace },
    peakBytes: Math.max(...uses.map(({ peakBytes }) => peakBytes)),
    keptBytes: Math.max(...uses.map(({ keptBytes }) => keptBytes)),
  };
}

/** What a peer of a large group has in use beyond one of a small group, for each link more. */
async function linkMemory(transport: Transport): Promise<LinkMemory> {
  const resident = (peers: number): Promise<readonly [number, number]> =>
    withPeers(peers, transport, async (group) => {
      const all = async (): Promise<number> =>
        medianOf(await Promise.all(group.map((peer) => peer.call("resident", {}))));
      const before = await all();
      await Promise.all(group.map((peer) => peer.call("reduceMemory", { bytes: USED_BYTES, inPlace: true })));
      return [before, await all()] as const;
    });
  const [fewNew, fewUsed] = await resident(FEW_PEERS);
  const [manyNew, manyUsed] = await resident(MANY_PEERS);
  const links = MANY_PEERS - FEW_PEERS;
  return { transport, newBytes: (manyNew - fewNew) / links, usedBytes: (manyUsed - fewUsed) / links };
}

/** Four peers, of which one calls an all-reduce that much later than the others. */
async function waiting(transport: Transport, seconds: number): Promise<Waiting> {
  return await withPeers(4, transport, async (group) => {
    const args = { bytes: USED_BYTES };
    // The first op is no measure: code is compiled, and buffers are made.
    await Promise.all(group.map((peer) => peer.call("startReduce", args)));
    await Promise.all(group.map((peer) => peer.call("endReduce", {})));
    const [late, ...early] = group as [RemotePeer, ...RemotePeer[]];
    await Promise.all(early.map((peer) => peer.call("startReduce", args)));
    const used = (): Promise<number[]> => Promise.all(early.map((peer) => peer.call("cpuSeconds", {})));
    const before = await used();
    await delay(seconds * 1_000);
    const after = await used();
    await late.call("startReduce", args);
    await Promise.all(group.map((peer) => peer.call("endReduce", {})));
    return {
      transport,
      seconds,
      shares: after.map((value, i) => (value - (before[i] ?? Number.NaN)) / seconds),
    };
  });
}

function mebibytes(bytes: number): string {
  return (bytes / MIB).toFixed(2).padStart(8);
}

const { values } = parseArgs({
  options: {
    transports: { type: "string", default: "tcp,shm" },
    "sizes-mib": { type: "string", default: "64,256" },
    "wait-seconds": { type: "string", default: "10" },
    out: { type: "string" },
  },
});
const transports = values.transports.split(",") as Transport[];
const results: { ops: OpMemory[]; links: LinkMemory[]; waiting: Waiting[] } = {
  ops: [],
  links: [],
  waiting: [],
};

console.log("memory that an all-reduce adds\npeers  transport  size/MiB  place   peak/MiB  kept/MiB");
for (const transport of transports) {
  for (const peers of [2, 4]) {
    for (const bytes of values["sizes-mib"].split(",").map((size) => Number(size) * MIB)) {
      for (const inPlace of [true, false]) {
        const use = await opMemory(peers, transport, bytes, inPlace);
        results.ops.push(use);
        console.log(
          `${String(peers).padStart(5)}  ${transport.padEnd(9)}  ${String(bytes / MIB).padStart(8)}  ` +
            `${inPlace ? "in " : "out"}     ${mebibytes(use.peakBytes)}  ${mebibytes(use.keptBytes)}`,
        );
      }
    }
  }
}
console.log("\nmemory of an idle link\ntransport   new/MiB  used/MiB");
for (const transport of transports) {
  const memory = await linkMemory(transport);
  results.links.push(memory);
  console.log(`${transport.padEnd(9)}  ${mebibytes(memory.newBytes)}  ${mebibytes(memory.usedBytes)}`);
}
console.log(`\nCPU of three peers that wait ${values["wait-seconds"]} s for a fourth, of one core`);
for (const transport of transports) {
  const wait = await waiting(transport, Number(values["wait-seconds"]));
  results.waiting.push(wait);
  console.log(
    `${transport.padEnd(9)}  ${wait.shares.map((share) => `${(share * 100).toFixed(2)} %`).join("  ")}`,
  );
}
writeResults(values.out, results);
