/** Golden layers through real groups of processes, against their results and against the layer in one process. */
import { basename } from "node:path";
import { ExpertGroup } from "../group/expert-group.js";
import { runOnRanks } from "../launch/run-job.js";
import type { Planner } from "../planner/plan.js";
import { type GoldenLayer, readGoldenLayer, worstDifference } from "./golden-layer.js";
import { assemble, type RankResults, type Results, runGoldenLayer } from "./golden-run.js";
import type { VerifyJob, VerifyMessage } from "./messages.js";

export interface VerifyResult {
  readonly file: string;
  readonly world: number;
  readonly planner: Planner;
  readonly maxAbsError: Readonly<Record<string, number>>;
  readonly withinTolerance: boolean;
  /** Output and gradients by the input and by the gates have the same bits as in one process. */
  readonly bitIdenticalToSingle: boolean;
}

const SAME_BITS = ["out", "routed_out", "grad_x", "grad_x_experts", "grad_topk_weight"];

/** All files by each planner on each number of ranks. Rejects if a rank fails. */
export async function verify(
  { files, planners }: VerifyJob,
  worlds: readonly number[],
  signal: AbortSignal,
): Promise<VerifyResult[]> {
  const goldens = new Map(files.map((file) => [file, readGoldenLayer(file)]));
  const singles = new Map<string, Results>();
  for (const [file, golden] of goldens) {
    singles.set(file, assemble([await runGoldenLayer(ExpertGroup.alone(), golden, "ep")]));
  }
  const results: VerifyResult[] = [];
  for (const world of worlds) {
    const parts = new Map<string, RankResults[]>();
    const program = new URL("./rank.js", import.meta.url);
    await runOnRanks<VerifyMessage>(program, { files, planners }, { ranks: world, signal }, (rank, told) => {
      const key = `${told.planner} ${told.file}`;
      if (!parts.has(key)) parts.set(key, []);
      (parts.get(key) as RankResults[])[rank] = told.results;
    });
    for (const [file, golden] of goldens) {
      for (const planner of planners) {
        const all = assemble(parts.get(`${planner} ${file}`) as RankResults[]);
        const compared = compare(golden, all, singles.get(file) as Results);
        results.push({ file: basename(file), world, planner, ...compared });
      }
    }
  }
  return results;
}

function compare(
  golden: GoldenLayer,
  actual: Results,
  single: Results,
): Pick<VerifyResult, "maxAbsError" | "withinTolerance" | "bitIdenticalToSingle"> {
  const errors = Object.entries(actual).map(
    ([name, tensor]) => [name, worstDifference(tensor, golden.f32(name))] as const,
  );
  return {
    maxAbsError: Object.fromEntries(errors),
    withinTolerance: errors.every(([name, error]) => error <= golden.allowed(name)),
    bitIdenticalToSingle: SAME_BITS.every((name) => hasSameBits(actual[name], single[name])),
  };
}

function hasSameBits(a: Float32Array | undefined, b: Float32Array | undefined): boolean {
  if (a === undefined || b === undefined || a.length !== b.length) return false;
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(
    Buffer.from(b.buffer, b.byteOffset, b.byteLength),
  );
}
