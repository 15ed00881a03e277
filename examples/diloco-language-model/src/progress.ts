/** Live progress on stderr: a line for each outer step and event, and on a terminal a status line below them. */
import type { WriteStream } from "node:tty";
import { heldOutLoss, type StepRecord } from "./step-log.js";

export class Progress {
  readonly #stream: WriteStream;
  #status = "";

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  line(text: string): void {
    this.#erase();
    this.#stream.write(`${text}\n`);
    this.#draw();
  }

  step(record: StepRecord, outerSteps: number): void {
    const { index, worldSize, epoch, loss, txBytes, computing, waiting, retriedOps } = record;
    const heldOut = `held-out ${heldOutLoss(record).toFixed(3)}`;
    if (index === 0) {
      this.line(`outer step  0/${outerSteps}  peers ${worldSize}  epoch ${epoch}  ${heldOut}`);
      return;
    }
    const cells = [
      `outer step ${String(index).padStart(2)}/${outerSteps}`,
      `peers ${worldSize}`,
      `epoch ${epoch}`,
      `loss ${loss === undefined ? "-" : loss.toFixed(3)}`,
      heldOut,
      formatBytes(txBytes),
      `computing ${computing.toFixed(1)} s`,
      `waiting ${waiting.toFixed(1)} s`,
    ];
    if (retriedOps > 0) cells.push(`retried ${retriedOps}`);
    this.line(cells.join("  "));
  }

  /** Replaces the status line; shown on terminals only. */
  status(text: string): void {
    if (!this.#stream.isTTY) return;
    this.#erase();
    this.#status = text;
    this.#draw();
  }

  #erase(): void {
    if (this.#status !== "") this.#stream.write("\r\x1b[2K");
  }

  #draw(): void {
    // One column short of the width: a full line would wrap, and could not be erased.
    if (this.#status !== "") this.#stream.write(this.#status.slice(0, this.#stream.columns - 1));
  }
}

export function bar(part: number, width = 24): string {
  const filled = Math.round(part * width);
  return `[${"#".repeat(filled)}${".".repeat(width - filled)}]`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
