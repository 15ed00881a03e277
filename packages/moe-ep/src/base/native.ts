/** Calls of the addon whose errors become those of @pccl/core. */
import { type Addon, loadAddon } from "@pccl/bindings";
import { isPcclErrorCode, pcclError } from "@pccl/core/base";

function pcclErrorOf(error: unknown): Error {
  const { code, message } = error as { code?: unknown; message: string };
  return pcclError(isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL", message, { cause: error });
}

/** Runs `call` with the loaded addon. Throws PcclError only. */
export function callNative<T>(call: (addon: Addon) => T): T {
  try {
    return call(loadAddon());
  } catch (error) {
    throw pcclErrorOf(error);
  }
}

/** The same for a call that takes its time. */
export async function awaitNative<T>(call: (addon: Addon) => Promise<T>): Promise<T> {
  try {
    return await call(loadAddon());
  } catch (error) {
    throw pcclErrorOf(error);
  }
}
