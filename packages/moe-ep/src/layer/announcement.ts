/** What ranks tell each other before a step: that they make the same call, and how many copies go where. */
import { type PcclError, pcclError } from "@pccl/core/base";
import { countCopies, type Routing } from "../routing/routing.js";

export type StepKind = "forward" | "backward";

export interface Announcement {
  readonly kind: StepKind;
  /** Which of the group's layers, in the order in which they were made. */
  readonly layer: number;
  /** Counts this rank's steps; that of rank 0 names the ops between two ranks. */
  readonly step: number;
  /** Counts changes of this rank's weights. */
  readonly version: number;
  /** Token-copies of this rank by expert. */
  readonly counts: Float64Array;
}

const KINDS: readonly StepKind[] = ["forward", "backward"];

export function announcementBytes(experts: number): number {
  return 8 * (4 + experts);
}

export function encodeAnnouncement({ kind, layer, step, version, counts }: Announcement): Uint8Array {
  return new Uint8Array(Float64Array.of(KINDS.indexOf(kind), layer, step, version, ...counts).buffer);
}

/** Those of all ranks. Throws ERR_PCCL_CALL_MISMATCH if they make different calls: the same on every rank. */
export function decodeAnnouncements(call: string, payloads: readonly Uint8Array[]): Announcement[] {
  const all = payloads.map((payload): Announcement => {
    const [kind, layer, step, version, ...counts] = new Float64Array(payload.slice().buffer);
    return {
      kind: KINDS[kind as number] as StepKind,
      layer: layer as number,
      step: step as number,
      version: version as number,
      counts: Float64Array.from(counts),
    };
  });
  const [first] = all as [Announcement];
  const rank = all.findIndex(({ kind, layer }) => kind !== first.kind || layer !== first.layer);
  if (rank >= 0) {
    const name = ({ kind, layer }: Announcement): string => `${kind} of layer ${layer}`;
    const what = `rank 0 calls ${name(first)}, and rank ${rank} ${name(all[rank] as Announcement)}`;
    throw pcclError("ERR_PCCL_CALL_MISMATCH", `${call}: ${what}`);
  }
  return all;
}

/** A routing's slots by expert. Throws what is wrong with it. */
export function countRouting(call: string, routing: Routing, tokens: number, experts: number): Float64Array {
  const invalid = (message: string): PcclError =>
    pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${message}`);
  const { firstSlot, experts: slots, gates } = routing ?? {};
  if (!(firstSlot instanceof Int32Array && slots instanceof Int32Array && gates instanceof Float32Array)) {
    throw invalid(
      "routing must hold firstSlot and experts as an Int32Array each, and gates as a Float32Array",
    );
  }
  if (firstSlot.length !== tokens + 1) {
    throw invalid(`routing is for ${firstSlot.length - 1} tokens, and x has ${tokens}`);
  }
  if (firstSlot[0] !== 0 || firstSlot[tokens] !== slots.length) {
    throw invalid(`routing.firstSlot must go from 0 to its ${slots.length} slots`);
  }
  if (firstSlot.some((first, token) => token > 0 && first < (firstSlot[token - 1] as number))) {
    throw invalid("routing.firstSlot must not fall");
  }
  if (gates.length !== slots.length) {
    throw invalid(`routing has ${gates.length} gates for ${slots.length} slots`);
  }
  return countCopies(call, { experts: slots }, experts);
}
