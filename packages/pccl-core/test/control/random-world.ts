/** A coordinator's machine with peers that do anything at any time, so that it comes into all kinds of states. */
import type { PeerMessage, StateEntry } from "../../src/membership/messages.js";
import type { CoordinatorEvent, CoordinatorState, Peer } from "../../src/membership/state.js";
import { Random } from "../../src/sim/random.js";
import { LEASE_MS, op, pairOp, World } from "../membership/world.js";

const PEERS_MAX = 7;
const OP_STATES = ["not-done", "done", "committed", "aborted"] as const;
const PROBE_RESULTS = ["refused", "alive", "unknown"] as const;
const STRATEGIES = ["enforce-popular", "receive-only", "send-only"] as const;

export class RandomWorld extends World {
  readonly #random: Random;
  readonly #onStep: (event: CoordinatorEvent, nowMs: number) => void;
  #connections = 0;
  #requests = 0;

  /** `onStep` is called after each step. */
  constructor(seed: number, onStep: (event: CoordinatorEvent, nowMs: number) => void) {
    const random = new Random(seed);
    super({ minPeers: 1 + random.below(3) });
    this.#random = random;
    this.#onStep = onStep;
  }

  override step(event: CoordinatorEvent): void {
    super.step(event);
    this.#onStep(event, this.nowMs);
  }

  /** The coordinator knows best which number is next on a stream. */
  override say(connection: number, message: PeerMessage): void {
    const peer = this.state.peers.get(this.state.peerOf.get(connection) ?? 0);
    if (peer === undefined || message.kind === "heartbeat") super.say(connection, message);
    else super.say(connection, message, peer.channel.received + 1);
  }

  run(actions: number): void {
    for (let i = 0; i < actions; i++) this.#act();
  }

