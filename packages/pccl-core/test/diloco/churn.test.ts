/**
 * Goal: peers come and go without any survivor losing work. Method: three processes train; one is killed, a new
 * one joins. The run is then simulated here from nothing but who took part in which step: every contribution
 * that was lost or counted twice would show in the result.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Coordinator } from "@pccl/core/coordinator";
import type { OuterStep } from "@pccl/core/diloco";
import { expect, it } from "vitest";
import { nesterovStep } from "./fixtures/reference.mjs";
import { createParameters, INNER_STEPS, innerStep } from "./fixtures/toy-model.mjs";

const FIXTURE = fileURLToPath(new URL("./fixtures/peer.mjs", import.meta.url));
const OUTER_STEPS = 40;

type Message =
  | { kind: "pending" }
  | { kind: "joined"; index: number }
  | { kind: "outer"; step: OuterStep }
  | { kind: "finished"; digest: string; parameters: number[] };

class Peer {
  readonly process: ChildProcess;
  readonly messages: Message[] = [];
  #changed = (): void => undefined;

  constructor(address: string, ordinal: number) {
    const config = JSON.stringify({ address, ordinal, outerSteps: OUTER_STEPS });
    this.process = fork(FIXTURE, [config], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.process.on("message", (message) => {
      this.messages.push(message as Message);
      this.#changed();
    });
    this.process.on("exit", () => this.#changed());
  }

  get steps(): OuterStep[] {
    return this.messages.flatMap((message) => (message.kind === "outer" ? [message.step] : []));
  }

  find<K extends Message["kind"]>(kind: K): Extract<Message, { kind: K }> | undefined {
    return this.messages.find((message): message is Extract<Message, { kind: K }> => message.kind === kind);
  }

  proceed(until: number): void {
    if (this.process.connected) this.process.send({ until }, () => undefined);
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      const { exitCode, signalCode } = this.process;
      if (exitCode !== null || signalCode !== null) {
        throw new Error(`the peer ended too early: ${signalCode ?? exitCode}`);
      }
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

it("survivors of a kill and a newcomer end with the same bytes, and with everybody's work in them", async () => {
  const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: 3 });
  const peers = [0, 1, 2].map((ordinal) => new Peer(coordinator.address, ordinal));
  const [first, second, victim] = peers as [Peer, Peer, Peer];
  try {
    for (const peer of peers) peer.proceed(12);
    await first.until(() => first.steps.length >= 5);
    victim.process.kill("SIGKILL");
    await once(victim.process, "exit");
    // Not before a step without the victim, or the group would have three members all the time.
    await first.until(
      () => first.steps.length === 12 || first.steps.some(({ worldSize }) => worldSize === 2),
    );
    const newcomer = new Peer(coordinator.address, 3);
    peers.push(newcomer);
    newcomer.proceed(OUTER_STEPS);
    await newcomer.until(() => newcomer.find("pending") !== undefined);
    for (const peer of [first, second]) peer.proceed(OUTER_STEPS);

    const alive = [first, second, newcomer];
    await Promise.all(alive.map((peer) => peer.until(() => peer.find("finished") !== undefined)));
    const joinedAt = newcomer.find("joined")?.index ?? -1;
    expect(joinedAt).toBeLessThan(OUTER_STEPS);
    for (const peer of alive) {
      expect(peer.find("finished")?.digest).toBe(first.find("finished")?.digest);
      expect(peer.find("finished")?.parameters).toEqual(first.find("finished")?.parameters);
      expect(peer.steps.flatMap(({ repairedKeys }) => repairedKeys)).toEqual([]);
    }
    const sizes = first.steps.map(({ worldSize }) => worldSize);
    expect(sizes).toHaveLength(OUTER_STEPS);
    expect(second.steps.map(({ worldSize }) => worldSize)).toEqual(sizes);
    expect(newcomer.steps.map(({ worldSize }) => worldSize)).toEqual(sizes.slice(joinedAt));
    // Three, then two without the victim, then three with the newcomer: nothing else.
    const deathAt = sizes.indexOf(2);
    expect(deathAt).toBeGreaterThanOrEqual(5);
    expect(joinedAt).toBeGreaterThan(deathAt);
    expect(sizes).toEqual(
      Array.from({ length: OUTER_STEPS }, (_, i) => (i >= deathAt && i < joinedAt ? 2 : 3)),
    );

    const expected = simulate((step) => (step < deathAt ? [0, 1, 2] : step < joinedAt ? [0, 1] : [0, 1, 3]));
    const actual = first.find("finished")?.parameters ?? [];
    for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 4);
  } finally {
    for (const peer of peers) peer.process.kill("SIGKILL");
    await coordinator.close();
  }
}, 60_000);

/** The parameters after all steps when the given peers take part in each. */
function simulate(takingPart: (step: number) => readonly number[]): Float32Array {
  const { data: global } = createParameters();
  const momentum = new Float32Array(global.length);
  for (let step = 0; step < OUTER_STEPS; step++) {
    const delta = new Float32Array(global.length);
    const ordinals = takingPart(step);
    for (const ordinal of ordinals) {
      const local = global.slice();
      for (let inner = 0; inner < INNER_STEPS; inner++) innerStep(local, ordinal);
      for (let i = 0; i < delta.length; i++) {
        delta[i] = (delta[i] as number) + ((global[i] as number) - (local[i] as number)) / ordinals.length;
      }
    }
    nesterovStep(global, momentum, delta, 0.7, 0.9);
  }
  return global;
}
