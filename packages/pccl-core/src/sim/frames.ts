/** The data plane's frames, each for one op of one ring. */
import type { PcclErrorCode } from "../base/errors.js";
import type { RingOp } from "../membership/messages.js";

export type Frame = RingOp &
  (
    | { readonly kind: "called"; readonly descriptor: number }
    | { readonly kind: "contribution"; readonly peerId: number; readonly value: number }
    | { readonly kind: "done"; readonly round: number }
    | { readonly kind: "abort"; readonly code: PcclErrorCode }
  );

/** Frames of another ring than the view's come too late: its ops have been settled. */
export function belongsTo(frame: Frame, view: { readonly epoch: number }): boolean {
  return frame.epoch === view.epoch;
}
