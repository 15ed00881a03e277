/** One peer process as a stress run sees it: where it is, and what has been done to it. */
import type { ChildProcess } from "node:child_process";
import { endsWithin, hasEnded, kill, start } from "../process/child.js";
import type { PeerCommand, PeerConfig, PeerMessage, Phase, StepReport } from "./messages.js";
import type { PeerNetwork } from "./network.js";

export interface PeerHooks {
  onStep(peer: PeerProcess, report: StepReport): void;
  /** The process has ended; `how` says how when nothing was done to it that explains it. */
  onEnd(peer: PeerProcess, unexplained: string | undefined): void;
}

export class PeerProcess {
  readonly name: string;
  readonly group: number;
  readonly network: PeerNetwork | undefined;
  readonly startedAtMs: number = performance.now();
  readonly #child: ChildProcess;
  readonly #hooks: PeerHooks;
  peerId: number | undefined;
  phase: Phase = "connect";
  lastReport: StepReport | undefined;
  /** When it was last seen to get on: a step, its admission, or the end of a fault. */
  progressAtMs: number = performance.now();
  /** Told to leave or killed: not counted any more. */
  ending = false;
  /** Stopped or cut at the moment. */
  impaired: "stopped" | "cut" | undefined;
  /** A fault that it may have been removed for. */
  excuse: string | undefined;
  #ended: string | undefined;

  constructor(ordinal: number, config: PeerConfig, network: PeerNetwork | undefined, hooks: PeerHooks) {
    this.name = `process ${ordinal}`;
    this.group = config.group;
    this.network = network;
    this.#hooks = hooks;
    this.#child = start(new URL("./peer.js", import.meta.url), [JSON.stringify(config)], {
      namespace: network?.namespace,
    });
    this.#child.on("message", (message) => this.#onMessage(message as PeerMessage));
    this.#child.on("error", (error) => {
      this.#ended = error.message;
    });
    this.#child.on("exit", (code, signal) => {
      const onEnd = (): void => hooks.onEnd(this, this.#unexplained(code, signal));
      // What it said last may still be unread.
      if (this.#child.connected) this.#child.once("disconnect", onEnd);
      else onEnd();
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get living(): boolean {
    return !this.ending && !hasEnded(this.#child);
  }

  /** Takes part in its group's steps. */
  get working(): boolean {
    return this.living && this.impaired === undefined && this.lastReport !== undefined;
  }

  signal(name: "SIGSTOP" | "SIGCONT"): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    this.ending = true;
    await kill(this.#child);
  }

  leave(): void {
    this.ending = true;
    const command: PeerCommand = { kind: "leave" };
    if (this.#child.connected) this.#child.send(command, () => undefined);
  }

  /** Whether the process has ended by itself in time. */
  async endsWithin(timeoutMs: number): Promise<boolean> {
    return await endsWithin(this.#child, timeoutMs);
  }

  describe(): string {
    const { name, pid, peerId, group, phase, lastReport, impaired, progressAtMs } = this;
    const silentS = ((performance.now() - progressAtMs) / 1_000).toFixed(1);
    return (
      `${name} (pid ${pid}, peer ${peerId ?? "?"}, group ${group}): waits in ${phase}, last step ` +
      `${lastReport?.step ?? "none"} in epoch ${lastReport?.epoch ?? "none"}, no progress for ${silentS} s` +
      (impaired === undefined ? "" : `, ${impaired}`)
    );
  }

  #onMessage(message: PeerMessage): void {
    switch (message.kind) {
      case "phase":
        this.phase = message.phase;
        break;
      case "admitted":
        this.peerId = message.peerId;
        this.progressAtMs = performance.now();
        break;
      case "step":
        this.lastReport = message;
        this.progressAtMs = performance.now();
        this.#hooks.onStep(this, message);
        break;
      case "ended":
        this.#ended = `${message.code}: ${message.message}`;
        break;
    }
  }

  #unexplained(code: number | null, signal: NodeJS.Signals | null): string | undefined {
    if (this.ending) return undefined;
    // Out of the world by a fault that lasted longer than the lease is what has to happen.
    const removed = /^ERR_PCCL_(REMOVED|COORDINATOR_LOST|COORDINATOR_UNREACHABLE):/.test(this.#ended ?? "");
    if (this.excuse !== undefined && removed && code === 0) return undefined;
    return this.#ended ?? (signal === null ? `exit code ${code}` : `signal ${signal}`);
  }
}
