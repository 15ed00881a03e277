/** How far off a quantized reduction of a benchmark's data may be: docs/quantization.md has the formats' errors. */
import type { QuantizedFormat } from "../peer/quantization.js";

export { QUANTIZED_FORMATS } from "../peer/quantization.js";

/** Half a step, as a share of a block's greatest value, where its least one is 0. */
const SHARES: Readonly<Record<QuantizedFormat, number>> = {
  u8: 1 / 255 / 2,
  i8: 1 / 255 / 2,
  i4: 1 / 15 / 2,
  fp8: 2 ** -4,
  bf16: 2 ** -8,
  f16: 2 ** -11,
};
/** What parts are off by widens the sum's range, and f32 rounds too. */
const SLACK = 1.1;

/** Each peer's part, of values from 0 to `partMax`, is rounded, and then the result, of values up to `resultMax`. */
export function quantizedErrorMax(
  format: QuantizedFormat,
  world: number,
  partMax: number,
  resultMax: number,
): number {
  return SLACK * SHARES[format] * (world * partMax + resultMax);
}
