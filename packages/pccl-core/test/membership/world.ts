/** Drives the coordinator machine by hand: peers that say exactly what a test wants, and a clock that it sets. */
import { PROTOCOL_VERSION } from "../../src/base/limits.js";
import { UNNUMBERED } from "../../src/membership/channel.js";
import { step } from "../../src/membership/coordinator.js";
import type {
  CoordinatorMessage,
  Envelope,
  LinkFailure,
  OpReport,
  PeerMessage,
} from "../../src/membership/messages.js";
import {
  type CoordinatorConfig,
  type CoordinatorEvent,
  type CoordinatorLog,
  type CoordinatorState,
  createCoordinator,
} from "../../src/membership/state.js";

export const LEASE_MS = 1_000;

const NOT_NUMBERED: ReadonlySet<string> = new Set(["register", "attach", "heartbeat"]);

export class World {
  readonly state: CoordinatorState;
  readonly logs: CoordinatorLog[] = [];
  /** Peers whose data port the coordinator wants to have probed. */
  readonly probes: number[] = [];
  nowMs = 0;
  readonly #inbox = new Map<number, Envelope<CoordinatorMessage>[]>();
  /** The last number that a connection's peer has given out, and the last that it has got. */
  readonly #sent = new Map<number, number>();
  readonly #received = new Map<number, number>();
  readonly #ended = new Set<number>();

  constructor(config: Partial<CoordinatorConfig> = {}) {
    const key = new Uint8Array(16).fill(7);
    this.state = createCoordinator({ leaseMs: LEASE_MS, minPeers: 1, peersMax: 100, key, ...config });
  }

  step(event: CoordinatorEvent): void {
    for (const effect of step(this.state, event, this.nowMs)) {
      if (effect.kind === "log") this.logs.push(effect.log);
      else if (effect.kind === "end") this.#ended.add(effect.connection);
      else if (effect.kind === "probe") this.probes.push(effect.peerId);
      else {
        const { connection, seq, ack, message } = effect;
        if (this.#ended.has(connection)) throw new Error("a message after the end of its stream");
        this.#inbox.set(connection, [...(this.#inbox.get(connection) ?? []), { seq, ack, message }]);
        if (seq !== UNNUMBERED) this.#received.set(connection, seq);
      }
    }
  }

  /** In these tests a peer's first connection has its peer id. */
  connect(connection: number): void {
    const secret = new Uint8Array(16).fill(connection);
    this.step({ kind: "connected", connection, address: `10.0.0.${connection}`, secret });
  }

  /** Says what comes next on the connection, having read everything; `seq` says something else. */
  say(connection: number, message: PeerMessage, seq = this.#nextSeq(connection, message)): void {
    const ack = this.#received.get(connection) ?? 0;
    this.step({ kind: "message", connection, seq, ack, message });
  }

  #nextSeq(connection: number, { kind }: PeerMessage): number {
    if (NOT_NUMBERED.has(kind)) return UNNUMBERED;
    const seq = (this.#sent.get(connection) ?? 0) + 1;
    this.#sent.set(connection, seq);
    return seq;
  }

  join(connection: number, group = 0, hostId = ""): void {
    this.connect(connection);
    const endpoint = { host: "", port: 1_000 + connection };
    this.say(connection, { kind: "register", protocolVersion: PROTOCOL_VERSION, group, endpoint, hostId });
    const peerId = this.state.peerOf.get(connection);
    if (peerId !== undefined) this.step({ kind: "probed", peerId, result: "alive" });
    this.probes.length = 0;
  }

  ready(
    connection: number,
    { failures = [], ops = [], epoch = this.state.epoch }: Partial<PeerMessage & { kind: "ready" }> = {},
  ): void {
    this.say(connection, { kind: "ready", epoch, failures, ops });
  }

  /** All who have to are ready. */
  allReady(): void {
    for (const id of this.state.change?.preparing ?? []) this.ready(id);
  }

  vote(connection: number, kind: "pending-vote" | "topology-vote", requestId = 1): void {
    this.say(connection, { kind, requestId });
  }

  /** The peer's stream breaks. */
  cut(connection: number): void {
    this.step({ kind: "disconnected", connection, reason: "reset" });
  }

  /** The peer's process ends. */
  die(connection: number): void {
    this.cut(connection);
    this.step({ kind: "probed", peerId: connection, result: "refused" });
  }

  /** Peer `peerId` comes back on a new connection, having received everything up to `received`. */
  attach(
    connection: number,
    peerId: number,
    { received = this.#received.get(peerId) ?? 0, secret = new Uint8Array(16).fill(peerId) } = {},
  ): void {
    this.connect(connection);
    this.#sent.set(connection, this.#sent.get(peerId) ?? 0);
    this.#received.set(connection, received);
    this.say(connection, {
      kind: "attach",
      protocolVersion: PROTOCOL_VERSION,
      peerId,
      secret,
      received,
    });
  }

  tick(afterMs: number): void {
    this.nowMs += afterMs;
    this.step({ kind: "tick" });
  }

  /** Takes what was sent to a peer. */
  take(connection: number): CoordinatorMessage[] {
    return this.takeEnvelopes(connection).map((envelope) => envelope.message);
  }

  takeEnvelopes(connection: number): Envelope<CoordinatorMessage>[] {
    const envelopes = this.#inbox.get(connection) ?? [];
    this.#inbox.delete(connection);
    return envelopes;
  }

  takeKinds(connection: number): string[] {
    return this.take(connection).map((message) => message.kind);
  }

  ended(connection: number): boolean {
    return this.#ended.has(connection);
  }

  /** Members of ring `group` in the view that is being prepared, or else installed. */
  ring(group = 0): readonly number[] {
    const rings = this.state.change?.rings ?? this.state.rings;
    return rings.find((ring) => ring.group === group)?.peerIds ?? [];
  }

  /** A world of peers 1 to `count`, installed, with empty inboxes. */
  static of(count: number, groupOf: (id: number) => number = () => 0): World {
    const world = new World({ minPeers: count });
    for (let id = 1; id <= count; id++) world.join(id, groupOf(id));
    world.allReady();
    for (let id = 1; id <= count; id++) world.take(id);
    return world;
  }
}

export function lost(peerId: number, reason = "refused"): LinkFailure {
  return { peerId, reason };
}

export function op(epoch: number, tag: bigint, state: OpReport["state"], seq = 0): OpReport {
  return { epoch, tag, seq, from: undefined, to: undefined, state };
}

/** A send's and its recv's, of the first op with tag 7. */
export function pairOp(epoch: number, from: number, to: number, state: OpReport["state"]): OpReport {
  return { epoch, tag: 7n, seq: 0, from, to, state };
}