  #act(): void {
    const random = this.#random;
    this.nowMs += random.between(0, 30);
    const peer = random.pick(this.#attached());
    if (peer === undefined || random.chance(0.1)) return this.#join();
    const connection = peer.connection as number;
    const other = 1 + random.below(this.state.nextPeerId);
    const epoch = this.state.rings.find((ring) => ring.group === peer.group)?.epoch ?? 1;
    const pair = random.chance(0.5) ? { from: peer.id, to: other } : { from: undefined, to: undefined };
    const stalledOp = { epoch, tag: 3n, seq: 0, ...pair };
    const actions: [number, () => void][] = [
      [6, () => this.#prepared()],
      [6, () => this.#voteTogether()],
      [4, () => this.#sync()],
      [1, () => this.#answerPrepare(connection)],
      [1, () => this.say(connection, { kind: "link-lost", epoch, peerId: other, reason: "reset" })],
      [1, () => this.say(connection, { kind: "stalled", ...stalledOp, missing: [other] })],
      [1, () => this.say(connection, { kind: "abort-answer", ...stalledOp, aborted: true })],
      [2, () => this.say(connection, { kind: "heartbeat" })],
      [3, () => this.#optimize()],
      [1, () => this.say(connection, { kind: "withdraw", requestId: this.#requests })],
      [2, () => this.#break(peer)],
      [2, () => this.#comeBack()],
      [0.3, () => this.say(connection, { kind: "leave" })],
      [0.3, () => this.step({ kind: "invalid", connection, reason: "nonsense" })],
      [1, () => this.tick(random.between(0, LEASE_MS / 2))],
      [0.2, () => this.step({ kind: "restarted" })],
    ];
    let rest = random.between(
      0,
      actions.reduce((sum, [weight]) => sum + weight, 0),
    );
    for (const [weight, action] of actions) {
      rest -= weight;
      if (rest < 0) return action();
    }
  }

  #attached(): Peer[] {
    return [...this.state.peers.values()].filter((peer) => peer.connection !== undefined);
  }

  #join(): void {
    if (this.state.peers.size >= PEERS_MAX) return;
    const connection = ++this.#connections;
    // Some streams never register.
    if (this.#random.chance(0.1)) this.connect(connection);
    else this.join(connection, this.#random.below(2), this.#random.pick(["", "a", "b"]));
  }

  /** Everybody who was told to prepare is ready, more or less. */
  #prepared(): void {
    for (const id of this.state.change?.preparing ?? []) {
      const connection = this.state.peers.get(id)?.connection;
      if (connection !== undefined) this.#answerPrepare(connection);
    }
  }

  #answerPrepare(connection: number): void {
    const random = this.#random;
    const lost = { peerId: 1 + random.below(this.state.nextPeerId), reason: "refused" };
    const epoch = this.state.installedEpoch;
    this.ready(connection, {
      epoch: Math.max(1, this.state.epoch),
      failures: random.chance(0.1) ? [lost] : [],
      ops:
        epoch === 0
          ? []
          : [
              ...[0n, 2n ** 64n - 1n].map((tag) => op(epoch, tag, random.pick(OP_STATES) ?? "done")),
              pairOp(epoch, 1, lost.peerId, random.pick(OP_STATES) ?? "done"),
            ],
    });
  }

  #voteTogether(): void {
    const kind = this.#random.chance(0.7) ? "topology-vote" : "pending-vote";
    for (const { connection } of this.#some()) this.vote(connection as number, kind, ++this.#requests);
  }

  /** All or some call it, and some of what is asked is measured. */
  #optimize(): void {
    const random = this.#random;
    for (const { connection } of this.#some()) {
      const maxAgeMs = random.pick([0, 60_000]) ?? 0;
      this.say(connection as number, { kind: "optimize-vote", requestId: ++this.#requests, maxAgeMs });
    }
    for (const [measurementId, { from, to, by }] of [...this.state.measurements]) {
      const connection = this.state.peers.get(by === "from" ? from : to)?.connection;
      if (connection === undefined || random.chance(0.3)) continue;
      const result = random.chance(0.2)
        ? { reason: "refused" }
        : { bytesPerSecond: random.between(1, 1e9), rttMs: random.between(0, 100) };
      this.say(connection, { kind: "measured", measurementId, result });
    }
  }

  #sync(): void {
    const random = this.#random;
    const hash = random.below(2).toString(16).repeat(32);
    const allowInequality = random.chance(0.2);
    const entries: StateEntry[] = [{ name: "w é", dtype: "f32", count: 7, hash, allowInequality }];
    for (const peer of this.#some()) {
      const requestId = ++this.#requests;
      const revision = (this.state.records.get(peer.group)?.revision ?? 0) + random.below(2);
      const strategy = random.pick(STRATEGIES) ?? "send-only";
      const background = random.chance(0.3);
      const offer = { kind: "sync-offer", requestId, revision, strategy, background, entries } as const;
      this.say(peer.connection as number, offer);
    }
    for (const { call, connection } of this.#some()) {
      if (call?.kind !== "syncSharedState" || connection === undefined) continue;
      const ok = random.chance(0.9);
      this.say(connection, { kind: "sync-done", requestId: call.requestId, ok, reason: ok ? "" : "lost" });
    }
  }

  /** All attached peers, or some of them. */
  #some(): Peer[] {
    const few = this.#random.chance(0.3);
    return this.#attached().filter(() => !few || this.#random.chance(0.5));
  }

  #break({ id, connection }: Peer): void {
    this.cut(connection as number);
    if (this.#random.chance(0.5)) return;
    const result = this.#random.pick(PROBE_RESULTS) ?? "unknown";
    this.step({ kind: "probed", peerId: id, result });
  }

  #comeBack(): void {
    const detached = [...this.state.peers.values()].filter((peer) => peer.connection === undefined);
    const peer = this.#random.pick(detached);
    if (peer === undefined) return;
    const { sent, unacknowledged } = peer.channel;
    const received = sent - this.#random.below(unacknowledged.length + 1);
    this.attach(++this.#connections, peer.id, { received, secret: Uint8Array.from(peer.secret) });
  }
}

/** Equal for equal values: keys in any order, but maps and sets in theirs, which steps depend on. */
export function textOf(value: unknown): string {
  return JSON.stringify(value, (key, inner: unknown) => {
    if (inner === undefined) return "undefined";
    if (typeof inner === "bigint") return `${inner}n`;
    // Never walked through, so that their order means nothing.
    if (key === "peerOf" || key === "tallies") {
      return Object.fromEntries(inner as CoordinatorState["peerOf"] | CoordinatorState["tallies"]);
    }
    if (inner instanceof Map || inner instanceof Set) return [inner.constructor.name, ...inner];
    if (inner instanceof Uint8Array) return Buffer.from(inner).toString("hex");
    if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
