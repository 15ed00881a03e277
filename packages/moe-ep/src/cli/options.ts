/** Values of a command line, as numbers. */
import { UsageError } from "./usage.js";

/** An integer option, or undefined where it isn't given. */
export function integerOption(
  name: string,
  text: string | undefined,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): number | undefined {
  const value = numberOption(name, text, min, max);
  if (value !== undefined && !Number.isInteger(value)) {
    throw new UsageError(`--${name} must be an integer, got "${text}"`);
  }
  return value;
}

export function numberOption(
  name: string,
  text: string | undefined,
  min: number,
  max: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= min && value <= max)) {
    throw new UsageError(`--${name} must be a number from ${min} to ${max}, got "${text}"`);
  }
  return value;
}

export function oneOfOption<T extends string>(name: string, text: string, allowed: readonly T[]): T {
  if (!(allowed as readonly string[]).includes(text)) {
    throw new UsageError(`--${name} must be ${allowed.join(", ")}, got "${text}"`);
  }
  return text as T;
}
