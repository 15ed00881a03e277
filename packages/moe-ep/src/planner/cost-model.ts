/** What the planner believes about the hardware, and two ways to come by it: from measurements, and from a data sheet. */
import { checkInteger, checkNumber, checkOptions, pcclError } from "@pccl/core/base";

/** Seconds. "Far" is between ranks of different nodes. */
export interface CostModel {
  /** One token-copy through one expert, on a rank of speed 1. Above 0. */
  readonly copySeconds: number;
  /** What an expert with any copies costs besides them (launches, reading its weights), on a rank of speed 1. */
  readonly expertSeconds: number;
  /** One expert's weights to another rank of the node. */
  readonly transferSeconds: number;
  readonly farTransferSeconds: number;
  /** One token-copy to another rank of the node, and its result back. */
  readonly crossCopySeconds: number;
  readonly farCrossCopySeconds: number;
  /** What a step with any loans takes besides, on every rank. Default 0. */
  readonly lendSeconds?: number | undefined;
}

/**
 * A model in which only computing and weight transfers count, in units of the time of one token-copy: sending one
 * expert's weights takes as long as computing `transferCopies` copies.
 */
export function costModelInCopies(transferCopies: number): CostModel {
  const call = "costModelInCopies";
  const transferSeconds = checkNumber(call, "transferCopies", transferCopies, 0, 1e12);
  return {
    copySeconds: 1,
    expertSeconds: 0,
    transferSeconds,
    farTransferSeconds: transferSeconds,
    crossCopySeconds: 0,
    farCrossCopySeconds: 0,
  };
}

/** Of a plain f32 core and a 10 Gbit/s link: the break-even of docs/moe-ep.md. */
export const DEFAULT_COST_MODEL: CostModel = costModelInCopies(256);

/** The sizes of a gated expert (two matrices hidden × ffn, one ffn × hidden). */
export interface ExpertShape {
  readonly hiddenSize: number;
  readonly ffnSize: number;
  /** Of a weight, and of an element of a token in transit: 4 for f32, 2 for bf16. */
  readonly elementBytes: number;
}

export interface Hardware {
  /** Of one rank's matrix products at many rows. */
  readonly flopsPerSecond: number;
  /** Of one rank in one direction, within the node. */
  readonly bytesPerSecond: number;
  /** Of another rank's weights, within the node, where that differs: mapped ones are read from memory. */
  readonly weightBytesPerSecond?: number | undefined;
  /** Default: 0. */
  readonly latencySeconds?: number | undefined;
  /** Between nodes; default: as within the node. */
  readonly farBytesPerSecond?: number | undefined;
  readonly farLatencySeconds?: number | undefined;
}

