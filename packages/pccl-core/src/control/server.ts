/**
 * The coordinator as a process sees it: a gRPC server, a clock and a log around the pure machine of
 * membership/coordinator.ts, and its journal if it is to outlive its process. One stream is one peer; what one
 * stream does can't disturb another.
 */
import { randomBytes } from "node:crypto";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { type Address, formatAddress, parseAddress } from "../base/address.js";
import { checkInteger, checkOptions, describe } from "../base/check.js";
import { type PcclError, pcclError } from "../base/errors.js";
import { COORDINATOR_PORT, LEASE_DEFAULT_MS, LEASE_MAX_MS, LEASE_MIN_MS, PEERS_MAX } from "../base/limits.js";
import type { Call } from "../membership/calls.js";
import type { Endpoint } from "../membership/messages.js";
import {
  type CoordinatorConfig,
  type CoordinatorEffect,
  type CoordinatorState,
  createCoordinator,
} from "../membership/state.js";
import { type Restored, StateDirectory } from "./journal.js";
import { describeLog, describeRestored, WARNINGS } from "./log.js";
import { MachineRunner } from "./machine-runner.js";
import { type PeerStream, PeerStreams } from "./peer-streams.js";
import { probe } from "./probe.js";
import { CHANNEL_OPTIONS, membershipService } from "./service.js";

/** How long close() waits for the last messages to leave. */
const CLOSE_TIMEOUT_MS = 1_000;
const TICKS_PER_LEASE = 10;
const KEY_BYTES = 16;

/** What pino and others offer; `fields` is a CoordinatorLog or a RestoredLog. */
export interface CoordinatorLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface CoordinatorOptions {
  /** HOST:PORT to listen on; port 0: any free one. Default: 127.0.0.1 and the standard port. */
  readonly listen?: string;
  /** A peer that isn't heard for this long is dead. With peers in `stateDir`: the lease that these were told. */
  readonly leaseMs?: number;
  /** Peers that must be there before the first world begins. */
  readonly minPeers?: number;
  /**
   * A directory, made if it isn't there, in which the coordinator keeps what it knows. One that is started on it
   * later goes on from there, however the last one ended. Without it the world ends with the coordinator.
   */
  readonly stateDir?: string;
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

export class Coordinator {
  /**
   * Settles when the coordinator has ended: resolves after close(), rejects with ERR_PCCL_JOURNAL_FAILED when it
   * ended because its state directory could not be written any more.
   */
  readonly stopped: Promise<void>;
  readonly #logger: CoordinatorLogger | undefined;
  readonly #directory: StateDirectory | undefined;
  readonly #runner: MachineRunner;
  readonly #streams: PeerStreams;
  readonly #server: Server;
  #address: Address = { host: "", port: 0 };
  #ticker: NodeJS.Timeout | undefined;
  #ending: Promise<void> | undefined;
  #resolveStopped!: () => void;
  #rejectStopped!: (error: PcclError) => void;

  /**
   * Binds, and serves until close(). Throws ERR_PCCL_LISTEN_FAILED when the address can't be had; with `stateDir`
   * also ERR_PCCL_JOURNAL_IN_USE, ERR_PCCL_JOURNAL_UNREADABLE or ERR_PCCL_JOURNAL_FAILED.
   */
  static async start(options: CoordinatorOptions = {}): Promise<Coordinator> {
    const address = checkedAddress(options);
    const { logger, stateDir } = options;
    if (stateDir === undefined) {
      const coordinator = new Coordinator(createCoordinator(configOf(options)), 0, logger);
      await coordinator.#listen(address);
      return coordinator;
    }
    const directory = await StateDirectory.open(stateDir);
    let coordinator: Coordinator | undefined;
    try {
      const restored = await directory.restore();
      const config = configOf(options, restored?.state);
      const state = restored === undefined ? createCoordinator(config) : { ...restored.state, config };
      coordinator = new Coordinator(state, restored?.nowMs ?? 0, logger, directory);
      await coordinator.#runner.record(directory);
      if (restored !== undefined) coordinator.#goOn(restored);
      await coordinator.#listen(address);
      return coordinator;
    } catch (error) {
      if (coordinator !== undefined) await coordinator.#runner.stop();
      await directory.release();
      throw error;
    }
  }

