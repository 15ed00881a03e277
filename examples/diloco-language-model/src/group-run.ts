/**
 * The run itself: a coordinator in this process and peers in others; one is killed, one joins. Training needs
 * none of this file: it starts processes, and listens to what they report.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Coordinator } from "@pccl/core/coordinator";
import type { PeerCommand, PeerConfig, PeerMessage } from "./messages.js";
import type { Options } from "./options.js";
import { makePlan, type Plan } from "./plan.js";
import { StepLog, type StepRecord } from "./step-log.js";
import type { Watchdog } from "./watchdog.js";
import { WorkerProcess } from "./worker-process.js";

export interface GroupEvents {
  /** Something worth a line: a peer was killed, one joined. */
  event(text: string): void;
  /** All peers have reported an outer step. */
  step(record: StepRecord): void;
  /** A sign of life within outer step `index` + 1. */
  inner(index: number, done: number): void;
}

export interface FinalState {
  readonly name: string;
  readonly index: number;
  readonly digest: string;
}

export interface GroupResult {
  readonly records: readonly StepRecord[];
  readonly killed: number;
  /** Newcomers that contributed to, or at least received, the group's parameters. */
  readonly joined: number;
  /** Of every peer that wasn't killed. */
  readonly finalStates: readonly FinalState[];
  readonly sample: string;
  /** From the first peer's start to the last peer's end. */
  readonly seconds: number;
}

interface Peer {
  readonly name: string;
  readonly process: WorkerProcess<PeerMessage>;
  state: "starting" | "pending" | "training" | "finished" | "killed";
  /** Outer steps that its parameters have behind them; −1 before it has joined. */
  index: number;
  /** The index that it joined at. */
  since: number;
  digest: string;
  /** Its last sign of life, for the watchdog's report. */
  lastSign: string;
}

const SAMPLE_BYTES = 400;

export class GroupRun {
  readonly #options: Options;
  readonly #textFile: string;
  readonly #plan: Plan;
  readonly #events: GroupEvents;
  readonly #watchdog: Watchdog;
  readonly #log = new StepLog();
  readonly #peers: Peer[] = [];
  #coordinator = "";
  /** The next record to be shown. */
  #shown = 0;
  #stepStart: number = performance.now();
  #stepSeconds = 0.1;
  #newcomer: Peer | undefined;
  #killPlanned = false;
  readonly #over = new AbortController();
  #resolve!: (sample: string) => void;
  #reject!: (error: Error) => void;
  readonly #ended: Promise<string>;

