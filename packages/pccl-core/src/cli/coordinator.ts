/** `pccl coordinator`: runs a coordinator until a signal ends it, and prints one line per event. */
import { parseArgs } from "node:util";
import { COORDINATOR_PORT, LEASE_DEFAULT_MS, LEASE_MAX_MS, LEASE_MIN_MS } from "../base/limits.js";
import { Coordinator, type CoordinatorOptions } from "../control/index.js";
import { UsageError } from "./usage.js";

export const COORDINATOR_USAGE: string = `Usage: pccl coordinator [options]

Runs the coordinator of a world: peers connect to it with connect("HOST:PORT"). It admits
peers, publishes views, and settles ops after failures; tensors don't pass through it.

Options:
  --listen HOST:PORT   Address to listen on, IPv6 as [::1]:PORT; port 0: any free one
                       (default 127.0.0.1:${COORDINATOR_PORT}; 0.0.0.0 for peers on other machines)
  --lease-ms N         Silence after which a peer counts as dead, ${LEASE_MIN_MS} to ${LEASE_MAX_MS} (default ${LEASE_DEFAULT_MS})
  --min-peers N        Peers that must be there before the first world begins (default 1)
  --state DIR          Keep all that it knows in DIR, made if it isn't there: however the coordinator
                       ends, the next one with the same DIR and --listen goes on with the same peers
  --json               One JSON object per line instead of text
  -h, --help           Show this help

SIGINT or SIGTERM ends it; a second one ends it at once. Without --state the world ends with it, and it
tells the peers so. With --state they wait for the next coordinator as long as their coordinatorTimeoutMs,
and ops between them go on meanwhile; to end such a world, end its peers or delete DIR.

Exit codes: 0 ended by a signal, 1 the address can't be had or DIR can't be used (any more), 2 wrong usage,
130 ended by a second signal
`;

interface CoordinatorArguments {
  readonly help: boolean;
  readonly json: boolean;
  readonly options: CoordinatorOptions;
}

function parseCoordinatorArguments(args: readonly string[]): CoordinatorArguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      listen: { type: "string" },
      "lease-ms": { type: "string" },
      "min-peers": { type: "string" },
      state: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const number = (name: "lease-ms" | "min-peers"): number | undefined => {
    const text = values[name];
    if (text === undefined) return undefined;
    if (!/^\d+$/.test(text)) throw new UsageError(`--${name} must be an integer, got "${text}"`);
    return Number(text);
  };
  const [leaseMs, minPeers] = [number("lease-ms"), number("min-peers")];
  return {
    help: values.help,
    json: values.json,
    options: {
      ...(values.listen !== undefined && { listen: values.listen }),
      ...(leaseMs !== undefined && { leaseMs }),
      ...(minPeers !== undefined && { minPeers }),
      ...(values.state !== undefined && { stateDir: values.state }),
    },
  };
}

/** Runs until a signal; returns the exit code. Throws UsageError or PcclError. */
export async function runCoordinator(args: readonly string[]): Promise<number> {
  const { help, json, options } = parseCoordinatorArguments(args);
  if (help) {
    process.stdout.write(COORDINATOR_USAGE);
    return 0;
  }
  const print = (fields: object, message: string): void => {
    const time = new Date().toISOString();
    process.stdout.write(json ? `${JSON.stringify({ time, ...fields, message })}\n` : `${time} ${message}\n`);
  };
  // Peers go on without whoever read this output.
  process.stdout.on("error", () => {});
  const coordinator = await Coordinator.start({ ...options, logger: { info: print, warn: print } });
  const { address } = coordinator;
  // Whoever reads the next line may send a signal at once.
  const signal = firstSignal();
  print({ event: "listening", address }, `listening on ${address}`);
  // Without a signal it only ends when its state directory fails, with the error that says so.
  const name = await Promise.race([signal, coordinator.stopped.then(() => "closed")]);
  const peers = coordinator.peers().length;
  const what =
    options.stateDir === undefined
      ? `telling ${peers} peers and stopping`
      : `stopping; ${peers} peers wait for the next coordinator`;
  print({ event: "stopping", signal: name }, `${name}: ${what}`);
  await coordinator.close();
  print({ event: "stopped" }, "stopped");
  return 0;
}

/** Resolves at the first SIGINT or SIGTERM; a second one ends the process at once. */
function firstSignal(): Promise<string> {
  return new Promise((resolve) => {
    let seen = false;
    const onSignal = (name: string): void => {
      if (seen) process.exit(130);
      seen = true;
      resolve(name);
    };
    process.on("SIGINT", onSignal);
    process.on("SIGTERM", onSignal);
  });
}
