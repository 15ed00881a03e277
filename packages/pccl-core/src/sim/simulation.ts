/**
 * Runs a scenario: the coordinator and session machines that ship, in a world of modelled processes, networks and
 * disks. The same scenario gives the same run on every machine; a run that breaks a rule ends there.
 */
import { PREPARE_ATTEMPTS_MAX, PREPARE_TIMEOUT_MS } from "../base/limits.js";
import type { CoordinatorLog, ProbeResult } from "../membership/state.js";
import { Clock } from "./clock.js";
import { COORDINATOR_HOST, SimCoordinator } from "./coordinator.js";
import { MEASURING_MS_MAX } from "./engine.js";
import { Faults } from "./faults.js";
import { type Counts, type Facts, Invariants, Violation } from "./invariants.js";
import { DataPlane } from "./links.js";
import { Network } from "./network.js";
import { SimPeer } from "./peer.js";
import { type ClockError, Process } from "./process.js";
import { drawScenario, type PlannedPeer, type Scenario } from "./scenario.js";
import { describeFields, Trace, type TraceLine } from "./trace.js";
import type { Behaviour } from "./user.js";

/** A run without faults ends within this time. */
const CALM_MS_MAX = 900_000;
/** A hundred times what a long run has. */
const EVENTS_MAX = 1_000_000;
const PROBE_MS_MAX = 1_000;

export interface RunResult {
  readonly seed: number;
  readonly virtualMs: number;
  /** How each peer's program ended: done, left, dead, an error's code; or waiting for others to begin a world with. */
  readonly results: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
  readonly counts: Readonly<Counts>;
  readonly violation: { readonly rule: string; readonly message: string } | undefined;
  /** Empty unless a trace was asked for. */
  readonly trace: readonly TraceLine[];
}

export function runSeed(seed: number): RunResult {
  return runScenario(drawScenario(seed));
}

export function runScenario(scenario: Scenario, { trace = false }: { trace?: boolean } = {}): RunResult {
  return new World(scenario, trace ? new Trace() : undefined).run();
}

class World {
  readonly #scenario: Scenario;
  readonly #clock = new Clock();
  readonly #network: Network;
  readonly #plane: DataPlane;
  readonly #coordinator: SimCoordinator;
  readonly #peers: SimPeer[] = [];
  readonly #byHost = new Map<string, SimPeer>();
  readonly #faults: Faults;
  readonly #invariants: Invariants;
  readonly #trace: Trace | undefined;
  /** When the coordinator last couldn't be heard by each host, or couldn't hear it. */
  readonly #disturbedAtMs = new Map<string, number>();
  #joining: number;

