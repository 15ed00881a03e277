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

/** A list such as "1,2,4". Throws UsageError. */
export function parseIntegers(option: string, text: string, min: number, max: number): number[] {
  return text.split(",").map((one) => parseInteger(option, one, min, max));
}

/** A list of the planners that run without statistics. Throws UsageError. */
export function parsePlanners(text: string): ("ep" | "lla" | "auto")[] {
  return text.split(",").map((name) => {
    if (name !== "ep" && name !== "lla" && name !== "auto") {
      throw new UsageError(`--planner must be ep, lla or auto, got "${name}"`);
    }
    return name;
  });
}
