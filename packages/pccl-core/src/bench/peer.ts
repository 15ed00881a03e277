/** One peer of a benchmark, a process of its own. It ends with the process that started it. */
import { PcclError } from "../base/errors.js";
import type { Measurement, Progress } from "./job.js";
import { measure } from "./measure.js";
import type { PeerConfig, PeerMessage } from "./messages.js";
import type { StateMeasurement } from "./state/job.js";
import { measureState } from "./state/measure.js";

const JOIN_TIMEOUT_MS = 60_000;

const { coordinator, job, state } = JSON.parse(process.argv[2] as string) as PeerConfig;
let over = false;

function tell(message: PeerMessage): void {
  if (process.connected) process.send?.(message, undefined, {}, () => undefined);
}

// Ctrl-C in a terminal reaches this process too; what it means is for the parent to say.
process.on("SIGINT", () => undefined);
process.on("disconnect", () => {
  if (!over) process.exit(1);
});
// The parent may be gone already: that was told while this program was loaded.
if (!process.connected) process.emit("disconnect");
try {
  const hooks = {
    joinTimeoutMs: JOIN_TIMEOUT_MS,
    onProgress: (progress: Progress) => tell({ kind: "progress", progress }),
    onMeasurement: (measurement: Measurement | StateMeasurement) =>
      tell({ kind: "measurement", measurement }),
  };
  if (job !== undefined) await measure(coordinator, job, hooks);
  if (state !== undefined) await measureState(coordinator, state, hooks);
  tell({ kind: "done" });
} catch (error) {
  const code = error instanceof PcclError ? error.code : "";
  const reason = error instanceof PcclError ? error.reason : String(error);
  tell({ kind: "failed", code, reason });
  process.exitCode = 1;
}
// From here on the process has to end by itself: if it doesn't, something was left open.
over = true;
process.disconnect();
