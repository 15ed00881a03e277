/** The main thread's side of the control session: starts its worker thread, and turns replies into promises. */
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { isPcclErrorCode, type PcclError, pcclError } from "../base/errors.js";
import type {
  InstalledNotice,
  SessionError,
  SessionNotice,
  SessionReplies,
  SessionRequest,
  SessionWorkerData,
} from "./session-protocol.js";

/** How long close() waits for the coordinator to be told before the thread is ended regardless. */
const LEAVE_TIMEOUT_MS = 1_000;

type RequestBody = SessionRequest extends infer R
  ? R extends SessionRequest
    ? Omit<R, "id">
    : never
  : never;

interface PendingRequest {
  readonly resolve: (value: SessionReplies[keyof SessionReplies]) => void;
  readonly reject: (error: PcclError) => void;
}

export interface ControlSessionHooks {
  /** A later view than the one of the admission is installed. */
  onView(view: InstalledNotice): void;
  /** The session is over, and not because of close(). */
  onEnded(error: PcclError): void;
}

export class ControlSession {
  /** Resolves with the first view that holds this peer, once it is installed. */
  readonly admitted: Promise<InstalledNotice>;
  readonly #worker: Worker;
  readonly #onPending: (peerId: number) => void;
  readonly #pending = new Map<number, PendingRequest>();
  /** The last sync that was offered; its controller aborts when the group's sync fails after the plan. */
  #sync = { offerId: 0, failed: new AbortController(), ended: Promise.resolve() };
  /** What tells that a sync in the background has ended, by its offer. */
  readonly #endSync = new Map<number, () => void>();
  #hooks: ControlSessionHooks | undefined;
  #resolveAdmitted!: (view: InstalledNotice) => void;
  #rejectAdmitted!: (error: PcclError) => void;
  #nextId = 1;
  #peerId: number | undefined;
  /** Of the view that was installed last. */
  #epoch: number | undefined;
  #ended: PcclError | undefined;

  /** `onPending`: registered with this id; waiting for the members' consent. */
  constructor(data: SessionWorkerData, onPending: (peerId: number) => void) {
    this.#onPending = onPending;
    this.admitted = new Promise((resolve, reject) => {
      this.#resolveAdmitted = resolve;
      this.#rejectAdmitted = reject;
    });
    // A caller that only looks at the requests' errors must not get an unhandled rejection for this one.
    this.admitted.catch(() => {});
    this.#worker = new Worker(new URL("./session-worker.js", import.meta.url), {
      workerData: data,
      name: "pccl-session",
      // The program's own flags (loaders, --input-type, coverage) are not meant for this thread.
      execArgv: [],
    });
    this.#worker.on("message", (notice: SessionNotice) => this.#onNotice(notice));
    this.#worker.on("error", (error) =>
      this.#end(
        pcclError("ERR_PCCL_INTERNAL", `The control session failed: ${error.message}.`, { cause: error }),
      ),
    );
    this.#worker.on("exit", (code) =>
      this.#end(pcclError("ERR_PCCL_INTERNAL", `The control session's thread ended with code ${code}.`)),
    );
  }

  /** This peer's id; undefined before it is registered. */
  get peerId(): number | undefined {
    return this.#peerId;
  }

  /** Aborts, with the error, when the sync that was offered last fails for the group while this peer fetches. */
  get syncFailed(): AbortSignal {
    return this.#sync.failed.signal;
  }

  /** Resolves when nobody fetches any more in the sync that was offered last, in the background; or at the end. */
  get syncEnded(): Promise<void> {
    return this.#sync.ended;
  }

  /** From admission on. */
  listen(hooks: ControlSessionHooks): void {
    this.#hooks = hooks;
    if (this.#ended !== undefined) hooks.onEnded(this.#ended);
  }

  /**
   * Sends one request. While requests are open, and until admission, the thread keeps the process alive. An abort
   * of `signal` withdraws it: it soon rejects with ERR_PCCL_CANCELLED, unless it was too late for that.
   */
  async request<K extends keyof SessionReplies>(
    body: RequestBody & { kind: K },
    signal?: AbortSignal,
  ): Promise<SessionReplies[K]> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#nextId++;
    const asked: RequestBody = body;
    if (asked.kind === "sync-offer") {
      const ended = new Promise<void>((resolve) => {
        if (asked.background) this.#endSync.set(id, resolve);
        else resolve();
      });
      this.#sync = { offerId: id, failed: new AbortController(), ended };
    }
    const reply = new Promise<SessionReplies[keyof SessionReplies]>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
    });
    const withdraw = (): void => {
      if (this.#pending.has(id)) this.#post({ kind: "withdraw", target: id });
    };
    this.#worker.ref();
    this.#post(body, id);
    if (signal?.aborted === true) withdraw();
    else signal?.addEventListener("abort", withdraw, { once: true });
    try {
      return (await reply) as SessionReplies[K];
    } finally {
      signal?.removeEventListener("abort", withdraw);
      if (this.#pending.size === 0) this.#worker.unref();
    }
  }

  /** Lets the process exit while nothing is waited for. */
  unref(): void {
    this.#worker.unref();
  }

  /** Says goodbye if the coordinator can still be reached, ends the thread, and fails open requests with `error`. */
  async close(error: PcclError): Promise<void> {
    if (this.#ended === undefined) {
      const answered = new AbortController();
      await Promise.race([
        this.request({ kind: "leave" }).catch(() => undefined),
        delay(LEAVE_TIMEOUT_MS, undefined, { signal: answered.signal }).catch(() => undefined),
      ]);
      answered.abort();
    }
    this.#fail(error);
    await this.#worker.terminate();
  }

  #post(body: RequestBody, id: number = this.#nextId++): void {
    this.#worker.postMessage({ ...body, id });
  }

  #onNotice(notice: SessionNotice): void {
    switch (notice.kind) {
      case "reply": {
        const request = this.#pending.get(notice.id);
        this.#pending.delete(notice.id);
        if ("error" in notice) request?.reject(this.#toError(notice.error));
        else request?.resolve(notice.value);
        return;
      }
      case "pending":
        this.#peerId = notice.peerId;
        return this.#onPending(notice.peerId);
      case "admitted":
        this.#epoch = notice.view.epoch;
        return this.#resolveAdmitted(notice.view);
      case "installed":
        this.#epoch = notice.view.epoch;
        return this.#hooks?.onView(notice.view);
      case "sync-failed":
        if (notice.offerId === this.#sync.offerId) this.#sync.failed.abort(this.#toError(notice.error));
        return;
      case "sync-ended":
        this.#endSync.get(notice.offerId)?.();
        this.#endSync.delete(notice.offerId);
        return;
      case "ended":
        return this.#end(this.#toError(notice.error));
    }
  }

  #toError({ code, message, peerId }: SessionError): PcclError {
    const known = isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL";
    return pcclError(known, message, { peerId, epoch: this.#epoch });
  }

  #end(error: PcclError): void {
    if (this.#ended !== undefined) return;
    this.#fail(error);
    this.#hooks?.onEnded(error);
  }

  #fail(error: PcclError): void {
    this.#ended ??= error;
    this.#rejectAdmitted(error);
    for (const request of this.#pending.values()) request.reject(error);
    this.#pending.clear();
    for (const resolve of this.#endSync.values()) resolve();
    this.#endSync.clear();
  }
}
