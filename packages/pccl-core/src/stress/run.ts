/**
 * A stress run: real peers that reduce and sync without pause, while a seeded schedule makes them join, leave, die,
 * stop and lose the network. Every step of every peer is held against the others'.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { peerLeaks, ProcessWatch } from "./leaks.js";
import { Ledger } from "./ledger.js";
import type { PeerProcess } from "./peer-process.js";
import { type Fault, Schedule, type Turn } from "./schedule.js";
import {
  type Counts,
  durationsByFault,
  durationsOf,
  type MemoryGrowth,
  type StressSummary,
} from "./summary.js";
import { StressWorld } from "./world.js";

/** A peer that gets no further for this long hangs. */
const HANG_MS = 30_000;
const POLL_INTERVAL_MS = 50;
/** Peers of a group that work, whatever happens: its shared state must have holders. */
const WORKING_MIN = 2;
/** Fractions of the lease: an interruption that must be survived, and one that can't be. */
const SHORT_FAULT = 0.25;
const LONG_FAULT = 1.75;
const COORDINATOR_DOWN_MAX_MS = 1_000;
const SEEDED_CONNECTIONS_MAX = 4;
/** For connections of peers that are gone to be closed everywhere. */
const REST_TIMEOUT_MS = 10_000;

export interface StressOptions {
  readonly peers: number;
  readonly groups: number;
  readonly durationMs: number;
  readonly seed: number;
  readonly leaseMs: number;
  readonly faults: readonly Fault[];
  readonly netns: boolean;
  /** Of the coordinator. Default: none, or a temporary one if the coordinator is to be killed. */
  readonly stateDirectory: string | undefined;
  /** The file of the `pccl` program. */
  readonly program: string;
}

export interface StressStatus {
  readonly phase: string;
  readonly seconds: number;
  readonly working: number;
  /** Of each group. */
  readonly steps: readonly number[];
  readonly counts: Readonly<Counts>;
}

export class StressRun {
  readonly #options: StressOptions;
  readonly #schedule: Schedule;
  readonly #ledger = new Ledger();
  readonly #watch = new ProcessWatch();
  readonly #hangs: string[] = [];
  readonly #startedAtMs: number = performance.now();
  #world!: StressWorld;
  #phase = "starting";
  #longPairCuts = 0;
  #longestGapMs: ReadonlyMap<number, number> = new Map();
  #memory: readonly MemoryGrowth[] = [];

  constructor(options: StressOptions) {
    this.#options = options;
    this.#schedule = new Schedule(options.seed, options.faults);
  }

  /** Undefined until the coordinator runs. */
  status(): StressStatus | undefined {
    if (this.#world === undefined) return undefined;
    return {
      phase: this.#phase,
      seconds: (performance.now() - this.#startedAtMs) / 1_000,
      working: this.#world.peers.filter(({ working }) => working).length,
      steps: this.#groups.map((group) => this.#ledger.lastStep(group)),
      counts: this.#world.counts,
    };
  }

  /** Every seed takes another number; a run has one. */
  get #connectionsPerPeer(): number {
    return 1 + (this.#options.seed % SEEDED_CONNECTIONS_MAX);
  }

  get #groups(): number[] {
    return Array.from({ length: this.#options.groups }, (_, group) => group);
  }

  get #failed(): boolean {
    const { leaks, problems } = this.#world;
    return this.#hangs.length + leaks.length + problems.length + this.#ledger.divergences.length > 0;
  }

  /**
   * Runs to the end of the time, the first thing that goes wrong, or the abort of `signal`. Afterwards no process,
   * namespace or file of the run is left.
   */
  async run(signal: AbortSignal): Promise<StressSummary> {
    const { peers, leaseMs, netns, program, faults, stateDirectory } = this.#options;
    const temporary =
      stateDirectory === undefined && faults.includes("coordinator-kill")
        ? await mkdtemp(join(tmpdir(), "pccl-stress-"))
        : undefined;
    try {
      this.#world = await StressWorld.open({
        peers,
        leaseMs,
        connectionsPerPeer: this.#connectionsPerPeer,
        netns,
        program,
        stateDirectory: stateDirectory ?? temporary,
        onStep: (peer, report) => {
          this.#ledger.onStep(peer.name, peer.group, report, performance.now());
          this.#watch.onStep(peer);
        },
      });
      try {
        await this.#stress(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        await this.#world.close();
      }
    } finally {
      if (temporary !== undefined) await rm(temporary, { recursive: true, force: true });
    }
    return this.#summary();
  }

