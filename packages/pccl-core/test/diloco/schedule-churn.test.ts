/**
 * Goal: with every schedule peers leave, crash and join at any point, nobody hangs, and all hold the same bits after
 * every round. Method: real processes; one after the other is killed at a moment of no meaning, stopped and killed, or
 * closes in the middle, and a new one comes for each; every peer's digest of every round is compared.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Coordinator } from "@pccl/core/coordinator";
import { afterEach, describe, expect, it } from "vitest";

const FIXTURE = fileURLToPath(new URL("./fixtures/churn-peer.mjs", import.meta.url));
const ROUNDS = 90;

type Message =
  | { kind: "pending"; round: number }
  | { kind: "joined"; round: number }
  | { kind: "round"; round: number; digest: string; worldSize: number }
  | { kind: "finished"; round: number; digest: string; parameters: number[] };

class Peer {
  readonly process: ChildProcess;
  readonly messages: Message[] = [];
  #changed = (): void => undefined;

  constructor(address: string, ordinal: number, until: number, options: object) {
    const config = JSON.stringify({ address, ordinal, rounds: ROUNDS, until, options });
    this.process = fork(FIXTURE, [config], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.process.on("message", (message) => {
      this.messages.push(message as Message);
      this.#changed();
    });
    this.process.on("exit", () => this.#changed());
  }

  get round(): number {
    return this.messages.at(-1)?.round ?? -1;
  }

  proceed(until: number): void {
    if (this.process.connected) this.process.send({ until }, () => undefined);
  }

  get isFinished(): boolean {
    return this.messages.at(-1)?.kind === "finished";
  }

  get hasEnded(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.hasEnded) throw new Error("the peer ended too early");
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

const peers: Peer[] = [];
let coordinator: Coordinator | undefined;

afterEach(async () => {
  for (const peer of peers.splice(0)) peer.process.kill("SIGKILL");
  await coordinator?.close();
});

describe.each([
  ["sync", { schedule: "sync" }],
  ["async, 8-bit", { schedule: "async", wire: "8-bit" }],
  ["eager", { schedule: "eager" }],
  ["streaming, top-k", { schedule: { kind: "streaming", fragments: 2, delaySteps: 1 }, wire: "top-k" }],
] as const)("%s", (_name, options) => {
  it("keeps all peers at the same bits while they are killed and come", async () => {
    coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 3 });
    const { address } = coordinator;
    const spawn = (until: number): Peer => {
      const peer = new Peer(address, peers.length, until, options);
      peers.push(peer);
      return peer;
    };
    for (let i = 0; i < 3; i++) spawn(30);
    const [first, second, third] = peers as [Peer, Peer, Peer];
    let living = [first, second];
    let newcomer = third;
    // The last but one is killed in the middle of a stretch; at its end the group waits until a new one is pending.
    for (const [victim, until] of [
      [third, 30],
      [second, 60],
    ] as const) {
      await first.until(() => first.round >= until - 20);
      victim.process.kill("SIGKILL");
      await once(victim.process, "exit");
      living = living.filter((peer) => peer !== victim);
      await Promise.all(living.map((peer) => peer.until(() => peer.round >= until - 1)));
      newcomer = spawn(until + 30);
      await newcomer.until(() => newcomer.messages.length > 0);
      living.push(newcomer);
      for (const peer of living) peer.proceed(until + 30);
    }
    const [, fourth, fifth] = living as [Peer, Peer, Peer];
    await Promise.all(living.map((peer) => peer.until(() => peer.isFinished)));

    // Of every round, on every peer that lived to report it.
    const digests = new Map<number, Set<string>>();
    for (const message of peers.flatMap(({ messages }) => messages)) {
      if (message.kind === "joined" || message.kind === "pending") continue;
      digests.set(message.round, (digests.get(message.round) ?? new Set()).add(message.digest));
    }
    expect([...digests.keys()].sort((a, b) => a - b)).toEqual(
      Array.from({ length: ROUNDS }, (_, i) => i + 1),
    );
    expect([...digests].filter(([, set]) => set.size !== 1)).toEqual([]);
    // Newcomers came into a group that had gone on, and were counted in it.
    for (const peer of [fourth, fifth]) {
      const joined = peer.messages.find(({ kind }) => kind === "joined");
      expect(joined?.round).toBeGreaterThan(0);
      expect(joined?.round).toBeLessThan(ROUNDS - 10);
    }
    const last = living.map((peer) => peer.messages.at(-1) as Extract<Message, { kind: "finished" }>);
    expect(new Set(last.map(({ digest }) => digest)).size).toBe(1);
    expect(last.every(({ round, parameters }) => round === ROUNDS && parameters.every(Number.isFinite))).toBe(
      true,
    );
    // Towards the mean of the living peers' targets, or they would have trained in vain.
    const off = last[0]?.parameters.map((value, i) => {
      const targets = [0, 3, 4].map((ordinal) => Math.sin(10 * ordinal + i));
      return Math.abs(value - targets.reduce((sum, target) => sum + target, 0) / 3);
    });
    expect(Math.max(...(off ?? []))).toBeLessThan(0.5);
  }, 60_000);
});
