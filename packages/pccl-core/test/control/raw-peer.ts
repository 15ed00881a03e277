/**
 * A peer of the control plane without an engine: the shipped gRPC client, with messages written by the test and
 * answers collected for it. What it doesn't do by itself, such as heartbeats, a silent peer doesn't do either.
 */
import { ControlClient } from "../../src/control/client.js";
import { UNNUMBERED } from "../../src/membership/channel.js";
import type { CoordinatorMessage, PeerMessage } from "../../src/membership/messages.js";
import type { SessionError } from "../../src/membership/session-protocol.js";
import { PROTOCOL_VERSION } from "../../src/base/limits.js";

type Kind = CoordinatorMessage["kind"];

const NOT_NUMBERED: ReadonlySet<PeerMessage["kind"]> = new Set(["register", "attach", "heartbeat"]);

export class RawPeer {
  readonly received: CoordinatorMessage[] = [];
  connected = false;
  /** How often the stream was accepted. */
  connections = 0;
  detached: string | undefined;
  failed: SessionError | undefined;
  readonly #client: ControlClient;
  #identity: { peerId: number; secret: Uint8Array } = { peerId: 0, secret: new Uint8Array(16) };
  #sent = 0;
  /** The last number that came. */
  #heard = 0;
  #taken = 0;
  #wake: () => void = () => {};

  constructor(address: string, connectTimeoutMs = 20_000) {
    this.#client = new ControlClient(
      { address, connectTimeoutMs },
      {
        onConnected: () => {
          this.connected = true;
          this.connections++;
          this.detached = undefined;
          this.#wake();
        },
        onMessage: ({ seq, message }) => {
          // What is sent again after a break is known already.
          if (seq !== UNNUMBERED && seq <= this.#heard) return;
          this.#heard = Math.max(this.#heard, seq);
          if (message.kind === "registered") {
            this.#identity = { peerId: message.peerId, secret: message.secret };
          }
          this.received.push(message);
          this.#wake();
        },
        onDetached: (reason) => {
          this.connected = false;
          this.detached = reason;
          this.#wake();
        },
        onFailed: (error) => {
          this.failed = error;
          this.#wake();
        },
      },
    );
  }

  get peerId(): number {
    return this.#identity.peerId;
  }

  /** Numbers the message as a session does; `seq` sends it again, or with a wrong number. */
  send(message: PeerMessage, seq: number = NOT_NUMBERED.has(message.kind) ? UNNUMBERED : ++this.#sent): void {
    this.#client.send({ seq, ack: this.#heard, message });
  }

  /** Begins to make another stream. */
  connect(): void {
    this.connected = false;
    this.#client.connect();
  }

  /** Makes another stream and attaches; resolves when the coordinator has agreed. */
  async attach(changes: { readonly peerId?: number; readonly secret?: Uint8Array } = {}): Promise<void> {
    this.connect();
    await this.until(() => this.connected);
    this.send({
      kind: "attach",
      protocolVersion: PROTOCOL_VERSION,
      ...this.#identity,
      received: this.#heard,
      ...changes,
    });
    await this.expect("attached");
  }

  register(group = 0, port = 7_000, host = "127.0.0.1"): void {
    this.send({
      kind: "register",
      protocolVersion: PROTOCOL_VERSION,
      group,
      endpoint: { host, port },
      hostId: "",
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
      } else if (this.detached !== undefined || this.failed !== undefined) {
        throw new Error(`expected ${kind}, but ${this.detached ?? this.failed?.message}`);
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
