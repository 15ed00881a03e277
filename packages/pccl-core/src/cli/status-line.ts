/** What a command is doing, on stderr: in place on a terminal, else now and then as a line of its own. */

const TERMINAL_INTERVAL_MS = 500;
const PLAIN_INTERVAL_MS = 5_000;

export class StatusLine {
  readonly #terminal: boolean = process.stderr.isTTY;
  readonly #timer: NodeJS.Timeout;

  /** Undefined: nothing to say yet. */
  constructor(describe: () => string | undefined) {
    this.#timer = setInterval(
      () => {
        const line = describe();
        if (line !== undefined) process.stderr.write(this.#terminal ? `\r\x1b[K${line}` : `${line}\n`);
      },
      this.#terminal ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS,
    );
  }

  /** So that something else can be printed. */
  clear(): void {
    if (this.#terminal) process.stderr.write("\r\x1b[K");
  }

  end(): void {
    clearInterval(this.#timer);
    this.clear();
  }
}