function checkObject(call: string, name: string, value: unknown, keys: readonly string[]): void {
  if (value === undefined) throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${name} must be an object`);
  checkOptions(call, value, keys);
}

function checkShape(call: string, shape: ExpertShape): ExpertShape {
  checkObject(call, "shape", shape, ["hiddenSize", "ffnSize", "elementBytes"]);
  checkInteger(call, "hiddenSize", shape.hiddenSize, 1, 2 ** 24);
  checkInteger(call, "ffnSize", shape.ffnSize, 1, 2 ** 24);
  checkNumber(call, "elementBytes", shape.elementBytes, 0.125, 8);
  return shape;
}

/** Bytes of one expert's weights. */
export function expertBytes({ hiddenSize, ffnSize, elementBytes }: ExpertShape): number {
  return 3 * hiddenSize * ffnSize * elementBytes;
}

/**
 * The model of the forward pass by arithmetic: 6·hidden·ffn operations per copy, 3·hidden·ffn weights per transfer,
 * a token's hidden state there and back per cross-rank copy. Measure instead where you can.
 */
export function estimateCostModel(shape: ExpertShape, hardware: Hardware): CostModel {
  const call = "estimateCostModel";
  const { hiddenSize, ffnSize, elementBytes } = checkShape(call, shape);
  checkObject(call, "hardware", hardware, [
    "flopsPerSecond",
    "bytesPerSecond",
    "weightBytesPerSecond",
    "latencySeconds",
    "farBytesPerSecond",
    "farLatencySeconds",
  ]);
  const rate = (name: string, value: unknown): number => checkNumber(call, name, value, 1, 1e30);
  const latency = (name: string, value: unknown): number => checkNumber(call, name, value, 0, 3600);
  const flops = rate("flopsPerSecond", hardware.flopsPerSecond);
  const near = rate("bytesPerSecond", hardware.bytesPerSecond);
  const nearWeights = rate("weightBytesPerSecond", hardware.weightBytesPerSecond ?? near);
  const far = rate("farBytesPerSecond", hardware.farBytesPerSecond ?? near);
  const nearLatency = latency("latencySeconds", hardware.latencySeconds ?? 0);
  const farLatency = latency("farLatencySeconds", hardware.farLatencySeconds ?? nearLatency);
  const weightBytes = expertBytes({ hiddenSize, ffnSize, elementBytes });
  const copyBytes = 2 * hiddenSize * elementBytes;
  return {
    copySeconds: (6 * hiddenSize * ffnSize) / flops,
    expertSeconds: 0,
    transferSeconds: nearLatency + weightBytes / nearWeights,
    farTransferSeconds: farLatency + weightBytes / far,
    crossCopySeconds: copyBytes / near,
    farCrossCopySeconds: copyBytes / far,
  };
}

/** A measurement: `size` rows or bytes took `seconds`. */
export interface Sample {
  readonly size: number;
  readonly seconds: number;
}

export interface CostSamples {
  /** An expert's whole forward pass, by rows: at least two sizes. */
  readonly expert: readonly Sample[];
  /** A message from rank to rank within the node, by bytes: at least two sizes. */
  readonly link: readonly Sample[];
  /** The same between nodes; default: as within the node. */
  readonly farLink?: readonly Sample[] | undefined;
}

/** The model that fits measurements best: each kind of work takes a fixed time and one per row or byte. */
export function fitCostModel(shape: ExpertShape, samples: CostSamples): CostModel {
  const call = "fitCostModel";
  checkShape(call, shape);
  checkObject(call, "samples", samples, ["expert", "link", "farLink"]);
  const expert = fitLine(call, "expert", samples.expert);
  const near = fitLine(call, "link", samples.link);
  const far = samples.farLink === undefined ? near : fitLine(call, "farLink", samples.farLink);
  if (expert.perUnit <= 0) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: expert must take longer with more rows`);
  }
  const weightBytes = expertBytes(shape);
  const copyBytes = 2 * shape.hiddenSize * shape.elementBytes;
  return {
    copySeconds: expert.perUnit,
    expertSeconds: expert.fixed,
    transferSeconds: near.fixed + near.perUnit * weightBytes,
    farTransferSeconds: far.fixed + far.perUnit * weightBytes,
    // Copies travel in large messages, so that only their bytes count.
    crossCopySeconds: near.perUnit * copyBytes,
    farCrossCopySeconds: far.perUnit * copyBytes,
  };
}

/**
 * Least squares of the relative errors, so that small sizes count as much as large ones. Neither number is below 0:
 * a line through the origin, or a constant, where the best line would have one.
 */
function fitLine(
  call: string,
  name: string,
  samples: readonly Sample[],
): { readonly fixed: number; readonly perUnit: number } {
  if (
    !Array.isArray(samples) ||
    new Set((samples as Partial<Sample>[]).map((sample) => sample?.size)).size < 2
  ) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${name} must hold samples of two sizes or more`);
  }
  let [w, wx, wxx, wy, wxy] = [0, 0, 0, 0, 0];
  for (const sample of samples as readonly Sample[]) {
    checkObject(call, `a sample of ${name}`, sample, ["size", "seconds"]);
    const x = checkNumber(call, `${name} size`, sample.size, 1, 1e15);
    const y = checkNumber(call, `${name} seconds`, sample.seconds, 1e-12, 1e9);
    const weight = 1 / (y * y);
    w += weight;
    wx += weight * x;
    wxx += weight * x * x;
    wy += weight * y;
    wxy += weight * x * y;
  }
  const perUnit = (w * wxy - wx * wy) / (w * wxx - wx * wx);
  const fixed = (wy - perUnit * wx) / w;
  if (perUnit < 0) return { fixed: wy / w, perUnit: 0 };
  if (fixed < 0) return { fixed: 0, perUnit: wxy / wxx };
  return { fixed, perUnit };
}
