/** The peers' gRPC streams at the coordinator: what comes on them as events, and messages out. */
import { randomBytes } from "node:crypto";
import { Metadata, type ServerDuplexStream, status } from "@grpc/grpc-js";
import { PROTOCOL_VERSION } from "../base/limits.js";
import type { CoordinatorMessage, Envelope } from "../membership/messages.js";
import type { ConnectionId, CoordinatorEvent } from "../membership/state.js";
import type { CoordinatorMessage as WireCoordinatorMessage } from "./generated/pccl/v1/CoordinatorMessage.js";
import type { PeerMessage__Output } from "./generated/pccl/v1/PeerMessage.js";
import { PROTOCOL_HEADER } from "./service.js";
import { coordinatorMessageToWire, peerMessageFromWire } from "./wire.js";

/** Messages that may wait for a peer that doesn't read its stream. */
const UNSENT_MESSAGES_MAX = 1_024;
const SECRET_BYTES = 16;
/** Of a gRPC status, which travels in a header. */
const STATUS_CHARACTERS_MAX = 500;

/** How the stream of a refused peer ends, for clients that look at the status alone. */
const REFUSALS: Readonly<Record<string, status>> = {
  ERR_PCCL_INVALID_ARGUMENT: status.INVALID_ARGUMENT,
  ERR_PCCL_VERSION_MISMATCH: status.FAILED_PRECONDITION,
  ERR_PCCL_TIMEOUT: status.DEADLINE_EXCEEDED,
  ERR_PCCL_COORDINATOR_LOST: status.NOT_FOUND,
  ERR_PCCL_REMOVED: status.ABORTED,
};

export type PeerStream = ServerDuplexStream<PeerMessage__Output, WireCoordinatorMessage>;
export type StreamEvent = CoordinatorEvent & {
  readonly kind: "connected" | "message" | "invalid" | "disconnected";
};

interface Ending {
  readonly code: status;
  readonly details: string;
}

export class PeerStreams {
  readonly #onEvent: (event: StreamEvent) => void;
  readonly #streams = new Map<ConnectionId, { readonly stream: PeerStream; ending: Ending | undefined }>();
  #nextConnection: ConnectionId = 1;

  constructor(onEvent: (event: StreamEvent) => void) {
    this.#onEvent = onEvent;
  }

  /** Serves a new stream. */
  attend(stream: PeerStream): void {
    const connection = this.#nextConnection++;
    this.#streams.set(connection, { stream, ending: undefined });
    stream.on("data", (wire: PeerMessage__Output) => {
      if (this.#streams.has(connection)) this.#onData(connection, wire);
    });
    stream.on("cancelled", () => this.#gone(connection, "the connection was lost or cancelled"));
    stream.on("error", (error: Error) => this.#gone(connection, error.message));
    stream.on("end", () => {
      this.#gone(connection, "the peer ended it");
      stream.end();
    });
    // The peer learns at once that it talks to a coordinator, before anything is decided about it.
    const headers = new Metadata();
    headers.set(PROTOCOL_HEADER, String(PROTOCOL_VERSION));
    stream.sendMetadata(headers);
    const secret = Uint8Array.from(randomBytes(SECRET_BYTES));
    this.#onEvent({ kind: "connected", connection, address: hostOf(stream.getPeer()), secret });
  }

  send(connection: ConnectionId, envelope: Envelope<CoordinatorMessage>): void {
    const entry = this.#streams.get(connection);
    if (entry === undefined) return;
    const { stream } = entry;
    const { message } = envelope;
    stream.write(coordinatorMessageToWire(envelope));
    if (message.kind === "rejected") {
      entry.ending = { code: REFUSALS[message.code] ?? status.FAILED_PRECONDITION, details: message.message };
    } else if (message.kind === "removed") entry.ending = { code: status.ABORTED, details: message.reason };
    if (stream.writableLength <= UNSENT_MESSAGES_MAX) return;
    stream.destroy();
    this.#gone(connection, `the peer doesn't read: ${UNSENT_MESSAGES_MAX} messages are waiting`);
  }

  /** Ends the stream after what was sent on it; it causes no more events. */
  end(connection: ConnectionId): void {
    const entry = this.#streams.get(connection);
    if (entry === undefined) return;
    this.#streams.delete(connection);
    endWith(entry.stream, entry.ending);
  }

  /** Ends all streams; peers find a coordinator again later. */
  endAll(details: string): void {
    for (const { stream } of this.#streams.values()) endWith(stream, { code: status.UNAVAILABLE, details });
    this.#streams.clear();
  }

  /** Breaks the stream. */
  destroy(connection: ConnectionId): void {
    this.#streams.get(connection)?.stream.destroy();
  }

  #gone(connection: ConnectionId, reason: string): void {
    if (this.#streams.delete(connection)) this.#onEvent({ kind: "disconnected", connection, reason });
  }

  #onData(connection: ConnectionId, wire: PeerMessage__Output): void {
    let event: StreamEvent;
    try {
      event = { kind: "message", connection, ...peerMessageFromWire(wire) };
    } catch (error) {
      event = { kind: "invalid", connection, reason: error instanceof Error ? error.message : String(error) };
    }
    this.#onEvent(event);
  }
}

function endWith(stream: PeerStream, ending: Ending | undefined): void {
  if (ending === undefined) stream.end();
  // This is how grpc-js takes a status other than OK; what was written goes before it.
  else stream.emit("error", { ...ending, details: ending.details.slice(0, STATUS_CHARACTERS_MAX) });
}

/** The host in grpc's "host:port"; IPv4 in its plain form where it comes mapped into IPv6. */
function hostOf(peer: string): string {
  const host = peer.slice(0, peer.lastIndexOf(":")).replace(/^\[|\]$/g, "");
  return host.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "");
}
