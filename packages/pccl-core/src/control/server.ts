/**
 * The coordinator as a process sees it: a gRPC server, a clock and a log around the pure machine of
 * membership/coordinator.ts. One stream is one peer; what one stream does can't disturb another.
 */
import { randomBytes } from "node:crypto";
import { Metadata, Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { type Address, formatAddress, parseAddress } from "../base/address.js";
import { checkInteger, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { COORDINATOR_PORT, LEASE_DEFAULT_MS, LEASE_MAX_MS, LEASE_MIN_MS, PEERS_MAX } from "../base/limits.js";
import { step } from "../membership/coordinator.js";
import type { Endpoint } from "../membership/messages.js";
import {
  admittedPeers,
  type ConnectionId,
  type CoordinatorEffect,
  type CoordinatorEvent,
  type CoordinatorLog,
  type CoordinatorState,
  createCoordinator,
} from "../membership/state.js";
import type { Call } from "../membership/votes.js";
import type { CoordinatorMessage as WireCoordinatorMessage } from "./generated/pccl/v1/CoordinatorMessage.js";
import type { PeerMessage__Output } from "./generated/pccl/v1/PeerMessage.js";
import { describeLog, WARNINGS } from "./log.js";
import { CHANNEL_OPTIONS, membershipService } from "./service.js";
import { coordinatorMessageToWire, peerMessageFromWire } from "./wire.js";

/** Messages that may wait for a peer that doesn't read its stream. */
const UNSENT_MESSAGES_MAX = 1_024;
/** How long close() waits for the last messages to leave. */
const CLOSE_TIMEOUT_MS = 1_000;
const TICKS_PER_LEASE = 10;

/** What pino and others offer; `fields` is a CoordinatorLog. */
export interface CoordinatorLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface CoordinatorOptions {
  /** HOST:PORT to listen on; port 0: any free one. Default: 127.0.0.1 and the standard port. */
  readonly listen?: string;
  /** A peer that isn't heard for this long is dead. */
  readonly leaseMs?: number;
  /** Peers that must be there before the first world begins. */
  readonly minPeers?: number;
  /** Silent without. */
  readonly logger?: CoordinatorLogger;
}

/** One registered peer, as of the call. */
export interface PeerSnapshot {
  readonly peerId: number;
  readonly group: number;
  readonly endpoint: Endpoint;
  readonly phase: "pending" | "admitted";
  /** Milliseconds since the peer was last heard. */
  readonly silentMs: number;
  /** The collective call that the peer waits in for the others. */
  readonly waitsIn: Call["kind"] | undefined;
}

type Stream = ServerDuplexStream<PeerMessage__Output, WireCoordinatorMessage>;

export class Coordinator {
  /** Where it listens; the port is the real one. */
  readonly address: string;
  readonly host: string;
  readonly port: number;
  readonly #server: Server;
  readonly #state: CoordinatorState;
  readonly #logger: CoordinatorLogger | undefined;
  readonly #streams = new Map<ConnectionId, Stream>();
  readonly #ticker: NodeJS.Timeout;
  #nextConnection: ConnectionId = 1;
  #closed: Promise<void> | undefined;

  /** Binds, and serves until close(). Throws ERR_PCCL_LISTEN_FAILED when the address can't be had. */
  static async start(options: CoordinatorOptions = {}): Promise<Coordinator> {
    const call = "Coordinator.start";
    checkOptions(call, options, ["listen", "leaseMs", "minPeers", "logger"]);
    const {
      listen = `127.0.0.1:${COORDINATOR_PORT}`,
      leaseMs = LEASE_DEFAULT_MS,
      minPeers = 1,
      logger,
    } = options;
    const requested = parseAddress(call, listen, COORDINATOR_PORT);
    checkInteger(call, "leaseMs", leaseMs, LEASE_MIN_MS, LEASE_MAX_MS);
    checkInteger(call, "minPeers", minPeers, 1, PEERS_MAX);
    if (logger !== undefined && (typeof logger?.info !== "function" || typeof logger.warn !== "function")) {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${call}: logger must have the methods info and warn, got ${describe(logger)}.`,
      );
    }
    const server = new Server({
      ...CHANNEL_OPTIONS,
      // Ends connections that nobody answers on, also those that never open a stream.
      "grpc.keepalive_time_ms": LEASE_DEFAULT_MS * 2,
      "grpc.keepalive_timeout_ms": LEASE_DEFAULT_MS * 2,
      // Two coordinators on one port would each see half of the peers.
      "grpc.so_reuseport": 0,
    });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(formatAddress(requested), ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound);
        else {
          reject(
            pcclError(
              "ERR_PCCL_LISTEN_FAILED",
              `${call}: can't listen on ${formatAddress(requested)}: ${error.message}.`,
              { cause: error },
            ),
          );
        }
      });
    });
    const key = Uint8Array.from(randomBytes(16));
    const state = createCoordinator({ leaseMs, minPeers, peersMax: PEERS_MAX, key });
    return new Coordinator(server, { host: requested.host, port }, state, logger);
  }

  private constructor(
    server: Server,
    { host, port }: Address,
    state: CoordinatorState,
    logger: CoordinatorLogger | undefined,
  ) {
    this.host = host;
    this.port = port;
    this.address = formatAddress({ host, port });
    this.#server = server;
    this.#state = state;
    this.#logger = logger;
    server.addService(membershipService.service, { Attend: (stream: Stream) => this.#attend(stream) });
    this.#ticker = setInterval(() => this.#step({ kind: "tick" }), state.config.leaseMs / TICKS_PER_LEASE);
  }

  /** Registered peers in the order in which they came. */
  peers(): PeerSnapshot[] {
    const nowMs = performance.now();
    return [...this.#state.peers.values()].map(({ id, group, endpoint, phase, heardAtMs, call }) => ({
      peerId: id,
      group,
      endpoint: { ...endpoint },
      phase,
      silentMs: Math.max(0, nowMs - heardAtMs),
      waitsIn: call?.kind,
    }));
  }

  /** Admitted peers over all groups. */
  get worldSize(): number {
    return admittedPeers(this.#state).length;
  }

  /** Of the installed view; 0 while there is none. */
  get epoch(): number {
    return this.#state.installedEpoch;
  }

  /** Tells every peer, ends their streams and frees the port. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#shutDown();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #shutDown(): Promise<void> {
    clearInterval(this.#ticker);
    this.#step({ kind: "shutdown" });
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.forceShutdown();
        resolve();
      }, CLOSE_TIMEOUT_MS);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #attend(stream: Stream): void {
    const connection = this.#nextConnection++;
    this.#streams.set(connection, stream);
    const gone = (reason: string): void => {
      if (this.#streams.delete(connection)) this.#step({ kind: "disconnected", connection, reason });
    };
    stream.on("data", (wire: PeerMessage__Output) => this.#onData(connection, wire));
    stream.on("cancelled", () => gone("the connection was lost or cancelled"));
    stream.on("error", (error: Error) => gone(error.message));
    stream.on("end", () => {
      gone("the peer ended it");
      stream.end();
    });
    // The peer learns at once that it talks to a coordinator, before anything is decided about it.
    stream.sendMetadata(new Metadata());
    this.#step({ kind: "connected", connection, address: hostOf(stream.getPeer()) });
  }

  #onData(connection: ConnectionId, wire: PeerMessage__Output): void {
    let event: CoordinatorEvent;
    try {
      event = { kind: "message", connection, message: peerMessageFromWire(wire) };
    } catch (error) {
      event = { kind: "invalid", connection, reason: error instanceof Error ? error.message : String(error) };
    }
    this.#step(event);
  }

  #step(event: CoordinatorEvent): void {
    const overloaded: ConnectionId[] = [];
    for (const effect of this.#effectsOf(event)) {
      switch (effect.kind) {
        case "send": {
          const stream = this.#streams.get(effect.connection);
          stream?.write(coordinatorMessageToWire(effect.message));
          if (stream !== undefined && stream.writableLength > UNSENT_MESSAGES_MAX) {
            overloaded.push(effect.connection);
          }
          break;
        }
        case "end":
          this.#streams.get(effect.connection)?.end();
          this.#streams.delete(effect.connection);
          break;
        case "log":
          this.#log(effect.log);
          break;
      }
    }
    for (const connection of overloaded) {
      const stream = this.#streams.get(connection);
      if (!this.#streams.delete(connection)) continue;
      stream?.destroy();
      const reason = `it doesn't read: ${UNSENT_MESSAGES_MAX} messages are waiting`;
      this.#step({ kind: "disconnected", connection, reason });
    }
  }

  /** A bug in a step may cost the peer whose event it was, by its lease at the latest, but not the others. */
  #effectsOf(event: CoordinatorEvent): CoordinatorEffect[] {
    try {
      return step(this.#state, event, performance.now());
    } catch (error) {
      this.#logger?.warn({ event: "bug", error }, `the coordinator failed in an event of kind ${event.kind}`);
      if ("connection" in event) this.#streams.get(event.connection)?.destroy();
      return [];
    }
  }

  #log(entry: CoordinatorLog): void {
    const level = WARNINGS.has(entry.event) ? "warn" : "info";
    this.#logger?.[level](entry, describeLog(entry));
  }
}

/** The host in grpc's "host:port"; IPv4 in its plain form where it comes mapped into IPv6. */
function hostOf(peer: string): string {
  const host = peer.slice(0, peer.lastIndexOf(":")).replace(/^\[|\]$/g, "");
  return host.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "");
}
