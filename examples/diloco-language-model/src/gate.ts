/** Lets steps pass up to a number that only grows. */
export class Gate {
  readonly #signal: AbortSignal;
  #until = 0;
  #waiting: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#waiting?.(), { once: true });
  }

  openUntil(step: number): void {
    this.#until = Math.max(this.#until, step);
    this.#waiting?.();
  }

  /** Resolves when `step` may begin; rejects with the signal's reason. */
  async passed(step: number): Promise<void> {
    while (step > this.#until && !this.#signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    this.#signal.throwIfAborted();
  }
}
