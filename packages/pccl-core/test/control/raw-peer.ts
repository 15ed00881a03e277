/**
 * A peer of the control plane without an engine: the shipped gRPC client, with messages written by the test and
 * answers collected for it. What it doesn't do by itself, such as heartbeats, a silent peer doesn't do either.
 */
import { ControlClient } from "../../src/control/client.js";
import type { CoordinatorMessage, PeerMessage } from "../../src/membership/messages.js";
import type { SessionError } from "../../src/membership/session-protocol.js";
import { PROTOCOL_VERSION } from "../../src/base/limits.js";

type Kind = CoordinatorMessage["kind"];

export class RawPeer {
  readonly received: CoordinatorMessage[] = [];
  connected = false;
  disconnected: string | undefined;
  failed: SessionError | undefined;
  readonly #client: ControlClient;
  #taken = 0;
  #wake: () => void = () => {};

  constructor(address: string, connectTimeoutMs = 20_000) {
    this.#client = new ControlClient(
      { address, connectTimeoutMs },
      {
        onConnected: () => {
          this.connected = true;
          this.#wake();
        },
        onMessage: (message) => {
          this.received.push(message);
          this.#wake();
        },
        onDisconnected: (reason) => {
          this.disconnected = reason;
          this.#wake();
        },
        onFailed: (error) => {
          this.failed = error;
          this.#wake();
        },
      },
    );
  }

  send(message: PeerMessage): void {
    this.#client.send(message);
  }

  register(group = 0, port = 7_000, host = "127.0.0.1"): void {
    this.send({
      kind: "register",
      protocolVersion: PROTOCOL_VERSION,
      group,
      endpoint: { host, port },
    });
  }

  /** The next message that isn't a heartbeat; fails if it is of another kind or the stream ends before. */
  async expect<K extends Kind>(kind: K): Promise<CoordinatorMessage & { kind: K }> {
    for (;;) {
      const message = this.received[this.#taken];
      if (message?.kind === "heartbeat") this.#taken++;
      else if (message?.kind === kind) {
        this.#taken++;
        return message as CoordinatorMessage & { kind: K };
      } else if (message !== undefined) {
        throw new Error(`expected ${kind}, got ${JSON.stringify(message)}`);
      } else if (this.disconnected !== undefined || this.failed !== undefined) {
        throw new Error(`expected ${kind}, but ${this.disconnected ?? this.failed?.message}`);
      } else await this.#next();
    }
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.#next();
  }

  /** Answers the next Prepare, and waits for its Install. Returns the epoch. */
  async install(): Promise<number> {
    const { view } = await this.expect("prepare");
    this.send({ kind: "ready", epoch: view.epoch, failures: [], ops: [] });
    return (await this.expect("install")).epoch;
  }

  end(): void {
    this.#client.end();
  }

  close(): void {
    this.#client.close();
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
