/** A job of this package's own in processes of a group: its messages, or the error that ended it. */
import { fileURLToPath } from "node:url";
import { isPcclErrorCode, type PcclError, pcclError } from "@pccl/core/base";
import { RankProcesses } from "./rank-processes.js";
import type { FailedMessage } from "./rank-program.js";

/**
 * Runs `program` (which calls runJob) on all ranks. Rejects with the error of the rank that failed first, other than by
 * the loss of another one; with the reason of `signal` once it aborts.
 */
export async function runOnRanks<Message extends { readonly kind: string }>(
  program: URL,
  job: unknown,
  { ranks, signal }: { readonly ranks: number; readonly signal: AbortSignal },
  onMessage: (rank: number, message: Message) => void,
): Promise<void> {
  signal.throwIfAborted();
  const errors: PcclError[] = [];
  const processes = await RankProcesses.start({
    ranks,
    args: [fileURLToPath(program), JSON.stringify(job)],
    output: "errors",
    onMessage: (rank, message) => {
      const told = message as Message | FailedMessage;
      if (told.kind !== "failed") onMessage(rank, told as Message);
      else errors.push(errorOf(rank, told as FailedMessage));
    },
  });
  const onAbort = (): void => void processes.end();
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  const failure = await processes.ended;
  signal.removeEventListener("abort", onAbort);
  signal.throwIfAborted();
  const cause = errors.find(({ code }) => code !== "ERR_PCCL_PEER_LOST") ?? errors[0];
  if (cause !== undefined) throw cause;
  if (failure === undefined) return;
  const how = failure.signal ?? `exit code ${failure.code}`;
  throw pcclError("ERR_PCCL_PEER_LOST", `rank ${failure.rank} ended with ${how}`);
}

function errorOf(rank: number, { code, reason }: FailedMessage): PcclError {
  return isPcclErrorCode(code)
    ? pcclError(code, `rank ${rank}: ${reason}`)
    : pcclError("ERR_PCCL_INTERNAL", `rank ${rank} failed: ${reason}`);
}