  async #stress(signal: AbortSignal): Promise<void> {
    const { peers, groups, durationMs } = this.#options;
    const world = this.#world;
    this.#phase = "joining";
    for (let i = 0; i < peers; i++) await world.join(i % groups);
    await this.#until(() => world.peers.every(({ working }) => working), signal);
    this.#watch.begin(world.coordinator.pid ?? 0);
    this.#phase = "churn";
    const endMs = performance.now() + durationMs;
    while (!this.#failed && performance.now() < endMs) {
      const turn = this.#schedule.next();
      const dueMs = performance.now() + turn.afterMs;
      await this.#until(() => performance.now() >= Math.min(dueMs, endMs), signal);
      if (performance.now() < endMs) await this.#play(turn);
    }
    this.#phase = "settling";
    if (!this.#failed) await this.#settle(signal);
    const nowMs = performance.now();
    this.#longestGapMs = this.#ledger.gapsMs(nowMs);
    this.#memory = this.#watch.memory(world.coordinator.pid ?? 0, world.peers);
    this.#phase = "leaving";
    if (!this.#failed) await world.end();
  }

  async #play(turn: Turn): Promise<void> {
    const world = this.#world;
    const { peers, leaseMs } = this.#options;
    const living = world.peers.filter((peer) => peer.living);
    if (living.length < peers && turn.join) return await world.join(this.#smallestGroup());
    if (turn.fault === "coordinator-kill") {
      if (world.coordinator.running) this.#fault(turn.fault, this.#groups, false);
      if (world.coordinator.running) world.restartCoordinator(turn.pick * COORDINATOR_DOWN_MAX_MS);
      return;
    }
    const victims = living.filter(
      (peer) => peer.impaired === undefined && this.#others(peer).length >= WORKING_MIN,
    );
    const victim = pickFrom(victims, turn.pick);
    if (victim === undefined) {
      if (living.length < peers) await world.join(this.#smallestGroup());
      return;
    }
    const forMs = leaseMs * (turn.long ? LONG_FAULT : SHORT_FAULT);
    switch (turn.fault) {
      case "leave":
        world.counts.leaves++;
        void world.leave(victim);
        return;
      case "kill":
        world.counts.kills++;
        this.#fault("kill", [victim.group], victim.working);
        return await world.kill(victim);
      case "stop":
        world.counts.stops++;
        this.#fault("stop", [victim.group], false);
        return world.interrupt(victim, "stopped", forMs, turn.long);
      case "black-hole":
        world.counts.blackHoles++;
        this.#fault("black-hole", [victim.group], false);
        return world.interrupt(victim, "cut", forMs, turn.long);
      case "pair-cut":
        world.counts.pairCuts++;
        if (turn.long) this.#longPairCuts++;
        this.#fault("pair-cut", [victim.group], false);
        return world.cutPair(victim, pickFrom(this.#others(victim), turn.pickOther) as PeerProcess, forMs);
      case "reset":
        world.counts.resets++;
        this.#fault("reset", [victim.group], false);
        return await world.reset(victim, pickFrom([...this.#others(victim), undefined], turn.pickOther));
    }
  }

  #fault(fault: Fault, groups: readonly number[], loses: boolean): void {
    this.#ledger.onFault(fault, groups, loses, performance.now());
  }

  /** Those of its group that work. */
  #others(peer: PeerProcess): PeerProcess[] {
    return this.#world.livingOf(peer.group).filter((other) => other.working && other !== peer);
  }

  #smallestGroup(): number {
    const sizes = this.#groups.map((group) => this.#world.livingOf(group).length);
    return sizes.indexOf(Math.min(...sizes));
  }

  /** Back to as many peers as in the beginning, undisturbed, with a fresh one in each group to compare with. */
  async #settle(signal: AbortSignal): Promise<void> {
    const { peers, groups } = this.#options;
    const world = this.#world;
    await world.heal();
    // What a long interruption has removed ends by itself.
    await this.#until(() => world.peers.every((peer) => peer.working || peer.ending), signal);
    const sizeOf = (group: number): number => Math.ceil((peers - group) / groups);
    for (const group of this.#groups) {
      for (const peer of world.livingOf(group).slice(sizeOf(group) - 1)) await world.leave(peer);
    }
    const complete = (): boolean =>
      world.peers.length === peers && world.peers.every(({ working }) => working);
    while (!complete() && !this.#failed) {
      // Also later: a peer may have been removed for a fault, and hear of it only now.
      for (const group of this.#groups) {
        while (world.livingOf(group).length < sizeOf(group)) await world.join(group);
      }
      const missing = (): boolean =>
        this.#groups.some((group) => world.livingOf(group).length < sizeOf(group));
      await this.#until(() => complete() || missing(), signal);
    }
    // A pair that was cut for longer than the lease may be linked through a third peer, which holds both halves.
    const relayed = 2 * this.#connectionsPerPeer * this.#longPairCuts;
    const leaks = (): string[] => [
      ...this.#groups.flatMap((group) => peerLeaks(world.livingOf(group), relayed)),
      ...this.#watch.coordinatorLeaks(world.coordinator.pid ?? 0),
    ];
    const restEndMs = performance.now() + REST_TIMEOUT_MS;
    await this.#until(() => leaks().length === 0 || performance.now() >= restEndMs, signal);
    if (!this.#failed) world.leaks.push(...leaks());
    this.#ledger.checkComplete();
  }

  /** Waits for the condition, or until something goes wrong; rejects when `signal` aborts. */
  async #until(condition: () => boolean, signal: AbortSignal): Promise<void> {
    while (!condition() && !this.#failed) {
      await delay(POLL_INTERVAL_MS, undefined, { signal });
      this.#findHangs();
    }
  }

  #findHangs(): void {
    const nowMs = performance.now();
    const hanging = this.#world.peers.filter(
      (peer) => peer.living && peer.impaired === undefined && nowMs - peer.progressAtMs > HANG_MS,
    );
    if (hanging.length === 0) return;
    // The others may hang as well, not quite as long; what each is in tells why.
    this.#hangs.push(...hanging.map((peer) => peer.describe()));
    const rest = this.#world.peers.filter((peer) => !hanging.includes(peer));
    this.#hangs.push(...rest.map((peer) => `beside: ${peer.describe()}`));
  }

  #summary(): StressSummary {
    const { seed, peers, groups, faults } = this.#options;
    const { divergences, recoveries, committedReduces, retriedOps } = this.#ledger;
    const { counts, leaks, problems } = this.#world;
    return {
      ok: !this.#failed && committedReduces > 0,
      seed,
      seconds: (performance.now() - this.#startedAtMs) / 1_000,
      peers,
      groups,
      connectionsPerPeer: this.#connectionsPerPeer,
      faults,
      reducesCommitted: committedReduces,
      retriedOps,
      counts,
      longestGapMs: Object.fromEntries(this.#longestGapMs),
      recovery: durationsOf(recoveries.map(({ ms }) => ms)),
      recoveryByFault: durationsByFault(recoveries),
      memory: this.#memory,
      divergences,
      hangs: this.#hangs,
      leaks,
      problems,
      log: this.#failed ? this.#world.log() : [],
    };
  }
}

/** `fraction` in [0, 1). */
function pickFrom<T>(items: readonly T[], fraction: number): T | undefined {
  return items[Math.floor(fraction * items.length)];
}
