/** Checks of arguments at the public surface: a typed error before anything is changed. */
import { pcclError } from "./errors.js";

/** Throws on a key that `allowed` doesn't list: a mistyped option must not be ignored in silence. */
export function checkOptions(call: string, options: unknown, allowed: readonly string[]): void {
  if (options === undefined) return;
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: options must be an object, got ${describe(options)}.`,
    );
  }
  for (const key of Object.keys(options)) {
    if (!allowed.includes(key)) {
      throw pcclError(
        "ERR_PCCL_UNKNOWN_OPTION",
        `${call}: unknown option "${key}"; known options: ${allowed.join(", ") || "none"}.`,
      );
    }
  }
}

/** An integer in [min, max]; NaN, fractions and other types are refused. */
export function checkInteger(call: string, name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be an integer from ${min} to ${max}, got ${describe(value)}.`,
    );
  }
  return value;
}

/** A finite number in [min, max]. */
export function checkNumber(call: string, name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== "number" || !Number.isFinite(value) || value < min || value > max) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be a number from ${min} to ${max}, got ${describe(value)}.`,
    );
  }
  return value;
}

export function checkBoolean(call: string, name: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw pcclError(
    "ERR_PCCL_INVALID_ARGUMENT",
    `${call}: ${name} must be true or false, got ${describe(value)}.`,
  );
}

export function checkOneOf<T extends string>(
  call: string,
  name: string,
  value: unknown,
  allowed: readonly T[],
): T {
  if (typeof value !== "string" || !(allowed as readonly string[]).includes(value)) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: ${name} must be one of ${allowed.join(", ")}, got ${describe(value)}.`,
    );
  }
  return value as T;
}

/** An AbortSignal or undefined. */
export function checkSignal(call: string, value: unknown): AbortSignal | undefined {
  if (value !== undefined && !(value instanceof AbortSignal)) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: signal must be an AbortSignal, got ${describe(value)}.`,
    );
  }
  return value;
}

/** A value as a short word for a message. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 80));
  if (typeof value === "object" && value !== null) return value.constructor?.name ?? "object";
  return String(value);
}
