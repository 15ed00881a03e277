/**
 * The processes of a stress run and what is done to them: they join, leave, are killed, stopped, cut and healed.
 * What goes wrong with them is collected here; whatever happens, `close` leaves nothing behind.
 */
import { setTimeout as delay } from "node:timers/promises";
import { CoordinatorProcess } from "./coordinator-process.js";
import type { StepReport } from "./messages.js";
import { StressNetwork } from "./network.js";
import { PeerProcess } from "./peer-process.js";
import type { Counts } from "./summary.js";

const LEAVE_TIMEOUT_MS = 20_000;
const LOG_LINES = 60;

export interface WorldOptions {
  readonly peers: number;
  readonly leaseMs: number;
  /** Of every peer; the descriptors of peers can be compared only if all have as many. */
  readonly connectionsPerPeer: number;
  readonly netns: boolean;
  readonly stateDirectory: string | undefined;
  /** The file of the `pccl` program. */
  readonly program: string;
  readonly onStep: (peer: PeerProcess, report: StepReport) => void;
}

export class StressWorld {
  /** In the order in which they came. */
  readonly peers: PeerProcess[] = [];
  readonly leaks: string[] = [];
  readonly problems: string[] = [];
  readonly coordinator: CoordinatorProcess;
  readonly counts: Counts = {
    joins: 0,
    leaves: 0,
    kills: 0,
    stops: 0,
    blackHoles: 0,
    pairCuts: 0,
    resets: 0,
    coordinatorRestarts: 0,
    removals: 0,
  };
  readonly #options: WorldOptions;
  readonly #network: StressNetwork | undefined;
  readonly #startedAtMs = performance.now();
  readonly #log: string[] = [];
  /** Stops, black holes and the coordinator's downtime end at once when the run is nearly over. */
  readonly #healing = new AbortController();
  /** What is broken for a while. */
  readonly #broken = new Set<Promise<void>>();
  #nextOrdinal = 0;

  private constructor(options: WorldOptions, network: StressNetwork | undefined) {
    this.#options = options;
    this.#network = network;
    this.coordinator = new CoordinatorProcess({
      program: options.program,
      listen: `${network?.hubAddress ?? "127.0.0.1"}:0`,
      leaseMs: options.leaseMs,
      minPeers: options.peers,
      stateDirectory: options.stateDirectory,
      namespace: network?.hub,
      onProblem: (problem) => this.problems.push(problem),
    });
  }

  static async open(options: WorldOptions): Promise<StressWorld> {
    const network = options.netns ? await StressNetwork.create() : undefined;
    const world = new StressWorld(options, network);
    try {
      await world.coordinator.start();
      return world;
    } catch (error) {
      await world.close();
      throw error;
    }
  }

  livingOf(group: number): PeerProcess[] {
    return this.peers.filter((peer) => peer.living && peer.group === group);
  }

  async join(group: number): Promise<void> {
    const ordinal = this.#nextOrdinal++;
    const network = await this.#network?.addPeer(ordinal);
    const { connectionsPerPeer } = this.#options;
    const config = { coordinator: this.coordinator.address, group, connectionsPerPeer };
    const peer = new PeerProcess(ordinal, config, network, {
      onStep: this.#options.onStep,
      onEnd: (from, unexplained) => this.#onEnd(from, unexplained),
    });
    this.peers.push(peer);
    this.counts.joins++;
    this.#note(`${peer.name} (pid ${peer.pid}) joins group ${group}`);
  }

  /** Resolves when the process has ended, which it has to do by itself: what it left open would hold it. */
  async leave(peer: PeerProcess): Promise<void> {
    this.#note(`${peer.name} is told to leave`);
    peer.leave();
    if (await peer.endsWithin(LEAVE_TIMEOUT_MS)) return;
    this.leaks.push(
      `didn't end within ${LEAVE_TIMEOUT_MS} ms after it was told to leave: ${peer.describe()}`,
    );
    await peer.kill();
  }

  async kill(peer: PeerProcess): Promise<void> {
    this.#note(`${peer.name} is killed in ${peer.phase}`);
    await peer.kill();
  }

