/**
 * A peer of the control plane without a data plane: the shipped session machine and gRPC stream, an engine that is
 * always ready, and a data port that only answers. A thousand of them fit in one process, to load a coordinator.
 */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { formatAddress, parseAddress } from "../base/address.js";
import { checkInteger, checkOptions } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { COORDINATOR_PORT, GROUP_MAX } from "../base/limits.js";
import { ControlClient } from "../control/client.js";
import {
  createSession,
  type SessionEffect,
  type SessionEvent,
  type SessionState,
  stepSession,
  tickIntervalMs,
} from "../membership/session.js";
import type { SessionNotice } from "../membership/session-protocol.js";

const CONNECT_TIMEOUT_MS = 60_000;
const COORDINATOR_TIMEOUT_MS = 60_000;

export interface EnginelessPeerOptions {
  /** Default 0. */
  readonly group?: number;
}

type Vote = "has-pending-peers" | "update-topology";

interface Waiting {
  readonly resolve: (value: boolean) => void;
  readonly reject: (error: Error) => void;
}

export class EnginelessPeer {
  /** Resolves when the coordinator knows the peer, and it waits for consent. */
  readonly pending: Promise<number>;
  /** Resolves with the first view that holds it. */
  readonly admitted: Promise<void>;
  /** Why it is out, if it is. */
  ended: string | undefined;
  /** Messages both ways, heartbeats included. */
  messagesSent = 0;
  messagesReceived = 0;
  readonly #dataPort: Server;
  readonly #sockets: ReadonlySet<Socket>;
  readonly #session: SessionState;
  readonly #client: ControlClient;
  readonly #waiting = new Map<number, Waiting>();
  #onPending!: (peerId: number) => void;
  #onAdmitted!: () => void;
  #nextId = 1;
  #ticker: NodeJS.Timeout | undefined;

  /** Opens its data port, and begins to register with the coordinator at HOST:PORT. */
  static async start(address: string, options: EnginelessPeerOptions = {}): Promise<EnginelessPeer> {
    const call = "EnginelessPeer.start";
    checkOptions(call, options, ["group"]);
    const coordinator = formatAddress(parseAddress(call, address, COORDINATOR_PORT));
    const group = checkInteger(call, "group", options.group ?? 0, 0, GROUP_MAX);
    // The coordinator asks there whether the peer lives.
    const sockets = new Set<Socket>();
    const dataPort = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => sockets.delete(socket));
      socket.resume();
    });
    dataPort.listen(0, "127.0.0.1");
    await once(dataPort, "listening");
    return new EnginelessPeer(coordinator, group, dataPort, sockets);
  }

  private constructor(coordinator: string, group: number, dataPort: Server, sockets: ReadonlySet<Socket>) {
    this.#dataPort = dataPort;
    this.#sockets = sockets;
    this.pending = new Promise((resolve) => {
      this.#onPending = resolve;
    });
    this.admitted = new Promise((resolve) => {
      this.#onAdmitted = resolve;
    });
    const advertise = { host: "127.0.0.1", port: (dataPort.address() as AddressInfo).port };
    this.#session = createSession({
      group,
      advertise,
      hostId: "",
      coordinatorTimeoutMs: COORDINATOR_TIMEOUT_MS,
    });
    this.#client = new ControlClient(
      { address: coordinator, connectTimeoutMs: CONNECT_TIMEOUT_MS },
      {
        onConnected: () => this.#step({ kind: "connected" }),
        onMessage: (envelope) => {
          this.messagesReceived++;
          this.#step({ kind: "message", ...envelope });
        },
        onDetached: (reason) => this.#step({ kind: "detached", reason }),
        onFailed: (error) => this.#step({ kind: "failed", error }),
      },
    );
    this.#scheduleTick();
  }

  hasPendingPeers(): Promise<boolean> {
    return this.#request("has-pending-peers");
  }

  updateTopology(): Promise<boolean> {
    return this.#request("update-topology");
  }

  /** Says goodbye; the stream ends when the coordinator has heard it. */
  leave(): void {
    this.#step({ kind: "request", request: { id: this.#nextId++, kind: "leave" } });
  }

  /** As if the process had been killed: the stream ends, and nothing is said. */
  kill(): void {
    this.#end("killed");
  }

  #request(kind: Vote): Promise<boolean> {
    if (this.ended !== undefined) return Promise.reject(this.#closed());
    const id = this.#nextId++;
    const answer = new Promise<boolean>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#step({ kind: "request", request: { id, kind } });
    return answer;
  }

  #scheduleTick(): void {
    this.#ticker = setTimeout(() => {
      this.#step({ kind: "tick" });
      if (this.ended === undefined) this.#scheduleTick();
    }, tickIntervalMs(this.#session));
  }

  #step(event: SessionEvent): void {
    if (this.ended !== undefined) return;
    for (const effect of stepSession(this.#session, event, performance.now())) this.#carryOut(effect);
  }

  #carryOut(effect: SessionEffect): void {
    switch (effect.kind) {
      case "send":
        this.messagesSent++;
        return this.#client.send(effect);
      case "connect":
        return this.#client.connect();
      case "end":
        return this.#client.end();
      case "engine-prepare":
        // In a step of its own, as an engine's answer comes.
        setImmediate(() => this.#step({ kind: "prepared", epoch: effect.view.epoch, failures: [], ops: [] }));
        return;
      case "engine-abort": {
        const { epoch, tag, seq } = effect;
        setImmediate(() => this.#step({ kind: "abort-answered", epoch, tag, seq, aborted: false }));
        return;
      }
      case "engine-measure": {
        const { measurementId } = effect;
        const result = { reason: "this peer has no data plane" };
        setImmediate(() => this.#step({ kind: "measured", measurementId, result }));
        return;
      }
      case "engine-install":
      case "engine-set-world":
        return;
      case "notify":
        return this.#onNotice(effect.notice);
    }
  }

  #onNotice(notice: SessionNotice): void {
    switch (notice.kind) {
      case "reply": {
        const waiting = this.#waiting.get(notice.id);
        this.#waiting.delete(notice.id);
        if ("error" in notice) waiting?.reject(new Error(`${notice.error.code}: ${notice.error.message}`));
        // Only votes are waited for.
        else waiting?.resolve(notice.value as boolean);
        if (this.#session.phase === "ended") this.#end("left");
        return;
      }
      case "pending":
        return this.#onPending(notice.peerId);
      case "admitted":
        return this.#onAdmitted();
      case "ended":
        return this.#end(`${notice.error.code}: ${notice.error.message}`);
      case "installed":
      case "sync-failed":
      case "sync-ended":
        return;
    }
  }

  #end(reason: string): void {
    if (this.ended !== undefined) return;
    this.ended = reason;
    clearTimeout(this.#ticker);
    this.#client.close();
    this.#dataPort.close();
    for (const socket of this.#sockets) socket.destroy();
    for (const { reject } of this.#waiting.values()) {
      reject(this.#closed());
    }
    this.#waiting.clear();
  }

  #closed(): Error {
    return pcclError("ERR_PCCL_CLOSED", `The engineless peer is out: ${this.ended}.`);
  }
}
