/**
 * All-reduce on loopback through the TypeScript API: N processes, f32 sum, in place and out of place.
 * Every process makes the same fixed number of calls, so that they stay in step; rank 0's times count.
 *
 *   node bench/dist/all-reduce.js [--peers 2,4] [--sizes 4KiB,1MiB,64MiB] [--seconds 3] [--out FILE]
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { Bench } from "tinybench";
import { describeMachine } from "./machine.js";

interface Measurement {
  readonly peers: number;
  readonly bytes: number;
  readonly inPlace: boolean;
  readonly iterations: number;
  readonly medianMs: number;
  readonly minMs: number;
  readonly p99Ms: number;
  /** bytes / time · 2(N−1)/N, in GB/s: the figure that compares libraries and world sizes. */
  readonly busBandwidthGBs: number;
}

interface Job {
  readonly coordinator: string;
  readonly sizes: readonly number[];
  readonly seconds: number;
}

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

function parseSize(text: string): number {
  const match = /^(\d+)(B|KiB|MiB|GiB)$/.exec(text);
  const bytes = Number(match?.[1]) * (UNITS[match?.[2] ?? ""] ?? Number.NaN);
  if (!Number.isInteger(bytes) || bytes < 4 || bytes % 4 !== 0) {
    throw new Error(`--sizes: "${text}" is not a multiple of 4 bytes like 4KiB or 64MiB`);
  }
  return bytes;
}

function formatSize(bytes: number): string {
  const unit = ["GiB", "MiB", "KiB"].find((name) => bytes % (UNITS[name] ?? 1) === 0) ?? "B";
  return `${bytes / (UNITS[unit] ?? 1)} ${unit}`;
}

async function runPeer({ coordinator, sizes, seconds }: Job): Promise<void> {
  await using comm = await connect(coordinator);
  for (const bytes of sizes) {
    for (const inPlace of [false, true]) {
      const send = new Float32Array(bytes / 4);
      const recv = inPlace ? send : new Float32Array(bytes / 4);
      // Correct before fast: ranks contribute rank + 1, so every element is N(N+1)/2.
      send.fill(comm.rank + 1);
      await comm.allReduce(send, recv);
      const expected = (comm.worldSize * (comm.worldSize + 1)) / 2;
      if (!recv.every((value) => value === expected)) throw new Error(`wrong result at ${bytes} bytes`);
      send.fill(0);
      // All ranks agree on the number of calls by reducing rank 0's estimate.
      const start = performance.now();
      for (let i = 0; i < 3; i++) await comm.allReduce(send, recv);
      const estimate = new Float64Array([(performance.now() - start) / 3]);
      await comm.allReduce(estimate, undefined, { op: "max" });
      const iterations = Math.round(Math.min(2_000, Math.max(7, (seconds * 1_000) / (estimate[0] ?? 1))));
      const bench = new Bench({ iterations, time: 0, warmup: false, retainSamples: true });
      bench.add("allReduce", async () => {
        await comm.allReduce(send, recv);
      });
      await bench.run();
      const result = bench.tasks[0]?.result;
      if (result?.state !== "completed") throw new Error(`the benchmark did not complete: ${result?.state}`);
      const medianMs = result.latency.p50;
      const measurement: Measurement = {
        peers: comm.worldSize,
        bytes,
        inPlace,
        iterations,
        medianMs,
        minMs: result.latency.min,
        p99Ms: result.latency.p99,
        busBandwidthGBs: ((bytes / 1e6 / medianMs) * 2 * (comm.worldSize - 1)) / comm.worldSize,
      };
      if (comm.rank === 0) process.send?.(measurement);
    }
  }
}

async function measure(peers: number, sizes: readonly number[], seconds: number): Promise<Measurement[]> {
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: peers });
  const measurements: Measurement[] = [];
  const children: ChildProcess[] = [];
  try {
    for (let i = 0; i < peers; i++) {
      const child = fork(fileURLToPath(import.meta.url), ["--peer"], { stdio: "inherit" });
      child.on("message", (message) => {
        measurements.push(message as Measurement);
      });
      children.push(child);
      child.send({ coordinator: coordinator.address, sizes, seconds } satisfies Job);
    }
    const codes = await Promise.all(children.map(async (child) => (await once(child, "exit"))[0] as unknown));
    if (codes.some((code) => code !== 0)) throw new Error(`peers ended with exit codes ${codes.join(", ")}`);
    return measurements;
  } finally {
    for (const child of children) child.kill("SIGKILL");
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      peer: { type: "boolean", default: false },
      peers: { type: "string", default: "2,4" },
      sizes: { type: "string", default: "4KiB,1MiB,64MiB" },
      seconds: { type: "string", default: "3" },
      out: { type: "string" },
    },
  });
  if (values.peer) {
    const [job] = (await once(process, "message")) as [Job];
    await runPeer(job);
    process.disconnect();
    return;
  }
  const sizes = values.sizes.split(",").map(parseSize);
  const results: Measurement[] = [];
  console.log("peers      size  place     median ms     min ms     p99 ms  busbw GB/s  calls");
  for (const peers of values.peers.split(",").map(Number)) {
    for (const m of await measure(peers, sizes, Number(values.seconds))) {
      results.push(m);
      console.log(
        `${String(m.peers).padStart(5)}  ${formatSize(m.bytes).padStart(8)}  ${m.inPlace ? "in   " : "out  "} ` +
          `${m.medianMs.toFixed(3).padStart(12)} ${m.minMs.toFixed(3).padStart(10)} ${m.p99Ms.toFixed(3).padStart(10)} ` +
          `${m.busBandwidthGBs.toFixed(2).padStart(11)}  ${String(m.iterations).padStart(5)}`,
      );
    }
  }
  if (values.out !== undefined) {
    mkdirSync(dirname(values.out), { recursive: true });
    writeFileSync(values.out, `${JSON.stringify({ machine: describeMachine(), results }, null, 2)}\n`);
  }
}

await main();