  /** Stops the peer, or cuts it off the network, for a while. `fatal`: for longer than its lease. */
  interrupt(peer: PeerProcess, how: "stopped" | "cut", forMs: number, fatal: boolean): void {
    this.#note(`${peer.name} is ${how} for ${Math.round(forMs)} ms in ${peer.phase}`);
    const set = async (on: boolean): Promise<void> => {
      if (how === "stopped") peer.signal(on ? "SIGSTOP" : "SIGCONT");
      else if (peer.network !== undefined) await this.#network?.setBlackHole(peer.network, on);
    };
    peer.impaired = how;
    if (fatal) peer.excuse = how;
    this.#breakFor(
      () => set(true),
      forMs,
      async () => {
        // It may have ended meanwhile, and its part of the network with it.
        if (peer.living) await set(false);
        this.#note(`${peer.name} is no longer ${how}`);
        peer.impaired = undefined;
        peer.progressAtMs = performance.now();
      },
    );
  }

  /** Cuts two peers off each other for a while; both can reach all others, and nobody may be removed for it. */
  cutPair(peer: PeerProcess, other: PeerProcess, forMs: number): void {
    const [network, address] = [peer.network, other.network?.address];
    if (network === undefined || address === undefined) return;
    this.#note(`${peer.name} and ${other.name} are cut off each other for ${Math.round(forMs)} ms`);
    this.#breakFor(
      async () => await this.#network?.setPairCut(network, address, true),
      forMs,
      async () => {
        if (peer.living) await this.#network?.setPairCut(network, address, false);
        this.#note(`${peer.name} and ${other.name} are no longer cut off each other`);
      },
    );
  }

  /** Resets the TCP connections between a peer and another one, or the coordinator; all of them go on. */
  async reset(peer: PeerProcess, other: PeerProcess | undefined): Promise<void> {
    if (peer.network === undefined || this.#network === undefined) return;
    const address = other === undefined ? this.#network.hubAddress : other.network?.address;
    const connections = await this.#network.reset(peer.network, address ?? "");
    const name = other?.name ?? "the coordinator";
    this.#note(`${connections} connection(s) between ${peer.name} and ${name} are reset`);
  }

  /** Kills the coordinator, and starts it again after a while. */
  restartCoordinator(afterMs: number): void {
    this.#note("the coordinator is killed");
    this.#breakFor(
      () => this.coordinator.kill(),
      afterMs,
      async () => {
        await this.coordinator.start();
        this.counts.coordinatorRestarts++;
        this.#note("the coordinator is back");
      },
    );
  }

  /** Ends all interruptions, now and from now on at once. */
  async heal(): Promise<void> {
    this.#healing.abort();
    while (this.#broken.size > 0) await Promise.all(this.#broken);
  }

  /** Everybody leaves in good order; what doesn't is a leak. */
  async end(): Promise<void> {
    await Promise.all(this.peers.filter(({ living }) => living).map((peer) => this.leave(peer)));
    if (!(await this.coordinator.stop())) this.leaks.push("the coordinator didn't end after SIGTERM");
    const strays = (await this.#network?.processes()) ?? [];
    if (strays.length > 0) this.leaks.push(`processes are left in the namespaces: ${strays.join(", ")}`);
  }

  async close(): Promise<void> {
    this.#healing.abort();
    await Promise.all(this.#broken);
    await Promise.all(this.peers.map((peer) => peer.kill()));
    await this.coordinator.kill();
    await this.#network?.close();
  }

  /** What happened last, here and at the coordinator. */
  log(): string[] {
    return [...this.#log, ...this.coordinator.lines.map((line) => `coordinator: ${line}`)];
  }

  #breakFor(begin: () => Promise<void>, forMs: number, end: () => Promise<void>): void {
    const body = async (): Promise<void> => {
      try {
        await begin();
        await delay(forMs, undefined, { signal: this.#healing.signal }).catch(() => undefined);
        await end();
      } catch (error) {
        this.problems.push(error instanceof Error ? error.message : String(error));
      }
    };
    const broken = body().finally(() => this.#broken.delete(broken));
    this.#broken.add(broken);
  }

  #onEnd(peer: PeerProcess, unexplained: string | undefined): void {
    this.peers.splice(this.peers.indexOf(peer), 1);
    if (unexplained !== undefined) this.problems.push(`${peer.name} ended by itself: ${unexplained}`);
    else if (!peer.ending) {
      this.counts.removals++;
      this.#note(`${peer.name} was removed`);
    }
    if (peer.network === undefined || this.#network === undefined) return;
    this.#network.removePeer(peer.network).catch((error: unknown) => {
      this.problems.push(`the namespace of ${peer.name} can't be removed: ${String(error)}`);
    });
  }

  #note(text: string): void {
    const seconds = ((performance.now() - this.#startedAtMs) / 1_000).toFixed(2);
    this.#log.push(`${seconds.padStart(7)} s  ${text}`);
    if (this.#log.length > LOG_LINES) this.#log.shift();
  }
}
