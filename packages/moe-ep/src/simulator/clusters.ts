/** Clusters that one doesn't have, by short names, from data sheets and what runs on such machines usually reach. */
import { checkInteger, describe, pcclError } from "@pccl/core/base";
import type { Hardware } from "../planner/cost-model.js";

export interface Cluster {
  readonly ranks: number;
  readonly hardware: Hardware;
  /** The node of each rank. */
  readonly nodes: readonly number[];
  /** Of a number, as the hardware multiplies it at this rate. */
  readonly dtype: "f32" | "bf16";
  /** m: what a matrix product needs to be near full speed. */
  readonly minChunkCopies: number;
  readonly isGpu: boolean;
}

/** m on a CPU: products of fewer rows are slower by the row. */
export const MIN_CHUNK_COPIES = 64;

interface Kind extends Omit<Cluster, "ranks" | "nodes"> {
  readonly ranksPerNode: number;
}

function gpu(flopsPerSecond: number, bytesPerSecond: number, farBytesPerSecond: number): Kind {
  const hardware = { flopsPerSecond, bytesPerSecond, farBytesPerSecond };
  return { hardware, ranksPerNode: 8, dtype: "bf16", minChunkCopies: 1024, isGpu: true };
}

/** One rank per host; its cores together make 1 Tflop/s in f32: about eight with AVX-512. */
function host(bytesPerSecond: number): Kind {
  const hardware = { flopsPerSecond: 1e12, bytesPerSecond, latencySeconds: 1e-4 };
  return { hardware, ranksPerNode: 1, dtype: "f32", minChunkCopies: MIN_CHUNK_COPIES, isGpu: false };
}

const KINDS: Readonly<Record<string, Kind>> = {
  // Products of bf16, NVLink in one direction, and a network adapter of 400 (A100: 200) Gbit/s for each GPU.
  h200: gpu(600e12, 350e9, 45e9),
  h100: gpu(600e12, 350e9, 45e9),
  a100: gpu(230e12, 220e9, 22e9),
  "cpu-1gbit": host(0.117e9),
  "cpu-10gbit": host(1.17e9),
  "cpu-25gbit": host(2.9e9),
};

export const CLUSTER_FORMS: string = `COUNTxKIND, such as 8xH200, 16xcpu-1gbit; kinds: ${Object.keys(KINDS).join(", ")}`;

/** `8xH200`. Throws ERR_PCCL_INVALID_ARGUMENT on anything that isn't like it. */
export function parseCluster(text: string): Cluster {
  const [, count, name = ""] = /^(\d{1,4})x(.+)$/i.exec(typeof text === "string" ? text : "") ?? [];
  const lower = name.toLowerCase();
  const kind = Object.hasOwn(KINDS, lower) ? KINDS[lower] : undefined;
  if (kind === undefined) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `cluster ${describe(text)}: must be ${CLUSTER_FORMS}`);
  }
  const ranks = checkInteger("parseCluster", "the number of ranks", Number(count), 1, 4096);
  const { ranksPerNode, ...rest } = kind;
  return {
    ranks,
    nodes: Array.from({ length: ranks }, (_, rank) => Math.floor(rank / ranksPerNode)),
    ...rest,
  };
}
