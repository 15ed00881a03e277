/** A coordinator and admitted peers, all in this process; whoever is open ends with the test. */
import { type Communicator, type ConnectOptions, connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { afterEach } from "vitest";

const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const one of open.splice(0).toReversed()) await one.close();
});

/** Ends `one` after the test. */
export function closing<T extends { close(): Promise<void> }>(one: T): T {
  open.push(one);
  return one;
}

export interface World {
  readonly coordinator: Coordinator;
  /** In the order of their ids, which begin with 1. */
  readonly peers: readonly Communicator[];
}

export async function world(size: number, options: ConnectOptions = {}): Promise<World> {
  const coordinator = closing(await Coordinator.start({ listen: "127.0.0.1:0", minPeers: size }));
  const peers = await Promise.all(
    Array.from({ length: size }, () => connect(coordinator.address, options).then(closing)),
  );
  return { coordinator, peers: peers.sort((a, b) => a.peerId - b.peerId) };
}

/** Ends when `condition` holds; a test's own timeout is the limit. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** The peer waits in a collective call for the others. */
export async function waiting(coordinator: Coordinator, peerId: number): Promise<void> {
  await until(() => coordinator.peers().find((peer) => peer.peerId === peerId)?.waitsIn !== undefined);
}
