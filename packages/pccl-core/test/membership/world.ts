/** Drives the coordinator machine by hand: peers that say exactly what a test wants, and a clock that it sets. */
import { PROTOCOL_VERSION } from "../../src/base/limits.js";
import { step } from "../../src/membership/coordinator.js";
import type {
  CoordinatorMessage,
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

export class World {
  readonly state: CoordinatorState;
  readonly logs: CoordinatorLog[] = [];
  nowMs = 0;
  readonly #inbox = new Map<number, CoordinatorMessage[]>();
  readonly #ended = new Set<number>();

  constructor(config: Partial<CoordinatorConfig> = {}) {
    const key = new Uint8Array(16).fill(7);
    this.state = createCoordinator({ leaseMs: LEASE_MS, minPeers: 1, peersMax: 100, key, ...config });
  }

  step(event: CoordinatorEvent): void {
    for (const effect of step(this.state, event, this.nowMs)) {
      if (effect.kind === "log") this.logs.push(effect.log);
      else if (effect.kind === "end") this.#ended.add(effect.connection);
      else {
        if (this.#ended.has(effect.connection)) throw new Error("a message after the end of its stream");
        this.#inbox.set(effect.connection, [...(this.#inbox.get(effect.connection) ?? []), effect.message]);
      }
    }
  }

  /** In these tests a peer's connection has its peer id. */
  connect(connection: number): void {
    this.step({ kind: "connected", connection, address: `10.0.0.${connection}` });
  }

  say(connection: number, message: PeerMessage): void {
    this.step({ kind: "message", connection, message });
  }

  join(connection: number, group = 0): void {
    this.connect(connection);
    const endpoint = { host: "", port: 1_000 + connection };
    this.say(connection, { kind: "register", protocolVersion: PROTOCOL_VERSION, group, endpoint });
  }

  ready(
    connection: number,
    { failures = [], ops = [], epoch = this.state.epoch }: Partial<PeerMessage & { kind: "ready" }> = {},
  ): void {
    this.say(connection, { kind: "ready", epoch, failures, ops });
  }

  vote(connection: number, kind: "pending-vote" | "topology-vote", requestId = 1): void {
    this.say(connection, { kind, requestId });
  }

  disconnect(connection: number): void {
    this.step({ kind: "disconnected", connection, reason: "reset" });
  }

  tick(afterMs: number): void {
    this.nowMs += afterMs;
    this.step({ kind: "tick" });
  }

  /** Takes what was sent to a peer. */
  take(connection: number): CoordinatorMessage[] {
    const messages = this.#inbox.get(connection) ?? [];
    this.#inbox.delete(connection);
    return messages;
  }

  takeKinds(connection: number): string[] {
    return this.take(connection).map((message) => message.kind);
  }

  ended(connection: number): boolean {
    return this.#ended.has(connection);
  }

  /** Members of ring `group` in the view that is being prepared, or else installed. */
  ring(group = 0): readonly number[] {
    const rings = this.state.change?.view.rings ?? this.state.rings;
    return rings.find((ring) => ring.group === group)?.peerIds ?? [];
  }

  /** A world of peers 1 to `count`, installed, with empty inboxes. */
  static of(count: number, groupOf: (id: number) => number = () => 0): World {
    const world = new World({ minPeers: count });
    for (let id = 1; id <= count; id++) world.join(id, groupOf(id));
    for (let id = 1; id <= count; id++) world.ready(id);
    for (let id = 1; id <= count; id++) world.take(id);
    return world;
  }
}

export function lost(peerId: number, reason = "refused"): LinkFailure {
  return { peerId, reason };
}

export function op(epoch: number, tag: bigint, state: OpReport["state"], seq = 0): OpReport {
  return { epoch, tag, seq, state };
}
