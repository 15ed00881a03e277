/** Sizes as users write them: 4KiB, 64MiB. */
import { describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
/** What one typed array can hold. */
const SIZE_MAX_BYTES: number = 4 * 2 ** 30;

/** "4KiB,64MiB" in bytes. Throws ERR_PCCL_INVALID_ARGUMENT. */
export function parseSizes(name: string, text: string): number[] {
  return text.split(",").map((part) => {
    const [, number = "", unit = ""] = /^(\d+)(B|KiB|MiB|GiB)$/.exec(part.trim()) ?? [];
    const bytes = Number(number) * (UNITS[unit] ?? Number.NaN);
    if (bytes >= 1 && bytes <= SIZE_MAX_BYTES) return bytes;
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `bench: ${name} must be sizes like 4KiB,64MiB, in B, KiB, MiB or GiB and up to 4GiB, got ${describe(part)}.`,
    );
  });
}

/** In the largest unit of which it is a whole number. */
export function formatSize(bytes: number): string {
  const unit =
    ["GiB", "MiB", "KiB"].find((name) => bytes % (UNITS[name] as number) === 0 && bytes > 0) ?? "B";
  return `${bytes / (UNITS[unit] as number)} ${unit}`;
}
