/** The main thread's side of the control session: starts its worker thread, and turns replies into promises. */
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { isPcclErrorCode, type PcclError, pcclError } from "../base/errors.js";
import type {
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
  /** Registered; waiting for the members' consent. */
  onPending(peerId: number): void;
  /** The session is over, and not because of close(). */
  onEnded(error: PcclError): void;
}

export class ControlSession {
  /** Resolves with this peer's id once the first view that holds it is installed. */
  readonly admitted: Promise<number>;
  readonly #worker: Worker;
  readonly #hooks: ControlSessionHooks;
  readonly #pending = new Map<number, PendingRequest>();
  #resolveAdmitted!: (peerId: number) => void;
  #rejectAdmitted!: (error: PcclError) => void;
  #nextId = 1;
  #ended: PcclError | undefined;

  constructor(data: SessionWorkerData, hooks: ControlSessionHooks) {
    this.#hooks = hooks;
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

  /** Sends one request. While requests are open, and until admission, the thread keeps the process alive. */
  async request<K extends keyof SessionReplies>(body: RequestBody & { kind: K }): Promise<SessionReplies[K]> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#nextId++;
    const reply = new Promise<SessionReplies[keyof SessionReplies]>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
    });
    this.#worker.ref();
    this.#worker.postMessage({ ...body, id });
    try {
      return (await reply) as SessionReplies[K];
    } finally {
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

  #onNotice(notice: SessionNotice): void {
    switch (notice.kind) {
      case "reply": {
        const request = this.#pending.get(notice.id);
        this.#pending.delete(notice.id);
        if ("error" in notice) request?.reject(sessionError(notice.error));
        else request?.resolve(notice.value);
        return;
      }
      case "pending":
        return this.#hooks.onPending(notice.peerId);
      case "admitted":
        return this.#resolveAdmitted(notice.peerId);
      case "ended":
        return this.#end(sessionError(notice.error));
      case "installed":
        return;
    }
  }

  #end(error: PcclError): void {
    if (this.#ended !== undefined) return;
    this.#fail(error);
    this.#hooks.onEnded(error);
  }

  #fail(error: PcclError): void {
    this.#ended ??= error;
    this.#rejectAdmitted(error);
    for (const request of this.#pending.values()) request.reject(error);
    this.#pending.clear();
  }
}

function sessionError({ code, message, peerId }: SessionError): PcclError {
  return pcclError(isPcclErrorCode(code) ? code : "ERR_PCCL_INTERNAL", message, { peerId });
}
