/** What the programs of rank processes have in common: they do one job, and end with the process that started them. */
import { PcclError } from "@pccl/core/base";

/** Sent before a program ends with an error. */
export interface FailedMessage {
  readonly kind: "failed";
  readonly code: string;
  readonly reason: string;
}

/** Runs the job in the first argument; `tell` resolves when a message is on its way. */
export async function runJob<Job, Message>(
  body: (job: Job, tell: (message: Message) => Promise<void>) => Promise<void>,
): Promise<void> {
  const send = async (message: Message | FailedMessage): Promise<void> =>
    await new Promise((resolve) => {
      if (process.connected) process.send?.(message, undefined, {}, () => resolve());
      else resolve();
    });
  let isOver = false;
  process.on("disconnect", () => {
    if (!isOver) process.exit(1);
  });
  try {
    await body(JSON.parse(process.argv[2] as string) as Job, send);
  } catch (error) {
    const [code, reason] = error instanceof PcclError ? [error.code, error.reason] : ["", String(error)];
    await send({ kind: "failed", code, reason });
    process.exitCode = 1;
  }
  isOver = true;
  if (process.connected) process.disconnect();
}
