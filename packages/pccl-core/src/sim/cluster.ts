/**
 * A simulated world: the coordinator that ships, peers around it, and faults. One seed is one run, the same on
 * every machine; a run that breaks a rule or doesn't end throws with its seed and the end of its trace.
 */
import { step } from "../membership/coordinator.js";
import type { CoordinatorMessage, PeerMessage } from "../membership/messages.js";
import {
  admittedPeers,
  type CoordinatorEvent,
  type CoordinatorLog,
  type CoordinatorState,
  createCoordinator,
  groupMembers,
} from "../membership/state.js";
import { Clock } from "./clock.js";
import { DataPlane, hostPair } from "./engine.js";
import { Invariants } from "./invariants.js";
import { Network } from "./network.js";
import { SimPeer } from "./peer.js";
import { Process } from "./process.js";
import { trainingProgram } from "./program.js";
import { Random } from "./random.js";

const LEASE_MS = 5_000;
/** Faults and newcomers come in this time; after it everything has to end. */
const TROUBLE_MS = 20_000;
const END_MS = 600_000;
const TRACE_LINES = 120;

export interface RunResult {
  readonly seed: number;
  readonly virtualMs: number;
  readonly results: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
  readonly counts: Invariants["counts"];
}

export function runSeed(seed: number): RunResult {
  const cluster = new Cluster(seed);
  try {
    return cluster.run();
  } catch (error) {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new Error(
      `seed ${seed} at ${Math.round(cluster.clock.nowMs)} ms: ${message}\n${cluster.lastLines()}`,
      { cause: error },
    );
  }
}

