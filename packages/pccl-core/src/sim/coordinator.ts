/**
 * The simulated coordinator process: the machine that ships, its streams and, if it has one, its journal. Effects
 * leave once what they follow from is on disk; a crash keeps that, and of the rest as much as chance wrote.
 */
import { step } from "../membership/coordinator.js";
import type { CoordinatorMessage, Endpoint, Envelope, PeerMessage } from "../membership/messages.js";
import {
  type ConnectionId,
  type CoordinatorConfig,
  type CoordinatorEffect,
  type CoordinatorEvent,
  type CoordinatorLog,
  type CoordinatorState,
  createCoordinator,
  type PeerId,
  type ProbeResult,
} from "../membership/state.js";
import { Violation } from "./invariants.js";
import { Journal } from "./journal.js";
import type { Stream, StreamEnd } from "./network.js";
import type { Process, Thread } from "./process.js";
import type { Random } from "./random.js";

export type ControlStream = Stream<Envelope<PeerMessage>, Envelope<CoordinatorMessage>>;

export const COORDINATOR_HOST = "coordinator";

export interface CoordinatorSurroundings {
  readonly random: Random;
  /** A process that begins now; its clock goes on from `nowMs`. */
  spawn(nowMs: number): Process;
  probe(endpoint: Endpoint, onResult: (result: ProbeResult) => void): void;
  /** A fault may be waiting for the moment in which the coordinator takes such a message. */
  onTaken(kind: string): void;
  /** What left the coordinator for a peer. */
  onSent(message: Envelope<CoordinatorMessage>, peerId: PeerId): void;
  /** `holders`: for a completed sync, who took part. */
  onLog(log: CoordinatorLog, holders: ReadonlySet<number>): void;
}

interface Released {
  readonly effect: CoordinatorEffect;
  /** Who is sent something. */
  readonly peerId: PeerId | undefined;
  /** Who took part in a sync that is complete. */
  readonly holders: ReadonlySet<PeerId>;
}

export class SimCoordinator {
  /** Counts the worlds: a coordinator that starts without its state knows nothing of the last one. */
  generation = 0;
  state: CoordinatorState;
  process: Process;
  #thread: Thread;
  readonly #config: Omit<CoordinatorConfig, "key">;
  readonly #around: CoordinatorSurroundings;
  readonly #streams = new Map<ConnectionId, ControlStream>();
  #nextConnection = 1;
  #journal: Journal<Released> | undefined;
  /** Up to this long until a write is on disk; undefined: no journal. */
  readonly #syncMsMax: number | undefined;

  constructor(
    config: Omit<CoordinatorConfig, "key">,
    syncMsMax: number | undefined,
    around: CoordinatorSurroundings,
  ) {
    this.#config = config;
    this.#around = around;
    this.#syncMsMax = syncMsMax;
    this.state = this.#empty();
    this.process = around.spawn(0);
    this.#thread = this.process.thread();
    this.#begin();
  }

  get isDurable(): boolean {
    return this.#syncMsMax !== undefined;
  }

  get isRunning(): boolean {
    return this.process.state !== "dead";
  }

  /** The acceptor's end of a stream from `host`; `attend` gives it the stream. */
  listen(host: string): {
    readonly end: StreamEnd<Envelope<PeerMessage>>;
    attend(stream: ControlStream): void;
  } {
    const connection = this.#nextConnection++;
    return {
      end: {
        host: COORDINATOR_HOST,
        thread: this.#thread,
        onMessage: (envelope) => this.#handle({ kind: "message", connection, ...envelope }),
        onEnd: (reason) => {
          this.#streams.delete(connection);
          this.#handle({ kind: "disconnected", connection, reason });
        },
      },
      attend: (stream) => {
        this.#streams.set(connection, stream);
        const secret = Uint8Array.from({ length: 16 }, () => this.#around.random.below(256));
        this.#thread.deliver(() => this.#handle({ kind: "connected", connection, address: host, secret }));
      },
    };
  }

  crash(): void {
    this.process.die();
    for (const stream of this.#streams.values()) stream.abandon(1);
    this.#streams.clear();
  }

  /** With a journal, as the last coordinator was as far as it is on disk; else knowing nothing. */
  restart(): void {
    const found = this.#journal?.crash(this.#around.random);
    if (found === undefined) this.generation++;
    const before = this.state;
    this.state = this.#empty();
    for (const [index, { event, nowMs }] of (found?.entries ?? []).entries()) {
      const effects = this.#step(event, nowMs);
      // Peers hear of what hadn't left yet when they attach; those who watch hear of it now.
      if (index >= (found?.released ?? 0)) for (const effect of effects) this.#report(effect);
    }
    if (found?.isWhole === true && stateText(before) !== stateText(this.state)) {
      throw new Violation("replay", "the journal's events give another state than they gave when they came");
    }
    this.process = this.#around.spawn(found?.entries.at(-1)?.nowMs ?? 0);
    this.#thread = this.process.thread();
    this.#begin();
    if (found !== undefined) this.#handle({ kind: "restarted" });
  }

  #begin(): void {
    if (this.#syncMsMax !== undefined) {
      this.#journal ??= new Journal((released) => this.#release(released));
      this.#journal.open(this.#thread, this.#around.random, this.#syncMsMax);
    }
    this.#tick();
  }

  #empty(): CoordinatorState {
    return createCoordinator({ ...this.#config, key: new Uint8Array(16).fill(this.generation) });
  }

  #tick(): void {
    this.#thread.after(this.#config.leaseMs / 10, () => {
      this.#handle({ kind: "tick" });
      this.#tick();
    });
  }

  #handle(event: CoordinatorEvent): void {
    const { nowMs } = this.process;
    const effects = this.#step(event, nowMs);
    if (this.#journal === undefined) for (const effect of effects) this.#release(effect);
    else this.#journal.append({ event, nowMs }, effects);
    if (event.kind === "message") this.#around.onTaken(event.message.kind);
  }

  #step(event: CoordinatorEvent, nowMs: number): Released[] {
    return step(this.state, event, nowMs).map((effect): Released => {
      const synced = effect.kind === "log" && effect.log.event === "synced" ? effect.log.group : undefined;
      const record = synced === undefined ? undefined : this.state.records.get(synced);
      const peerId = effect.kind === "send" ? this.state.peerOf.get(effect.connection) : undefined;
      return { effect, peerId, holders: record?.holders ?? new Set() };
    });
  }

  #report({ effect, holders }: Released): void {
    if (effect.kind === "log") this.#around.onLog(effect.log, holders);
  }

  #release(released: Released): void {
    const { effect } = released;
    switch (effect.kind) {
      case "send": {
        const { connection, seq, ack, message } = effect;
        if (released.peerId !== undefined) this.#around.onSent({ seq, ack, message }, released.peerId);
        this.#streams.get(connection)?.sendToDialler({ seq, ack, message });
        return;
      }
      case "end":
        this.#streams.get(effect.connection)?.end(1);
        this.#streams.delete(effect.connection);
        return;
      case "probe": {
        const { peerId, endpoint } = effect;
        const thread = this.#thread;
        this.#around.probe(endpoint, (result) =>
          thread.deliver(() => this.#handle({ kind: "probed", peerId, result })),
        );
        return;
      }
      case "log":
        return this.#report(released);
    }
  }
}

function stateText(state: CoordinatorState): string {
  return JSON.stringify(state, (_, value: unknown) => {
    if (value instanceof Map || value instanceof Set) return [...(value as Iterable<unknown>)];
    return typeof value === "bigint" ? `${value}n` : value;
  });
}
