/** The child's end of the channel to the demo: configuration in, messages out, and no life without a parent. */
import { setTimeout as delay } from "node:timers/promises";

/** After the parent is gone: time to leave the world in good order. */
const LEAVE_MS = 2_000;

/** What the parent gave as the config: PeerConfig or TrainingConfig. */
export function readConfig(): unknown {
  return JSON.parse(process.argv[2] as string);
}

export function tell(message: object): void {
  // The parent may be gone already; `orphaned` then ends this process.
  if (process.connected) process.send?.(message, undefined, {}, () => undefined);
}

/** Aborts when the parent has closed the channel or died; a little later the process ends in any case. */
export function orphaned(): AbortSignal {
  const controller = new AbortController();
  // Ctrl-C reaches the children of a terminal too; what it means is the parent's to decide.
  process.on("SIGINT", () => undefined);
  process.once("disconnect", () => {
    controller.abort(new Error("The demo has ended."));
    void delay(LEAVE_MS, undefined, { ref: false }).then(() => process.exit(1));
  });
  return controller.signal;
}
