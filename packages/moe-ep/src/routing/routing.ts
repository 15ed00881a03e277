/** Which experts each token of a rank goes to. */
import { pcclError } from "@pccl/core/base";

/** Of one layer. */
export const EXPERTS_MAX = 65_536;

/** Tokens' experts, in one list: those of token t are at firstSlot[t] to firstSlot[t + 1]. */
export interface Routing {
  /** tokens + 1 numbers. */
  readonly firstSlot: Int32Array;
  /** By falling score; equal scores by lower number. */
  readonly experts: Int32Array;
  readonly gates: Float32Array;
}

/** How many slots go to each expert: a row of planExperts' counts. */
export function countCopies(
  call: string,
  { experts }: Pick<Routing, "experts">,
  expertCount: number,
): Float64Array {
  const counts = new Float64Array(expertCount);
  for (const expert of experts) {
    if (expert < 0 || expert >= expertCount) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: expert ${expert} of the routing doesn't exist`);
    }
    counts[expert] = (counts[expert] as number) + 1;
  }
  return counts;
}
