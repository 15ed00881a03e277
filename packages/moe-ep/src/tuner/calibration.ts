/** What a machine was measured to do, as a file, and the cost model that follows from it for a layer. */
import { readFileSync, writeFileSync } from "node:fs";
import { checkInteger, checkNumber, checkOneOf, describe, type PcclError, pcclError } from "@pccl/core/base";
import {
  type CostModel,
  type ExpertShape,
  fitCostModel,
  type Hardware,
  type Sample,
} from "../planner/cost-model.js";
import { type Cluster, MIN_CHUNK_COPIES } from "../simulator/clusters.js";
import { costModelOf, LEAN_RUNTIME, type Runtime } from "../simulator/runtimes.js";

export interface Calibration {
  /** What was measured, in words. */
  readonly machine: string;
  readonly dtype: "f32" | "bf16";
  /** Of the experts that were timed. */
  readonly hiddenSize: number;
  readonly ffnSize: number;
  /** One expert's forward pass, by rows, while another process computes too. */
  readonly expert: readonly Sample[];
  /** A message between two processes of the machine, by bytes. */
  readonly link: readonly Sample[];
  /** Copying memory that is in no cache. */
  readonly memoryBytesPerSecond: number;
}

const FORMAT = "moe-ep-calibration";
const VERSION = 1;
const RATE_MAX = 1e30;
export const ELEMENT_BYTES: Readonly<Record<Calibration["dtype"], number>> = { f32: 4, bf16: 2 };

function invalid(message: string, cause?: unknown): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", message, { cause });
}

export function writeCalibration(file: string, calibration: Calibration): void {
  const text = JSON.stringify({ format: FORMAT, version: VERSION, ...calibration }, undefined, 1);
  try {
    writeFileSync(file, `${text}\n`);
  } catch (error) {
    throw invalid(`${file} can't be written: ${reasonOf(error)}`, error);
  }
}

/** Throws ERR_PCCL_INVALID_ARGUMENT for a file that can't be read or holds anything else. */
export function readCalibration(file: string): Calibration {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw invalid(`${file} can't be read as JSON: ${reasonOf(error)}`, error);
  }
  if (typeof json !== "object" || json === null || !("format" in json) || json.format !== FORMAT) {
    throw invalid(`${file}: no calibration: "format" must be "${FORMAT}"`);
  }
  const { version, ...fields } = json as Record<string, unknown>;
  if (version !== VERSION) throw invalid(`${file}: version ${describe(version)} is not ${VERSION}`);
  if (typeof fields.machine !== "string") throw invalid(`${file}: machine must be a text`);
  const calibration: Calibration = {
    machine: fields.machine,
    dtype: checkOneOf(file, "dtype", fields.dtype, ["f32", "bf16"]),
    hiddenSize: checkInteger(file, "hiddenSize", fields.hiddenSize, 1, 2 ** 24),
    ffnSize: checkInteger(file, "ffnSize", fields.ffnSize, 1, 2 ** 24),
    expert: samplesOf(file, "expert", fields.expert),
    link: samplesOf(file, "link", fields.link),
    memoryBytesPerSecond: checkNumber(file, "memoryBytesPerSecond", fields.memoryBytesPerSecond, 1, 1e30),
  };
  // Samples that no line fits are found here, not in the middle of a run.
  calibratedCostModel(calibration, calibration);
  return calibration;
}

function samplesOf(file: string, name: string, value: unknown): Sample[] {
  if (!Array.isArray(value) || value.length < 2)
    throw invalid(`${file}: ${name} must hold two samples or more`);
  return value.map((sample: unknown, index) => {
    const { size, seconds } = (
      typeof sample === "object" && sample !== null ? sample : {}
    ) as Partial<Sample>;
    return {
      size: checkNumber(file, `${name}[${index}].size`, size, 1, 1e15),
      seconds: checkNumber(file, `${name}[${index}].seconds`, seconds, 1e-12, 1e9),
    };
  });
}

/**
 * Ranks of a layer on this machine, for the simulator. Experts of other sizes than the measured ones take as much
 * longer as they have more weights. Ranks map each other's weights, which come out of memory once.
 */
export function calibratedCluster(
  calibration: Calibration,
  ranks: number,
  { hiddenSize, ffnSize }: Pick<ExpertShape, "hiddenSize" | "ffnSize">,
): { readonly cluster: Cluster; readonly runtime: Runtime } {
  const { dtype, expert, link, memoryBytesPerSecond } = calibration;
  const shape: ExpertShape = { hiddenSize, ffnSize, elementBytes: ELEMENT_BYTES[dtype] };
  const fit = fitCostModel(shape, { expert, link });
  const scale = (hiddenSize * ffnSize) / (calibration.hiddenSize * calibration.ffnSize);
  const hardware: Hardware = {
    flopsPerSecond: (6 * hiddenSize * ffnSize) / (fit.copySeconds * scale),
    bytesPerSecond: Math.min(RATE_MAX, (2 * hiddenSize * shape.elementBytes) / fit.crossCopySeconds),
    weightBytesPerSecond: memoryBytesPerSecond,
  };
  return {
    cluster: {
      ranks,
      hardware,
      nodes: new Array<number>(ranks).fill(0),
      dtype,
      minChunkCopies: MIN_CHUNK_COPIES,
      isGpu: false,
    },
    runtime: { ...LEAN_RUNTIME, expertSeconds: fit.expertSeconds * scale },
  };
}

/** What planExperts and a layer's `plan` option take as costModel, for ranks of this machine. */
export function calibratedCostModel(
  calibration: Calibration,
  shape: Pick<ExpertShape, "hiddenSize" | "ffnSize">,
): CostModel {
  const { cluster, runtime } = calibratedCluster(calibration, 1, shape);
  const elementBytes = ELEMENT_BYTES[calibration.dtype];
  const { hiddenSize, ffnSize } = shape;
  return costModelOf({ hiddenSize, ffnSize, elementBytes }, cluster, runtime);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
