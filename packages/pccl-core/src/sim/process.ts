/** A simulated process's life: what comes while it is stopped waits, what comes after its end is lost. */
export class Process {
  state: "running" | "stopped" | "dead" = "running";
  readonly #waiting: (() => void)[] = [];

  /** Runs `action` now, when the process goes on, or never. */
  deliver(action: () => void): void {
    if (this.state === "running") action();
    else if (this.state === "stopped") this.#waiting.push(action);
  }

  stop(): void {
    if (this.state === "running") this.state = "stopped";
  }

  resume(): void {
    if (this.state !== "stopped") return;
    this.state = "running";
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift())
      this.deliver(next);
  }

  die(): void {
    this.state = "dead";
    this.#waiting.length = 0;
  }
}
