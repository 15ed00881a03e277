/**
 * The peer's gRPC stream to the coordinator: reaches it, carries messages both ways, says when it ends, and makes
 * another one when asked. Only the latest stream is heard.
 */
import {
  type ClientDuplexStream,
  credentials,
  type Metadata,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import type { SessionError } from "../membership/session-protocol.js";
import type { CoordinatorMessage, Envelope, PeerMessage } from "../membership/messages.js";
import type { CoordinatorMessage__Output } from "./generated/pccl/v1/CoordinatorMessage.js";
import type { PeerMessage as WirePeerMessage } from "./generated/pccl/v1/PeerMessage.js";
import { CHANNEL_OPTIONS, membershipService, PROTOCOL_HEADER } from "./service.js";
import { coordinatorMessageFromWire, peerMessageToWire } from "./wire.js";

/** Pauses between attempts to reach the coordinator. While a restarted one is without its peers, no call ends. */
const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 250;
/** An attempt that gets no answer for this long is given up for another one. */
const ATTEMPT_TIMEOUT_MS = 5_000;

/** Statuses with which networks and dying servers end a stream; any other one is somebody's answer. */
const TRANSIENT: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.INTERNAL,
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
]);

export interface ControlClientHooks {
  /** The coordinator has accepted a stream; messages can be sent from now on. */
  onConnected(): void;
  onMessage(envelope: Envelope<CoordinatorMessage>): void;
  /** The stream ended after onConnected. */
  onDetached(reason: string): void;
  /** No coordinator was reached in time, or what answers there is none. Nothing follows. */
  onFailed(error: SessionError): void;
}

export interface ControlClientOptions {
  /** HOST:PORT. */
  readonly address: string;
  /** How long to keep trying until the coordinator accepts the first stream. */
  readonly connectTimeoutMs: number;
}

type Client = InstanceType<typeof membershipService>;

/** One attempt at a stream, and the stream if it succeeds. */
interface Attempt {
  readonly stream: ClientDuplexStream<WirePeerMessage, CoordinatorMessage__Output>;
  readonly timer: NodeJS.Timeout;
  connected: boolean;
}

export class ControlClient {
  readonly #options: ControlClientOptions;
  readonly #hooks: ControlClientHooks;
  readonly #startedAtMs = performance.now();
  #client: Client | undefined;
  #attempt: Attempt | undefined;
  /** There has been a stream. */
  #reached = false;
  #over = false;
  #retryMs = RETRY_MIN_MS;
  #retryTimer: NodeJS.Timeout | undefined;
  readonly #deadlineTimer: NodeJS.Timeout;
  #lastReason = "no answer";

  /** Begins to make the first stream. */
  constructor(options: ControlClientOptions, hooks: ControlClientHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.#deadlineTimer = setTimeout(() => this.#unreachable(), options.connectTimeoutMs);
    this.#try();
  }

  /** Lets go of the stream there is, and tries to make another one until there is one, or the end. */
  connect(): void {
    this.#drop();
    this.#closeClient();
    this.#retryMs = RETRY_MIN_MS;
    this.#try();
  }

  send(envelope: Envelope<PeerMessage>): void {
    // A stream that has failed says so by its own event; writing to it then is not another error.
    this.#attempt?.stream.write(peerMessageToWire(envelope));
  }

  /** Ends the stream after what was sent on it; onDetached follows when the coordinator has ended it too. */
  end(): void {
    if (this.#attempt?.connected === true) this.#attempt.stream.end();
    else this.close();
  }

  /** Lets go of everything at once; no hook is called any more. */
  close(): void {
    this.#over = true;
    clearTimeout(this.#deadlineTimer);
    this.#drop();
    this.#closeClient();
  }

  #try(): void {
    if (this.#over) return;
    this.#client ??= new membershipService(this.#options.address, credentials.createInsecure(), {
      ...CHANNEL_OPTIONS,
      "grpc.initial_reconnect_backoff_ms": RETRY_MIN_MS,
      "grpc.max_reconnect_backoff_ms": RETRY_MAX_MS,
    });
    const stream = this.#client.attend();
    const timer = setTimeout(() => {
      // The way there may have changed, and this connection may be stuck in the old one.
      this.#closeClient();
      this.#onEnd(attempt, "no answer");
    }, ATTEMPT_TIMEOUT_MS);
    const attempt: Attempt = { stream, timer, connected: false };
    this.#attempt = attempt;
    stream.on("metadata", (headers: Metadata) => {
      if (this.#attempt !== attempt) return;
      if (headers.get(PROTOCOL_HEADER).length === 0) {
        this.#lastReason = "something else answers there";
        return this.#notACoordinator();
      }
      attempt.connected = true;
      this.#reached = true;
      clearTimeout(timer);
      clearTimeout(this.#deadlineTimer);
      this.#hooks.onConnected();
    });
    stream.on("data", (wire: CoordinatorMessage__Output) => {
      if (this.#attempt === attempt) this.#onData(wire);
    });
    // The status comes once, whatever happened, and after all messages; "error" only says the same again.
    stream.on("status", ({ code, details }: StatusObject) => {
      // grpc-js appends advice that has nothing to say here.
      const reason = details.replace(/\s*Resolution note:.*$/s, "").replace(/\.$/, "");
      this.#onEnd(attempt, code === status.OK ? "the coordinator ended it" : reason, code);
    });
    stream.on("error", () => {});
  }

  #onData(wire: CoordinatorMessage__Output): void {
    let envelope: Envelope<CoordinatorMessage>;
    try {
      envelope = coordinatorMessageFromWire(wire);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return this.#fail({
        code: "ERR_PCCL_INTERNAL",
        message: `The coordinator sent a message that breaks the protocol: ${reason}.`,
      });
    }
    this.#hooks.onMessage(envelope);
  }

  #onEnd(attempt: Attempt, reason: string, code: status = status.UNAVAILABLE): void {
    if (this.#attempt !== attempt) return;
    this.#drop();
    if (attempt.connected) return this.#hooks.onDetached(reason);
    this.#lastReason = reason;
    if (!TRANSIENT.has(code)) return this.#notACoordinator();
    this.#retryTimer = setTimeout(() => this.#try(), this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS);
  }

  #drop(): void {
    clearTimeout(this.#retryTimer);
    const attempt = this.#attempt;
    this.#attempt = undefined;
    if (attempt === undefined) return;
    clearTimeout(attempt.timer);
    attempt.stream.cancel();
  }

  /**
   * Only for a channel that can't be used any more: one that is closed between two attempts of its own to connect
   * goes on with them, and nobody would ever close what it gets then (grpc-js 1.14).
   */
  #closeClient(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  #unreachable(): void {
    const afterMs = Math.round(performance.now() - this.#startedAtMs);
    this.#fail({
      code: "ERR_PCCL_COORDINATOR_UNREACHABLE",
      message: `connect: the coordinator at ${this.#options.address} could not be reached within ${afterMs} ms: ${this.#lastReason}.`,
    });
  }

  /** Something else answers there: trying again won't help. */
  #notACoordinator(): void {
    if (!this.#reached) return this.#unreachable();
    this.#fail({
      code: "ERR_PCCL_COORDINATOR_LOST",
      message: `What answers at ${this.#options.address} now is not the coordinator: ${this.#lastReason}.`,
    });
  }

  #fail(error: SessionError): void {
    this.close();
    this.#hooks.onFailed(error);
  }
}
