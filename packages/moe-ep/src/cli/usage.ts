/** A command line that makes no sense. */
export class UsageError extends Error {}

/** An option that must be an integer in [min, max]. Throws UsageError. */
export function parseInteger(option: string, text: string | undefined, min: number, max: number): number {
  if (text === undefined) throw new UsageError(`${option} is missing`);
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) {
    throw new UsageError(`${option} must be an integer from ${min} to ${max}, got "${text}"`);
  }
  return value;
}
