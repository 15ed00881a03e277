/**
 * Another rank on this machine, for calibration: computes until it is told to stop, and sends back what it is sent.
 * It ends with the process that started it.
 */
import { connect } from "@pccl/core";
import type { ExpertFormat } from "../experts/experts.js";
import { ExpertPasses } from "./expert-passes.js";

export interface NeighbourJob {
  readonly coordinator: string;
  readonly format: ExpertFormat;
  /** The messages that it will be sent, in bytes. */
  readonly messages: readonly number[];
  readonly timeoutMs: number;
}

/** "computing" once it does; "idle" when it has stopped; an error's message when it couldn't. */
export type NeighbourNews = "computing" | "idle" | { readonly failed: string };

const BUSY_ROWS = 128;
const BUSY_SECONDS = 0.05;

function tell(news: NeighbourNews): void {
  if (process.connected) process.send?.(news);
}

const { coordinator, format, messages, timeoutMs } = JSON.parse(process.argv[2] as string) as NeighbourJob;
let isOver = false;
process.on("SIGINT", () => undefined);
process.on("disconnect", () => {
  if (!isOver) process.exit(1);
});
if (!process.connected) process.emit("disconnect");
try {
  const stop = new AbortController();
  process.once("message", () => stop.abort());
  const passes = await ExpertPasses.create(format);
  tell("computing");
  while (!stop.signal.aborted) await passes.measure(BUSY_ROWS, BUSY_SECONDS);
  tell("idle");
  await using communicator = await connect(coordinator, { timeoutMs });
  const other = communicator.peers[1 - communicator.rank] as number;
  for (const bytes of messages) {
    const buffer = communicator.alloc(bytes, "u8");
    await communicator.recv(buffer, { from: other, timeoutMs });
    await communicator.send(buffer, { to: other, timeoutMs });
  }
} catch (error) {
  tell({ failed: error instanceof Error ? error.message : String(error) });
  process.exitCode = 1;
}
isOver = true;
if (process.connected) process.disconnect();
