/** The addon, and its errors as those of the catalogue. */
import { type Addon, loadAddon, type NativeError } from "@pccl/bindings";
import { isPcclErrorCode, type PcclError, pcclError } from "../base/errors.js";

let loaded: Addon | undefined;

export function addon(): Addon {
  loaded ??= loadAddon();
  return loaded;
}

/** Calls native code; its errors, which carry only a code and a message, become catalogue errors. */
export function guard<T>(call: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw toPcclError(error, call);
  }
}

export function toPcclError(error: unknown, call: string): PcclError {
  const { code, message = String(error), peerId, epoch } = error as Partial<NativeError>;
  // Native code names its collectives itself, with what it knows of them, but not as this language writes it.
  const name = call.replace(/\W.*$/s, "");
  const native = name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const named = new RegExp(`^${native}\\b`).test(message)
    ? name + message.slice(native.length)
    : `${call}: ${message}`;
  return pcclError(isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL", named, {
    peerId,
    epoch,
    cause: error instanceof Error ? error : undefined,
  });
}