  constructor(scenario: Scenario, trace: Trace | undefined) {
    this.#scenario = scenario;
    this.#trace = trace;
    this.#joining = scenario.peers.length;
    this.#network = new Network(this.#clock, scenario.seed, scenario.latency);
    this.#plane = new DataPlane(this.#network, scenario.leaseMs);
    this.#invariants = new Invariants(this.#facts());
    this.#coordinator = new SimCoordinator(
      { leaseMs: scenario.leaseMs, minPeers: scenario.minPeers, peersMax: 100 },
      scenario.syncMsMax,
      {
        random: this.#network.random(COORDINATOR_HOST),
        spawn: (nowMs) => this.#spawnCoordinator(nowMs),
        probe: (endpoint, onResult) => this.#probe(endpoint.host, onResult),
        onTaken: (kind) => this.#faults.onTaken(COORDINATOR_HOST, kind),
        onSent: ({ seq, message }, peerId) =>
          this.#invariants.onSent(this.#coordinator.generation, peerId, seq, message),
        onLog: (log, holders) => this.#onLog(log, holders),
      },
    );
    this.#faults = new Faults(scenario.faults, scenario.troubleMs, {
      network: this.#network,
      plane: this.#plane,
      coordinator: this.#coordinator,
      peerAt: (host) => this.#byHost.get(host),
      onDisturbed: (hosts) => this.#onDisturbed(hosts),
      trace: this.#trace,
    });
    this.#network.onPathsChanged = () => this.#plane.look();
  }

  run(): RunResult {
    let violation: RunResult["violation"];
    try {
      for (const peer of this.#scenario.peers) this.#clock.at(peer.joinsAtMs, () => this.#join(peer));
      this.#faults.begin();
      for (let events = 0; !this.#isOver() && this.#clock.advance(); events++) {
        this.#checkTime();
        if (events === EVENTS_MAX) throw new Violation("I5", "the run doesn't end");
      }
      this.#checkEnd();
    } catch (error) {
      if (error instanceof Violation) violation = { rule: error.rule, message: error.message };
      else {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        violation = { rule: "exception", message: text };
      }
    }
    return {
      seed: this.#scenario.seed,
      virtualMs: this.#clock.nowMs,
      results: this.#peers.map((peer) => peer.user.result ?? (peer.alive ? "waiting" : "dead")),
      faults: this.#faults.counts,
      counts: this.#invariants.counts,
      violation,
      trace: this.#trace?.lines ?? [],
    };
  }

  #isOver(): boolean {
    return (
      this.#joining === 0 &&
      this.#faults.areOver &&
      this.#peers.every((peer) => !peer.alive || this.#waitsForWorld(peer))
    );
  }

  /** A peer that waits for others because too few have come together for a world doesn't wait in a call. */
  #waitsForWorld(peer: SimPeer): boolean {
    const { state } = this.#coordinator;
    return (
      peer.session.phase === "pending" &&
      state.total.members === 0 &&
      state.peers.size < this.#scenario.minPeers
    );
  }

  /** The longest that it may take to find out who is gone, and to link the others. */
  get #waitMsMax(): number {
    return 2 * this.#scenario.leaseMs + PREPARE_TIMEOUT_MS;
  }

  /** I5: a call outlasts what goes wrong by no more than it takes to find out who is gone, and to link the others. */
  #checkTime(): void {
    const { calmMs } = this.#faults;
    if (calmMs < this.#waitMsMax) return;
    // Each peer measures its paths to all others one after the other, and some of them from both ends.
    const measuringMs = 2 * this.#peers.length * MEASURING_MS_MAX;
    for (const peer of this.#peers) {
      const { call, calledAtMs } = peer.user;
      if (call === undefined || !peer.alive) continue;
      const waitedMs = Math.min(calmMs, this.#clock.nowMs - calledAtMs);
      const waitMsMax = this.#waitMsMax + (call.kind === "optimize-topology" ? measuringMs : 0);
      if (waitedMs > waitMsMax) {
        throw new Violation("I5", `${peer.host} has waited in ${call.kind} for ${Math.round(waitedMs)} ms`);
      }
    }
    if (calmMs > CALM_MS_MAX) throw new Violation("I5", "the run doesn't end");
  }

  /** I5: nothing is left to happen, so what waits now waits for ever. */
  #checkEnd(): void {
    const waiting = this.#peers.find((peer) => peer.alive && !this.#waitsForWorld(peer));
    if (waiting !== undefined) {
      throw new Violation(
        "I5",
        `${waiting.host} (${waiting.session.phase}) waits in ${waiting.user.call?.kind ?? "nothing"} for ever`,
      );
    }
  }

  #join({ host, group, machine, clock }: PlannedPeer): void {
    this.#joining--;
    const { steps, coordinatorTimeoutMs } = this.#scenario;
    const process = new Process(this.#clock, this.#network.random(`${host} speed`), clock, () => {
      this.#onDisturbed([host]);
      this.#plane.look();
      // A relay that goes on passes on what has come meanwhile.
      this.#network.wakePipes();
    });
    const peer = new SimPeer(
      process,
      { host, group, hostId: machine, steps, coordinatorTimeoutMs, behaviour: this.#behaviourOf(host) },
      {
        network: this.#network,
        plane: this.#plane,
        coordinator: this.#coordinator,
        invariants: this.#invariants,
        trace: this.#trace,
        peerAt: (other) => this.#byHost.get(other),
        onTaken: (at, kind) => this.#faults.onTaken(at, kind),
      },
    );
    this.#peers.push(peer);
    this.#byHost.set(host, peer);
    peer.start();
  }

  #behaviourOf(host: string): Behaviour {
    const quirks = this.#scenario.quirks.filter((quirk) => quirk.host === host);
    return {
      deviations: new Map(
        quirks.flatMap((quirk) => (quirk.kind === "deviate" ? [[quirk.nth, quirk.to]] : [])),
      ),
      withdrawals: new Map(
        quirks.flatMap((quirk) => (quirk.kind === "withdraw" ? [[quirk.nth, quirk.afterMs]] : [])),
      ),
      odd: new Set(quirks.flatMap((quirk) => (quirk.kind === "misfit" ? [quirk.nth] : []))),
    };
  }

  #spawnCoordinator(nowMs: number): Process {
    const { rate, offsetMs } = this.#scenario.coordinatorClock;
    // A machine that begins anew has a clock of its own; one that was restored goes on from its last record.
    const startMs = nowMs === 0 ? offsetMs : nowMs;
    const clock: ClockError = { rate, offsetMs: startMs - rate * this.#clock.nowMs };
    const random = this.#network.random(`coordinator speed ${this.#clock.nowMs}`);
    return new Process(this.#clock, random, clock, () => this.#onDisturbed([COORDINATOR_HOST]));
  }

  /** As control/server.ts does: connects to the data port. A stopped process's port still accepts. */
  #probe(host: string, onResult: (result: ProbeResult) => void): void {
    const reachable = (): boolean => this.#network.isOpenBothWays(COORDINATOR_HOST, host);
    const peer = this.#byHost.get(host);
    this.#clock.after(
      this.#network.delayMs(this.#network.random(`probe ${host} ${this.#clock.nowMs}`)),
      () => {
        if (!reachable() || peer === undefined)
          return this.#clock.after(PROBE_MS_MAX, () => onResult("unknown"));
        onResult(peer.engine.closed ? "refused" : "alive");
      },
    );
  }

  #onLog(log: CoordinatorLog, holders: ReadonlySet<number>): void {
    this.#trace?.add(this.#clock.nowMs, COORDINATOR_HOST, describeFields(log).replace(/^event /, ""));
    const { generation } = this.#coordinator;
    if (log.event === "contradiction") throw new Violation("contradiction", log.reason);
    if (log.event === "synced") this.#invariants.onSync(generation, log.group, log.revision, holders);
    if (log.event === "removed") {
      const isRemoved = (peer: SimPeer): boolean =>
        peer.generation === generation && peer.peerId === log.peerId;
      const peer = this.#peers.find(isRemoved);
      if (peer !== undefined) this.#invariants.onRemoved(peer, log.reason);
    }
  }

  #onDisturbed(hosts: readonly string[]): void {
    for (const host of hosts) this.#disturbedAtMs.set(host, this.#clock.nowMs);
  }

  #facts(): Facts {
    const { quirks, leaseMs } = this.#scenario;
    const has = (kind: string): boolean => quirks.some((quirk) => quirk.kind === kind);
    const undisturbedMs = (peer: SimPeer): number => {
      const { process } = this.#coordinator;
      const hears =
        this.#network.isOpenBothWays(peer.host, COORDINATOR_HOST) &&
        [process, peer.process].every(({ state, slowMs }) => state === "running" && slowMs === 0);
      const sinceMs = Math.max(
        this.#disturbedAtMs.get(peer.host) ?? 0,
        this.#disturbedAtMs.get(COORDINATOR_HOST) ?? 0,
      );
      return hears ? this.#clock.nowMs - sinceMs : 0;
    };
    const isCutOff = (peer: SimPeer): boolean => {
      const sinceMs = this.#clock.nowMs - (PREPARE_ATTEMPTS_MAX + 1) * PREPARE_TIMEOUT_MS - leaseMs;
      const severed = (a: SimPeer, b: SimPeer): boolean => this.#faults.wereSevered(a.host, b.host, sinceMs);
      const isSteady = ({ host, alive, session }: SimPeer): boolean =>
        alive && session.phase === "admitted" && (this.#disturbedAtMs.get(host) ?? -Infinity) < sinceMs;
      const passes = (from: SimPeer, via: SimPeer, to: SimPeer): boolean =>
        !this.#faults.wereRefused(from.host, via.host, sinceMs) &&
        !this.#faults.wereRefused(via.host, to.host, sinceMs);
      const others = this.#peers.filter(({ group, host }) => group === peer.group && host !== peer.host);
      return others.some(
        (other) =>
          (severed(peer, other) || !isSteady(other)) &&
          !others.some(
            (third) =>
              third !== other &&
              isSteady(third) &&
              (passes(peer, third, other) || passes(other, third, peer)),
          ),
      );
    };
    return {
      isCutOff,
      deviates: has("deviate"),
      misfits: has("misfit"),
      withdraws: has("withdraw"),
      nowMs: () => this.#clock.nowMs,
      hasLost: ({ generation }, peerIds) =>
        this.#peers.some(
          (other) => other.generation === generation && peerIds.includes(other.peerId) && !other.alive,
        ),
      wasTouched: (group, sinceMs) => {
        const hosts = this.#scenario.peers.flatMap((peer) => (peer.group === group ? [peer.host] : []));
        return this.#faults.wereTouched(hosts, sinceMs);
      },
      waitMsMax: this.#waitMsMax,
      patienceMs: leaseMs,
      undisturbedMs,
      lostCoordinator: (peer) =>
        peer.generation !== this.#coordinator.generation || undisturbedMs(peer) <= leaseMs,
    };
  }
}
