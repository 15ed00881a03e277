/** Calls of the addon whose errors become those of @pccl/core. */
import { type Addon, loadAddon } from "@pccl/bindings";
import { isPcclErrorCode, pcclError } from "@pccl/core/base";

/** Runs `call` with the loaded addon. Throws PcclError only. */
export function callNative<T>(call: (addon: Addon) => T): T {
  try {
    return call(loadAddon());
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string };
    throw pcclError(isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL", message, { cause: error });
  }
}
