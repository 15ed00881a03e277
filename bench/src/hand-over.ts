/**
 * What it costs to pass an op from JavaScript to the engine's thread and its end back, without any transport: a world
 * of one, whose ops have nothing to move.
 *
 *   npm run bench -- hand-over [--seconds 2] [--out FILE]
 */
import { parseArgs } from "node:util";
import { connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { Bench } from "tinybench";
import { writeResults } from "./statistics.js";

const AT_ONCE = 16;

interface Row {
  readonly what: string;
  readonly medianUs: number;
  readonly p99Us: number;
}

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "2" }, out: { type: "string" } },
});
await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0" });
await using comm = await connect(coordinator.address);
const one = new Float32Array(1);
const many = Array.from({ length: AT_ONCE }, () => new Float32Array(1));
const ownUs: number[] = [];

const bench = new Bench({ time: Number(values.seconds) * 1_000, retainSamples: true });
bench.add("read the installed view (a synchronous call)", () => {
  void comm.rank;
});
bench.add("one op, from its call until its promise", async () => {
  const { seconds } = await comm.allReduce(one);
  ownUs.push(seconds * 1e6);
});
bench.add(`${AT_ONCE} ops at once, until the last promise`, async () => {
  await Promise.all(many.map((array, tag) => comm.allReduce(array, undefined, { tag })));
});
await bench.run();

const rows = bench.tasks.map(({ name, result }): Row => {
  if (result.state !== "completed") throw new Error(`${name} did not complete: ${result.state}`);
  return { what: name, medianUs: result.latency.p50 * 1e3, p99Us: result.latency.p99 * 1e3 };
});
ownUs.sort((a, b) => a - b);
const at = (quantile: number): number => ownUs[Math.floor(quantile * (ownUs.length - 1))] as number;
// The rest of an op's time is its way to the engine and the way of its event back.
rows.push({ what: "of one op, what the engine counts as its own", medianUs: at(0.5), p99Us: at(0.99) });
for (const { what, medianUs, p99Us } of rows) {
  console.log(`${what.padEnd(50)} median ${medianUs.toFixed(2).padStart(9)} µs, p99 ${p99Us.toFixed(2)}`);
}
writeResults(values.out, rows);
