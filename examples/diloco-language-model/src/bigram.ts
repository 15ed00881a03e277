/** The reference that a model has to beat: how often each byte follows each other byte in the training text. */
import { VOCABULARY } from "./text.js";

/** Mean loss in nats per byte of predicting text[position] from text[position − 1]. */
export function bigramLoss(train: Uint8Array, text: Uint8Array, positions: readonly number[]): number {
  const counts = new Float64Array(VOCABULARY * VOCABULARY);
  const totals = new Float64Array(VOCABULARY);
  for (let i = 1; i < train.length; i++) {
    const previous = train[i - 1] as number;
    const index = previous * VOCABULARY + (train[i] as number);
    counts[index] = (counts[index] as number) + 1;
    totals[previous] = (totals[previous] as number) + 1;
  }
  // A tenth of a count for every pair, so that none is impossible; a whole one would cost the reference more.
  const smoothing = 0.1;
  let loss = 0;
  for (const position of positions) {
    const previous = text[position - 1] as number;
    const count = counts[previous * VOCABULARY + (text[position] as number)] as number;
    const total = totals[previous] as number;
    loss -= Math.log((count + smoothing) / (total + smoothing * VOCABULARY));
  }
  return loss / positions.length;
}