class Cluster {
  readonly clock: Clock = new Clock();
  readonly #seed: number;
  readonly #random: Random;
  readonly #network: Network;
  readonly #plane: DataPlane;
  readonly #invariants = new Invariants();
  readonly #coordinator: CoordinatorState;
  readonly #coordinatorProcess = new Process();
  readonly #peers: SimPeer[] = [];
  readonly #byHost = new Map<string, SimPeer>();
  readonly #connections = new Map<number, SimPeer>();
  readonly #groups: number;
  readonly #steps: number;
  readonly #deviation: number;
  readonly #cancellation: number;
  readonly #lines: string[] = [];
  readonly #faults: Record<string, number> = {};
  #epoch = 0;

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = new Random(seed);
    const random = this.#random;
    this.#network = new Network(this.clock, random);
    this.#plane = new DataPlane(this.#network);
    this.#groups = random.chance(0.3) ? 2 : 1;
    this.#steps = 3 + random.below(6);
    this.#deviation = random.chance(0.2) ? 0.1 : 0;
    this.#cancellation = random.chance(0.3) ? 0.1 : 0;
    const minPeers = 1 + random.below(3);
    const key = new Uint8Array(16);
    this.#coordinator = createCoordinator({ leaseMs: LEASE_MS, minPeers, peersMax: 100, key });
  }

  lastLines(): string {
    return this.#lines.join("\n");
  }

  run(): RunResult {
    const random = this.#random;
    const first = 2 + random.below(6);
    for (let i = 0; i < first; i++) this.clock.after(random.between(0, 500), () => this.#join());
    for (let i = random.below(4); i > 0; i--) {
      this.clock.after(random.between(500, TROUBLE_MS), () => this.#join());
    }
    for (let i = random.below(7); i > 0; i--) {
      this.clock.after(random.between(100, TROUBLE_MS), () => this.#fault());
    }
    this.#tick();
    while (this.clock.nowMs < END_MS && !this.#over() && this.clock.advance()) {}
    this.#checkEnd();
    return {
      seed: this.#seed,
      virtualMs: this.clock.nowMs,
      results: this.#peers.map((peer) => peer.result ?? peer.process.state),
      faults: this.#faults,
      counts: this.#invariants.counts,
    };
  }

  #over(): boolean {
    return this.clock.nowMs > TROUBLE_MS && this.#peers.every((peer) => !peer.alive);
  }

  /** I5: every program has ended, and the coordinator keeps nobody who is gone. */
  #checkEnd(): void {
    for (const peer of this.#peers) {
      if (peer.process.state === "running" && peer.result === undefined) {
        // A peer that waits for others because minPeers never came together doesn't wait in a call.
        const waitsForWorld =
          peer.session.phase === "pending" && admittedPeers(this.#coordinator).length === 0;
        if (!waitsForWorld) {
          throw new Error(
            `I5: ${peer.host} (${peer.session.phase}) still waits in ${peer.call?.kind ?? "nothing"}`,
          );
        }
      }
    }
  }

  #join(): void {
    const random = this.#random;
    const host = `h${this.#peers.length}`;
    const peer = new SimPeer(
      host,
      random.below(this.#groups),
      {
        clock: this.clock,
        random,
        plane: this.#plane,
        invariants: this.#invariants,
        trace: (line) => this.#trace(line),
        peers: this.#byHost,
        cancellation: this.#cancellation,
      },
      (rank) =>
        trainingProgram({
          random,
          steps: this.#steps,
          content: random.below(1_000_000),
          deviation: this.#deviation,
          rank,
        }),
    );
    this.#peers.push(peer);
    this.#byHost.set(host, peer);
    const connection = this.#peers.length;
    this.#connections.set(connection, peer);
    const stream = this.#network.connect(
      {
        process: peer.process,
        onMessage: (message) => peer.onMessage(message as CoordinatorMessage),
        onEnd: (reason) => peer.onEvent({ kind: "disconnected", reason }),
      },
      {
        process: this.#coordinatorProcess,
        onMessage: (message) => this.#step({ kind: "message", connection, message: message as PeerMessage }),
        onEnd: (reason) => this.#step({ kind: "disconnected", connection, reason }),
      },
    );
    this.#step({ kind: "connected", connection, address: host });
    peer.start(stream);
  }

  #step(event: CoordinatorEvent): void {
    const before = admittedPeers(this.#coordinator).map((peer) => peer.id);
    for (const effect of step(this.#coordinator, event, this.clock.nowMs)) {
      if (effect.kind === "log") {
        this.#trace(`coordinator: ${JSON.stringify(effect.log)}`);
        this.#checkLog(effect.log);
        continue;
      }
      const stream = this.#connections.get(effect.connection)?.stream;
      if (effect.kind === "send") stream?.send(1, effect.message);
      else stream?.end(1);
    }
    const { installedEpoch } = this.#coordinator;
    if (installedEpoch === this.#epoch) return;
    if (installedEpoch !== 0 && installedEpoch < this.#epoch)
      throw new Error(`epochs: ${installedEpoch} after ${this.#epoch}`);
    const after = admittedPeers(this.#coordinator).map((peer) => peer.id);
    if (before.length > 0 && after.some((id) => !before.includes(id))) {
      this.#invariants.onAdmission(this.#peers.filter((peer) => before.includes(peer.peerId)));
    }
    if (installedEpoch !== 0) this.#epoch = installedEpoch;
  }

  #checkLog(entry: CoordinatorLog): void {
    if (entry.event === "contradiction") throw new Error(`contradiction: ${entry.reason}`);
    if (entry.event !== "synced") return;
    const members = groupMembers(this.#coordinator, entry.group).map((peer) => peer.id);
    this.#invariants.onSync(entry.group, entry.revision, new Set(members));
  }

  #tick(): void {
    this.clock.after(LEASE_MS / 10, () => {
      this.#coordinatorProcess.deliver(() => this.#step({ kind: "tick" }));
      this.#tick();
    });
  }

  #fault(): void {
    const random = this.#random;
    const peer = random.pick(this.#peers.filter((candidate) => candidate.alive));
    if (peer === undefined) return;
    const kinds: Record<string, () => void> = {
      crash: () => peer.die(),
      stop: () => this.#stop(peer.process, random.between(100, 2.5 * LEASE_MS)),
      "control stream cut": () => peer.stream?.cut(false),
      "control stream black-holed": () => peer.stream?.cut(true),
      "link cut": () => {
        const pair = random.pick(this.#plane.linkedHosts());
        if (pair !== undefined) this.#plane.cut(...pair, false);
      },
      "pair unreachable": () => {
        const other = random.pick(this.#peers);
        if (other === undefined || other === peer) return;
        this.#plane.unreachable.add(hostPair(peer.host, other.host));
        this.#plane.cut(peer.host, other.host, false);
      },
      "coordinator stopped": () => this.#stop(this.#coordinatorProcess, random.between(100, LEASE_MS / 2)),
    };
    const kind = random.pick(Object.keys(kinds)) as string;
    this.#faults[kind] = (this.#faults[kind] ?? 0) + 1;
    this.#trace(`fault: ${kind} (${peer.host})`);
    kinds[kind]?.();
  }

  #stop(process: Process, forMs: number): void {
    process.stop();
    this.clock.after(forMs, () => process.resume());
  }

  #trace(line: string): void {
    this.#lines.push(`${this.clock.nowMs.toFixed(1)} ${line}`);
    if (this.#lines.length > TRACE_LINES) this.#lines.shift();
  }
}
