/** What bounds a call in time: its caller's signal and timeout, as one signal for the layers below. */
import { checkInteger, checkSignal } from "../base/check.js";
import { CancelledError, pcclError } from "../base/errors.js";
import { TIMEOUT_MAX_MS } from "../base/limits.js";

export interface CallOptions {
  /**
   * Withdraws the call, which then rejects with the signal's reason. A call that can't be withdrawn any more, since
   * others may have its result already, ends as it would have. While the coordinator can't be reached nobody knows
   * whether others have: a vote rejects all the same, and only the end of a sync, which may have changed the group's
   * revision, waits until the coordinator is there again or lost for good.
   */
  readonly signal?: AbortSignal | undefined;
  /** Withdraws the call after so many milliseconds, with ERR_PCCL_TIMEOUT. 1 to 2^31-1; no limit unless told. */
  readonly timeoutMs?: number | undefined;
}

export const CALL_OPTION_KEYS = ["signal", "timeoutMs"] as const;

/**
 * Runs `body` within the limits. Once its signal aborts, `body` has to end soon: with ERR_PCCL_CANCELLED and what it
 * was waiting for, or as it would have. The caller gets the signal's reason, or a timeout that names the call.
 */
export async function limited<T>(
  call: string,
  options: CallOptions,
  body: (signal: AbortSignal | undefined) => Promise<T>,
): Promise<T> {
  const callerSignal = checkSignal(call, options.signal);
  const { timeoutMs } = options;
  if (timeoutMs !== undefined) checkInteger(call, "timeoutMs", timeoutMs, 1, TIMEOUT_MAX_MS);
  callerSignal?.throwIfAborted();
  const deadline = timeoutMs === undefined ? undefined : new Deadline(timeoutMs, callerSignal);
  try {
    return await body(deadline?.signal ?? callerSignal);
  } catch (error) {
    if (!(error instanceof CancelledError)) throw error;
    if (deadline?.passed === true) {
      const reason = error.reason.startsWith(`${call}: `)
        ? error.reason.slice(call.length + 2)
        : error.reason;
      const message = `${call}: timed out after ${timeoutMs} ms: ${reason}`;
      throw pcclError("ERR_PCCL_TIMEOUT", message, { epoch: error.epoch, cause: error });
    }
    throw callerSignal?.aborted === true ? callerSignal.reason : error;
  } finally {
    deadline?.clear();
  }
}

/** A signal that aborts with the caller's, or when the time is over. */
class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #callerSignal: AbortSignal | undefined;
  #passed = false;

  constructor(timeoutMs: number, callerSignal: AbortSignal | undefined) {
    this.#callerSignal = callerSignal;
    callerSignal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#timer = setTimeout(() => {
      this.#passed = !this.signal.aborted;
      this.#controller.abort();
    }, timeoutMs);
    // What is waited for keeps the process alive, if anything does.
    this.#timer.unref();
  }

  readonly #onAbort = (): void => this.#controller.abort();

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The time was over before the caller's signal aborted. */
  get passed(): boolean {
    return this.#passed;
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#callerSignal?.removeEventListener("abort", this.#onAbort);
  }
}