  private constructor(
    state: CoordinatorState,
    nowMs: number,
    logger: CoordinatorLogger | undefined,
    directory?: StateDirectory,
  ) {
    this.#logger = logger;
    this.#directory = directory;
    this.stopped = new Promise((resolve, reject) => {
      this.#resolveStopped = resolve;
      this.#rejectStopped = reject;
    });
    // Whoever doesn't look at it is told by the log.
    this.stopped.catch(() => {});
    this.#runner = new MachineRunner(state, nowMs, {
      carryOut: (effect) => this.#carryOut(effect),
      onBug: (event, error) => {
        // It may cost the peer whose event it was, by its lease at the latest, but not the others.
        logger?.warn({ event: "bug", error }, `the coordinator failed in an event of kind ${event.kind}`);
        if ("connection" in event) this.#streams.destroy(event.connection);
      },
      onFailed: (error) => {
        logger?.warn({ event: "journal-failed", error }, error.message);
        this.#ending ??= this.#end(error);
      },
    });
    this.#streams = new PeerStreams((event) => this.#runner.step(event));
    this.#server = new Server({
      ...CHANNEL_OPTIONS,
      // Ends connections that nobody answers on, also those that never open a stream.
      "grpc.keepalive_time_ms": LEASE_DEFAULT_MS * 2,
      "grpc.keepalive_timeout_ms": LEASE_DEFAULT_MS * 2,
      // Two coordinators on one port would each see half of the peers.
      "grpc.so_reuseport": 0,
    });
    this.#server.addService(membershipService.service, {
      Attend: (stream: PeerStream) => this.#streams.attend(stream),
    });
  }

  get host(): string {
    return this.#address.host;
  }

  /** The real one. */
  get port(): number {
    return this.#address.port;
  }

  /** Where it listens, as HOST:PORT. */
  get address(): string {
    return formatAddress(this.#address);
  }

  /** Registered peers in the order in which they came. */
  peers(): PeerSnapshot[] {
    const { state, nowMs } = this.#runner;
    return [...state.peers.values()].map(({ id, group, endpoint, phase, heardAtMs, call }) => ({
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
    return this.#runner.state.total.members;
  }

  /** Of the installed view; 0 while there is none. */
  get epoch(): number {
    return this.#runner.state.installedEpoch;
  }

  /**
   * Ends the streams and frees the port. With `stateDir` the world stays: its peers wait for the next coordinator
   * on the directory. Without, every peer is told that the world ends. Idempotent.
   */
  close(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #listen({ host, port }: Address): Promise<void> {
    const address = formatAddress({ host, port });
    const bound = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, boundPort) => {
        if (error === null) return resolve(boundPort);
        const message = `Coordinator.start: can't listen on ${address}: ${error.message}.`;
        reject(pcclError("ERR_PCCL_LISTEN_FAILED", message, { cause: error }));
      });
    });
    this.#address = { host, port: bound };
    const { leaseMs } = this.#runner.state.config;
    this.#ticker = setInterval(() => this.#runner.step({ kind: "tick" }), leaseMs / TICKS_PER_LEASE);
  }

  /** Carries on the world of an earlier coordinator. */
  #goOn(restored: Restored): void {
    this.#logger?.info(...describeRestored(restored));
    this.#runner.step({ kind: "restarted" });
  }

  async #end(error?: PcclError): Promise<void> {
    clearInterval(this.#ticker);
    if (this.#directory === undefined) this.#runner.shutDown();
    await this.#runner.stop();
    this.#streams.endAll(error?.reason ?? "the coordinator has stopped, and may come back");
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
    await this.#directory?.release();
    if (error === undefined) this.#resolveStopped();
    else this.#rejectStopped(error);
  }

  #carryOut(effect: CoordinatorEffect): void {
    switch (effect.kind) {
      case "send":
        return this.#streams.send(effect.connection, effect);
      case "end":
        return this.#streams.end(effect.connection);
      case "probe": {
        const { peerId, endpoint } = effect;
        void probe(endpoint).then((result) => this.#runner.step({ kind: "probed", peerId, result }));
        return;
      }
      case "log": {
        const level = WARNINGS.has(effect.log.event) ? "warn" : "info";
        this.#logger?.[level](effect.log, describeLog(effect.log));
      }
    }
  }
}

/** Checks all options; throws before anything has happened. */
function checkedAddress(options: CoordinatorOptions): Address {
  const call = "Coordinator.start";
  checkOptions(call, options, ["listen", "leaseMs", "minPeers", "stateDir", "logger"]);
  const { listen = `127.0.0.1:${COORDINATOR_PORT}`, leaseMs, minPeers, stateDir, logger } = options;
  if (leaseMs !== undefined) checkInteger(call, "leaseMs", leaseMs, LEASE_MIN_MS, LEASE_MAX_MS);
  if (minPeers !== undefined) checkInteger(call, "minPeers", minPeers, 1, PEERS_MAX);
  if (stateDir !== undefined && (typeof stateDir !== "string" || stateDir === "")) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: stateDir must be the path of a directory, got ${describe(stateDir)}.`,
    );
  }
  if (logger !== undefined && (typeof logger?.info !== "function" || typeof logger.warn !== "function")) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: logger must have the methods info and warn, got ${describe(logger)}.`,
    );
  }
  return parseAddress(call, listen, COORDINATOR_PORT);
}

/** What the options leave open is as it was, or has its default. */
function configOf({ leaseMs, minPeers }: CoordinatorOptions, before?: CoordinatorState): CoordinatorConfig {
  const told = before?.config.leaseMs;
  if (before !== undefined && before.peers.size > 0 && leaseMs !== undefined && leaseMs !== told) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `Coordinator.start: leaseMs is ${leaseMs}, but the ${before.peers.size} peers in the state directory were ` +
        `told a lease of ${told} ms and send their heartbeats by it; leave leaseMs out or give ${told}.`,
    );
  }
  return {
    leaseMs: leaseMs ?? told ?? LEASE_DEFAULT_MS,
    minPeers: minPeers ?? before?.config.minPeers ?? 1,
    peersMax: PEERS_MAX,
    key: before?.config.key ?? Uint8Array.from(randomBytes(KEY_BYTES)),
  };
}
