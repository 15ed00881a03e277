/** A benchmark's results as a table for people. */
import type { BenchJob, Measurement } from "./job.js";
import { formatSize } from "./size.js";

export function formatHeader({
  collective,
  world,
  dtype,
  op,
  quantize,
  place,
  skew,
  memory,
  concurrency,
}: BenchJob): string {
  const what = [
    `${collective} between ${world} peers`,
    ...(collective === "barrier" ? [] : [`of ${dtype}`]),
    ...(collective === "all-reduce" || collective === "reduce-scatter" ? [op] : []),
    ...(quantize === undefined ? [] : [`sent as ${quantize}`]),
    ...(collective === "all-reduce" || collective === "all-gather"
      ? [place === "in" ? "in place" : "out of place"]
      : []),
    ...(skew === undefined ? [] : [`a share of ${skew} to rank 0`]),
    ...(memory === "alloc" ? ["in memory from alloc"] : []),
    ...(concurrency === 1 ? [] : [`split into ${concurrency} at once`]),
  ];
  return (
    `${what.join(", ")}\n` +
    "      size  transport     median/ms        min/ms        max/ms  algbw/GB/s  busbw/GB/s\n"
  );
}

export function formatRow({
  bytes,
  transport,
  medianSeconds,
  minSeconds,
  maxSeconds,
  algbwGBps,
  busbwGBps,
}: Measurement): string {
  const times = [medianSeconds, minSeconds, maxSeconds].map((value) => (value * 1e3).toFixed(3).padStart(12));
  const rates = [algbwGBps, busbwGBps].map((value) => value.toFixed(3).padStart(10));
  return `${formatSize(bytes).padStart(10)}  ${transport.padEnd(9)}  ${times.join("  ")}  ${rates.join("  ")}\n`;
}