  constructor(options: Options, textFile: string, events: GroupEvents, watchdog: Watchdog) {
    this.#options = options;
    this.#textFile = textFile;
    this.#events = events;
    this.#watchdog = watchdog;
    this.#plan = makePlan(options.seed, options.peers, options.outerSteps);
    this.#ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Rejects with `signal`'s reason, or with what went wrong; either way no process is left. */
  async run(signal: AbortSignal): Promise<GroupResult> {
    const start = performance.now();
    const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: this.#options.peers });
    const onAbort = (): void => this.#reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      this.#coordinator = coordinator.address;
      for (let i = 0; i < this.#options.peers; i++) this.#spawn();
      const sample = await this.#ended;
      return {
        records: this.#log.records,
        killed: this.#peers.filter(({ state }) => state === "killed").length,
        joined: this.#newcomer !== undefined && this.#newcomer.since >= 0 ? 1 : 0,
        finalStates: this.#peers.filter(({ state }) => state !== "killed"),
        sample,
        seconds: (performance.now() - start) / 1000,
      };
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#over.abort();
      await Promise.all(this.#peers.map((peer) => peer.process.end()));
      await coordinator.close();
    }
  }

  /** One line for each peer: where it is, and since when. */
  describe(): string {
    return this.#peers
      .map(
        ({ name, state, index, lastSign }) =>
          `${name}: ${state}, outer step ${index}, last sign: ${lastSign}`,
      )
      .join("\n");
  }

  #spawn(): Peer {
    const ordinal = this.#peers.length;
    const { seed, outerSteps, innerSteps } = this.#options;
    const coordinator = this.#coordinator;
    const config: PeerConfig = {
      coordinator,
      textFile: this.#textFile,
      seed,
      ordinal,
      outerSteps,
      innerSteps,
    };
    const peer: Peer = {
      name: `peer ${ordinal + 1}`,
      process: new WorkerProcess<PeerMessage>(new URL("./peer.js", import.meta.url), config, {
        onMessage: (message) => this.#onMessage(peer, message),
        onCrash: (how) => this.#reject(new Error(`${peer.name} ended by itself (${how}).`)),
      }),
      state: "starting",
      index: -1,
      since: -1,
      digest: "",
      lastSign: "started",
    };
    this.#peers.push(peer);
    this.#proceed(peer);
    return peer;
  }

  #onMessage(peer: Peer, message: PeerMessage): void {
    // What a killed peer had said before it died may still arrive.
    if (peer.state === "killed") return;
    this.#watchdog.feed();
    peer.lastSign = `${message.kind} at ${new Date().toISOString().slice(11, 19)}`;
    switch (message.kind) {
      case "pending":
        peer.state = "pending";
        this.#proceedAll();
        break;
      case "joined":
        peer.state = "training";
        peer.index = message.index;
        peer.since = message.index;
        peer.digest = message.digest;
        this.#log.addHeldOut(message.index, message.heldOut);
        if (peer === this.#newcomer) this.#note(`${peer.name} joined, received the group's parameters`);
        else this.#noteBeginning(message.worldSize, message.epoch);
        break;
      case "inner":
        // One peer is enough for a status line; the others are about as far.
        if (peer === this.#living()[0]) this.#events.inner(message.index, message.done);
        return;
      case "outer":
        peer.index = message.step.index;
        peer.digest = message.digest;
        this.#onFirstReport(message.step.index);
        this.#log.addStep(message.step);
        this.#log.addHeldOut(message.step.index, message.heldOut);
        break;
      case "finished":
        peer.state = "finished";
        break;
      case "sample":
        this.#resolve(message.text);
        return;
    }
    this.#showCompleted();
    this.#act();
  }

  #noteBeginning(worldSize: number, epoch: number): void {
    const record = this.#log.at(0);
    record.worldSize = worldSize;
    record.epoch = epoch;
    if (this.#living().every(({ state }) => state === "training")) this.#stepStart = performance.now();
  }

  #onFirstReport(index: number): void {
    if (index < this.#log.records.length) return;
    const now = performance.now();
    this.#stepSeconds = (now - this.#stepStart) / 1000;
    this.#stepStart = now;
  }

  /** Kills, starts a newcomer, lets the last steps begin, asks for the sample: what is due by now. */
  #act(): void {
    const living = this.#living();
    const begun = living.every(({ state }) => state === "training" || state === "finished");
    const furthest = Math.max(...living.map(({ index }) => index));
    const { victim, killAfter, killDelay, joinAfter } = this.#plan;
    if (begun && !this.#killPlanned && victim !== undefined && furthest >= killAfter) {
      this.#killPlanned = true;
      void delay(killDelay * this.#stepSeconds * 1000, undefined, { signal: this.#over.signal }).then(
        () => this.#kill(this.#peers[victim] as Peer),
        () => undefined,
      );
    }
    if (begun && this.#newcomer === undefined && furthest >= joinAfter) {
      this.#newcomer = this.#spawn();
      this.#note(`${this.#newcomer.name} starts`);
    }
    if (this.#newcomer !== undefined && this.#living().every(({ state }) => state === "finished")) {
      const command: PeerCommand = { kind: "sample", length: SAMPLE_BYTES };
      living[0]?.process.send(command);
    }
  }

  #kill(peer: Peer): void {
    peer.process.kill();
    peer.state = "killed";
    this.#note(`${peer.name} killed`);
    this.#showCompleted();
    this.#proceedAll();
    this.#act();
  }

  #proceedAll(): void {
    for (const peer of this.#living()) this.#proceed(peer);
  }

  /** See Plan.holdAt. */
  #proceed(peer: Peer): void {
    const { victim, holdAt } = this.#plan;
    const killed = victim === undefined || this.#peers[victim]?.state === "killed";
    const newcomerWaits = this.#newcomer !== undefined && this.#newcomer.state !== "starting";
    const until = killed && newcomerWaits ? this.#options.outerSteps : holdAt - 1;
    peer.process.send({ kind: "proceed", until } satisfies PeerCommand);
  }

  /** Shows the records that every living peer that took part has reported, in order. */
  #showCompleted(): void {
    const living = this.#living().filter((peer) => peer !== this.#newcomer || peer.since >= 0);
    for (; this.#shown < this.#log.records.length; this.#shown++) {
      if (living.some(({ index }) => index < this.#shown)) return;
      this.#events.step(this.#log.at(this.#shown));
    }
  }

  #note(event: string): void {
    this.#log.addEvent(event);
    this.#events.event(event);
  }

  #living(): Peer[] {
    return this.#peers.filter(({ state }) => state !== "killed");
  }
}
