/** A command's work, which SIGINT and SIGTERM end in good order. */
import { pcclError } from "@pccl/core/base";

/** `work` has to reject with the signal's reason once that aborts. */
export async function untilSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void =>
    controller.abort(pcclError("ERR_PCCL_CLOSED", `ended by ${signal}`));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}
