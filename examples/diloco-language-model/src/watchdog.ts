/** Calls `onStarved` once when nobody has fed it for `seconds`: a run that hangs ends with a report instead. */
export class Watchdog {
  readonly #timer: NodeJS.Timeout;

  constructor(seconds: number, onStarved: () => void) {
    this.#timer = setTimeout(onStarved, seconds * 1000);
  }

  feed(): void {
    this.#timer.refresh();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
