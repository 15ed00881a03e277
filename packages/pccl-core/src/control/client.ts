/** The peer's gRPC stream to the coordinator: reaches it, carries messages both ways, and says once when it ends. */
import { type ClientDuplexStream, credentials, type StatusObject, status } from "@grpc/grpc-js";
import type { SessionError } from "../membership/session-protocol.js";
import type { CoordinatorMessage, PeerMessage } from "../membership/messages.js";
import type { CoordinatorMessage__Output } from "./generated/pccl/v1/CoordinatorMessage.js";
import type { PeerMessage as WirePeerMessage } from "./generated/pccl/v1/PeerMessage.js";
import { CHANNEL_OPTIONS, membershipService } from "./service.js";
import { coordinatorMessageFromWire, peerMessageToWire } from "./wire.js";

/** Pauses between attempts to reach the coordinator. */
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 2_000;

export interface ControlClientHooks {
  /** The coordinator has accepted the stream; messages can be sent from now on. */
  onConnected(): void;
  onMessage(message: CoordinatorMessage): void;
  /** The stream ended after onConnected. */
  onDisconnected(reason: string): void;
  /** No stream could be made, or what came on it isn't the protocol. Nothing follows. */
  onFailed(error: SessionError): void;
}

export interface ControlClientOptions {
  /** HOST:PORT. */
  readonly address: string;
  /** How long to keep trying until the coordinator accepts the stream. */
  readonly connectTimeoutMs: number;
}

type Stream = ClientDuplexStream<WirePeerMessage, CoordinatorMessage__Output>;

export class ControlClient {
  readonly #options: ControlClientOptions;
  readonly #hooks: ControlClientHooks;
  readonly #client: InstanceType<typeof membershipService>;
  readonly #startedAtMs = performance.now();
  #stream: Stream | undefined;
  #connected = false;
  #over = false;
  #retryMs = RETRY_MIN_MS;
  #retryTimer: NodeJS.Timeout | undefined;
  readonly #deadlineTimer: NodeJS.Timeout;
  #lastReason = "no answer";

  constructor(options: ControlClientOptions, hooks: ControlClientHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.#client = new membershipService(options.address, credentials.createInsecure(), {
      ...CHANNEL_OPTIONS,
      "grpc.initial_reconnect_backoff_ms": RETRY_MIN_MS,
      "grpc.max_reconnect_backoff_ms": RETRY_MAX_MS,
    });
    this.#deadlineTimer = setTimeout(() => this.#unreachable(), options.connectTimeoutMs);
    this.#attend();
  }

  send(message: PeerMessage): void {
    // A stream that has failed says so by its own event; writing to it then is not another error.
    if (!this.#over) this.#stream?.write(peerMessageToWire(message));
  }

  /** Ends the stream after what was sent; onDisconnected follows when the coordinator has ended it too. */
  end(): void {
    if (this.#connected) this.#stream?.end();
    else this.close();
  }

  /** Lets go of everything at once; no hook is called any more. */
  close(): void {
    this.#over = true;
    clearTimeout(this.#deadlineTimer);
    clearTimeout(this.#retryTimer);
    this.#stream?.cancel();
    this.#client.close();
  }

  #attend(): void {
    const stream = this.#client.attend();
    this.#stream = stream;
    stream.on("metadata", () => {
      if (this.#over) return;
      this.#connected = true;
      clearTimeout(this.#deadlineTimer);
      this.#hooks.onConnected();
    });
    stream.on("data", (wire: CoordinatorMessage__Output) => {
      if (!this.#over) this.#onData(wire);
    });
    // The status comes once, whatever happened, and after all messages; "error" only says the same again.
    stream.on("status", (end: StatusObject) => this.#onEnd(end));
    stream.on("error", () => {});
  }

  #onData(wire: CoordinatorMessage__Output): void {
    let message: CoordinatorMessage;
    try {
      message = coordinatorMessageFromWire(wire);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return this.#fail({
        code: "ERR_PCCL_INTERNAL",
        message: `The coordinator sent a message that breaks the protocol: ${reason}.`,
      });
    }
    this.#hooks.onMessage(message);
  }

  #onEnd({ code, details }: StatusObject): void {
    if (this.#over) return;
    if (this.#connected) {
      this.close();
      this.#hooks.onDisconnected(code === status.OK ? "the coordinator ended it" : details);
      return;
    }
    // grpc-js appends advice that has nothing to say here.
    this.#lastReason = details.replace(/\s*Resolution note:.*$/s, "").replace(/\.$/, "");
    if (code !== status.UNAVAILABLE) {
      // Something answers there, and it isn't a coordinator: trying again won't help.
      this.#unreachable();
      return;
    }
    this.#retryTimer = setTimeout(() => this.#attend(), this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS);
  }

  #unreachable(): void {
    const afterMs = Math.round(performance.now() - this.#startedAtMs);
    this.#fail({
      code: "ERR_PCCL_COORDINATOR_UNREACHABLE",
      message: `connect: the coordinator at ${this.#options.address} could not be reached within ${afterMs} ms: ${this.#lastReason}.`,
    });
  }

  #fail(error: SessionError): void {
    this.close();
    this.#hooks.onFailed(error);
  }
}
