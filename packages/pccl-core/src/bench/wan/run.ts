/** Runs a scenario: for each of its networks, each of its cases between processes in the network's hosts. */
import { once } from "node:events";
import { pcclError } from "../../base/errors.js";
import { kill, start } from "../../process/child.js";
import type { BenchJob, Measurement } from "../job.js";
import { type BenchHooks, runBenchAt } from "../run.js";
import { ringBound, roundTripMax } from "./bound.js";
import type { CaseChoice, Network, Scenario } from "./scenario.js";
import { EmulatedNetwork } from "./wanem.js";

/** One line of the results. Names and units are public: `pccl bench wan --json` prints exactly this. */
export interface WanMeasurement extends Measurement {
  /** The values that the scenario varies, or "". */
  readonly network: string;
  readonly connections: CaseChoice["connections"];
  readonly congestionControl: string;
  /** Of the slowest link, in bits per second on the wire. */
  readonly linkBitsPerSecond: number;
  readonly roundTripSeconds: number;
  /** What no ring of these links can be faster than; of an all-reduce only. */
  readonly boundSeconds: number | undefined;
  /** The bound's share of the median. */
  readonly efficiency: number | undefined;
}

export interface WanHooks {
  /** Ends the run: it rejects with the signal's reason. */
  readonly signal: AbortSignal;
  /** Where the run is. */
  readonly onStatus: (status: string) => void;
  readonly onMeasurement: (measurement: WanMeasurement) => void;
}

/** Rejects with ERR_PCCL_INVALID_ARGUMENT when `wanem` can't make the network, or as runBenchAt does. */
export async function runScenario(scenario: Scenario, wanem: string, hooks: WanHooks): Promise<void> {
  for (const network of scenario.networks) {
    hooks.signal.throwIfAborted();
    hooks.onStatus(`${scenario.hosts} hosts are made`);
    const emulated = await EmulatedNetwork.create(wanem, network.matrix);
    try {
      for (const choice of scenario.cases) await runCase(scenario, network, emulated, choice, hooks);
    } finally {
      await emulated.close();
    }
  }
}

async function runCase(
  scenario: Scenario,
  network: Network,
  emulated: EmulatedNetwork,
  choice: CaseChoice,
  { signal, onStatus, onMeasurement }: WanHooks,
): Promise<void> {
  const label = [network.name, describeChoice(choice)].filter(Boolean).join(", ");
  const hooks: BenchHooks = {
    signal,
    onProgress: ({ phase }) => onStatus(`${label}: ${phase}`),
    onMeasurement: (measurement) => onMeasurement(withBound(measurement, network, choice)),
  };
  // Every case has a world of its own: what its connections have learned is of no use to the next one.
  const coordinator = start(
    new URL("./coordinator.js", import.meta.url),
    [`${emulated.addressOf(0)}:0`, String(scenario.hosts)],
    { namespace: emulated.namespaceOf(0) },
  );
  try {
    const ended = once(coordinator, "exit").then(([code]) => {
      throw pcclError(
        "ERR_PCCL_INTERNAL",
        `bench wan: the coordinator's process ended with code ${String(code)}.`,
      );
    });
    const [address] = (await Promise.race([once(coordinator, "message"), ended])) as [string];
    const place = { coordinator: address, namespaceOf: (peer: number) => emulated.namespaceOf(peer) };
    await Promise.race([runBenchAt(place, jobOf(scenario, choice), hooks), ended]);
  } finally {
    await kill(coordinator);
  }
}

function jobOf({ collective, hosts, iterations, warmUpSeconds }: Scenario, choice: CaseChoice): BenchJob {
  return {
    collective,
    world: hosts,
    sizesBytes: [choice.bytes],
    dtype: choice.dtype,
    op: "sum",
    quantize: choice.quantize === "none" ? undefined : choice.quantize,
    place:
      collective === "all-reduce" || collective === "broadcast" || collective === "barrier" ? "in" : "out",
    transport: "auto",
    connectionsPerPeer: choice.connections === "auto" ? undefined : choice.connections,
    congestionControl: choice.congestionControl === "default" ? undefined : choice.congestionControl,
    warmUpSeconds,
    iterations,
    skew: undefined,
    memory: "array",
    concurrency: 1,
  };
}

function withBound(
  measurement: Measurement,
  { name, links }: Network,
  { connections, congestionControl }: CaseChoice,
): WanMeasurement {
  const boundSeconds =
    measurement.collective === "all-reduce" ? ringBound(links, measurement.bytes) : undefined;
  return {
    ...measurement,
    network: name,
    connections,
    congestionControl,
    linkBitsPerSecond: Math.min(
      ...links.flatMap((row, from) => row.filter((_, to) => to !== from).map((link) => link.bitsPerSecond)),
    ),
    roundTripSeconds: roundTripMax(links),
    boundSeconds,
    efficiency: boundSeconds === undefined ? undefined : boundSeconds / measurement.medianSeconds,
  };
}

function describeChoice({ connections, congestionControl, dtype, quantize }: CaseChoice): string {
  return `${connections} connections, ${congestionControl}, ${dtype}${quantize === "none" ? "" : ` as ${quantize}`}`;
}
