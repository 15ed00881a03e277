/** One peer of a benchmark, a process of its own. It ends with the process that started it. */
import { PcclError } from "../base/errors.js";
import { measure } from "./measure.js";
import type { PeerConfig, PeerMessage } from "./messages.js";

const JOIN_TIMEOUT_MS = 60_000;

const { coordinator, job } = JSON.parse(process.argv[2] as string) as PeerConfig;
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
  await measure(coordinator, job, {
    joinTimeoutMs: JOIN_TIMEOUT_MS,
    onProgress: (progress) => tell({ kind: "progress", progress }),
    onMeasurement: (measurement) => tell({ kind: "measurement", measurement }),
  });
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
