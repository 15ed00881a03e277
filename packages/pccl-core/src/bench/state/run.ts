/** A benchmark of shared state between processes of this machine, on loopback or between emulated hosts. */
import { once } from "node:events";
import { pcclError } from "../../base/errors.js";
import { Coordinator } from "../../control/index.js";
import { kill, start } from "../../process/child.js";
import { type RunHooks, runPeers } from "../run.js";
import { EmulatedNetwork } from "../wan/wanem.js";
import type { StateJob, StateMeasurement } from "./job.js";

/** Hosts with links like these, made by the program wanem. */
export interface StateNetwork {
  readonly wanem: string;
  /** What each host may send in total, and what a link carries, as wanem writes rates. */
  readonly up: string;
  readonly down: string;
  readonly rtt: string;
}

/** Rejects with the error of the peer that failed, or ERR_PCCL_PEER_LOST if its process ended without one. */
export async function runStateBench(job: StateJob, hooks: RunHooks<StateMeasurement>): Promise<void> {
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: job.world });
  const place = { coordinator: coordinator.address, namespaceOf: () => undefined };
  await runPeers(place, { state: job }, job.world, hooks);
}

/** Likewise, each peer on a host of its own. */
export async function runStateBenchOver(
  { wanem, up, down, rtt }: StateNetwork,
  job: StateJob,
  hooks: RunHooks<StateMeasurement>,
): Promise<void> {
  const matrix = { hosts: job.world, uplink: up, default: { rate: down, rtt } };
  const network = await EmulatedNetwork.create(wanem, matrix);
  try {
    const program = new URL("../wan/coordinator.js", import.meta.url);
    const coordinator = start(program, [`${network.addressOf(0)}:0`, String(job.world)], {
      namespace: network.namespaceOf(0),
    });
    try {
      const ended = once(coordinator, "exit").then(([code]) => {
        throw pcclError("ERR_PCCL_INTERNAL", `bench state: the coordinator ended with code ${String(code)}.`);
      });
      const [address] = (await Promise.race([once(coordinator, "message"), ended])) as [string];
      const place = { coordinator: address, namespaceOf: (peer: number) => network.namespaceOf(peer) };
      await Promise.race([runPeers(place, { state: job }, job.world, hooks), ended]);
    } finally {
      await kill(coordinator);
    }
  } finally {
    await network.close();
  }
}
