/** Makes a Communicator: the engine's listener, the control session, and the wait for admission. */
import { formatAddress, parseAddress } from "../base/address.js";
import { checkInteger, checkOneOf, checkOptions, describe } from "../base/check.js";
import { type PcclError, pcclError } from "../base/errors.js";
import {
  CONNECT_TIMEOUT_DEFAULT_MS,
  CONNECTIONS_PER_PEER_MAX,
  COORDINATOR_PORT,
  COORDINATOR_TIMEOUT_DEFAULT_MS,
  GROUP_MAX,
  OPS_IN_FLIGHT_DEFAULT,
  OPS_IN_FLIGHT_MAX,
  TIMEOUT_MAX_MS,
} from "../base/limits.js";
import { CALL_OPTION_KEYS, type CallOptions, limited } from "./call-limits.js";
import { Communicator } from "./communicator.js";
import { ControlSession } from "./control-session.js";
import { EngineOps } from "./engine-ops.js";
import { listenOnFirst, listenRange } from "./listen.js";
import type { InstalledNotice } from "./session-protocol.js";

/** `signal` and `timeoutMs` bound the whole of connect(), the wait for admission included. */
export interface ConnectOptions extends CallOptions {
  /** Peers with the same number reduce and sync with each other. Default 0. */
  readonly group?: number;
  /**
   * HOST:PORT to bind for data from other peers; port 0 chooses a free one, and HOST:FIRST-LAST the first free one of a
   * range, which is what a firewall can be told. "[::]:PORT" takes IPv4 too. Default: 127.0.0.1:0 when the coordinator
   * is on loopback, else 0.0.0.0:0. Of two peers one suffices that the other one can reach.
   */
  readonly listen?: string;
  /** HOST or HOST:PORT where other peers reach this one. Default: the address that the coordinator sees. */
  readonly advertise?: string;
  /** How long to keep trying to reach the coordinator at first, in milliseconds. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /**
   * How long to keep trying to reach the coordinator again when it is gone later, in milliseconds, before the
   * communicator ends with ERR_PCCL_COORDINATOR_LOST. Ops go on meanwhile. Default 60,000.
   */
  readonly coordinatorTimeoutMs?: number;
  /**
   * Collective ops that this peer may have in flight at once, 1 to 256; one more rejects with ERR_PCCL_TOO_MANY_OPS.
   * Default 16. Peers that have as many in flight as they may, none of which the others have called, wait for each
   * other until `timeoutMs`: let all peers call the same ops in the same order, as allReduceAll does, or allow for as
   * many as they can be apart.
   */
  readonly maxOpsInFlight?: number;
  /**
   * TCP connections that make up the link to each neighbour, 1 to 64, of which one suffices to go on; peers that
   * differ use the larger number. Default: each link finds out how many it needs, from one on loopback to 32 over
   * long distances, by what more of them add to its throughput.
   */
  readonly connectionsPerPeer?: number;
  /**
   * Congestion control of this peer's TCP connections to others, by the kernel's name: "cubic", "bbr". Default: the
   * system's. ERR_PCCL_INVALID_ARGUMENT, with the names that there are, where this kernel or this user can't have it.
   */
  readonly congestionControl?: string;
  /**
   * What this peer's links to members on the same host are made of. "auto" (default): shared memory where both ends
   * can, else TCP. "shm": shared memory, and a link that can't have it fails, with the reason. "tcp": TCP.
   */
  readonly transport?: "auto" | "shm" | "tcp";
  /** Called once registered, with this peer's id, while the members' consent is awaited. */
  readonly onPending?: (peerId: number) => void;
}

const CONNECT_KEYS = [
  "group",
  "listen",
  "advertise",
  "connectTimeoutMs",
  "coordinatorTimeoutMs",
  "maxOpsInFlight",
  "connectionsPerPeer",
  "congestionControl",
  "transport",
  "onPending",
  ...CALL_OPTION_KEYS,
] as const;

const TRANSPORTS = ["auto", "shm", "tcp"] as const;

/**
 * Registers with the coordinator at HOST:PORT (default port 48148) and resolves once admitted: at once in an
 * empty world, else when every member has called `updateTopology`.
 *
 * Rejects with ERR_PCCL_COORDINATOR_UNREACHABLE, ERR_PCCL_VERSION_MISMATCH, ERR_PCCL_LISTEN_FAILED,
 * ERR_PCCL_TIMEOUT or the reason of `signal`; nothing is left running then.
 */
export async function connect(address: string, options: ConnectOptions = {}): Promise<Communicator> {
  checkOptions("connect", options, CONNECT_KEYS);
  const coordinator = formatAddress(parseAddress("connect", address, COORDINATOR_PORT));
  const { onPending } = options;
  if (onPending !== undefined && typeof onPending !== "function") {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `connect: onPending must be a function, got ${describe(onPending)}.`,
    );
  }
  const listen = listenRange(options.listen, coordinator);
  const advertise =
    options.advertise === undefined ? undefined : parseAddress("connect: advertise", options.advertise, 0);
  const anyAddress = listen.host === "0.0.0.0" || listen.host === "::";
  const integer = (name: keyof ConnectOptions, fallback: number, min: number, max: number): number =>
    checkInteger("connect", name, options[name] ?? fallback, min, max);
  const group = integer("group", 0, 0, GROUP_MAX);
  const connectTimeoutMs = integer("connectTimeoutMs", CONNECT_TIMEOUT_DEFAULT_MS, 1, TIMEOUT_MAX_MS);
  const coordinatorTimeoutMs = integer(
    "coordinatorTimeoutMs",
    COORDINATOR_TIMEOUT_DEFAULT_MS,
    1,
    TIMEOUT_MAX_MS,
  );
  const connectionsPerPeer =
    options.connectionsPerPeer === undefined
      ? undefined
      : integer("connectionsPerPeer", 1, 1, CONNECTIONS_PER_PEER_MAX);
  const { congestionControl } = options;
  if (
    congestionControl !== undefined &&
    (typeof congestionControl !== "string" || congestionControl === "")
  ) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `connect: congestionControl must be a name like "cubic" or "bbr", got ${describe(congestionControl)}.`,
    );
  }
  const transport = checkOneOf("connect", "transport", options.transport ?? "auto", TRANSPORTS);
  const opsInFlightMax = integer("maxOpsInFlight", OPS_IN_FLIGHT_DEFAULT, 1, OPS_IN_FLIGHT_MAX);

  return await limited("connect", options, async (signal) => {
    const { host } = listen;
    const ops = listenOnFirst(
      listen,
      (port) =>
        new EngineOps({ host, port, connectionsPerPeer, congestionControl, opsInFlightMax, transport }),
    );
    const session = new ControlSession(
      {
        engineId: ops.engineId,
        coordinator,
        group,
        advertise: {
          host: advertise?.host ?? (anyAddress ? "" : listen.host),
          port: advertise?.port || ops.port,
        },
        hostId: ops.hostId,
        connectTimeoutMs,
        coordinatorTimeoutMs,
      },
      (peerId) => onPending?.(peerId),
    );
    try {
      const view = await admission(session, coordinator, signal);
      return new Communicator(ops, session, session.peerId as number, view);
    } catch (error) {
      const closed = error as PcclError;
      ops.close(closed);
      await session.close(closed);
      throw error;
    }
  });
}

/** The first view; an abort of `signal` ends the wait with ERR_PCCL_CANCELLED. */
async function admission(
  session: ControlSession,
  coordinator: string,
  signal: AbortSignal | undefined,
): Promise<InstalledNotice> {
  if (signal === undefined) return await session.admitted;
  let onAbort!: () => void;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => {
      const { peerId } = session;
      const reason =
        peerId === undefined
          ? `the coordinator at ${coordinator} hasn't registered this peer yet`
          : `peer ${peerId}, which this one is, waits until every member calls updateTopology, or until there are ` +
            "enough peers for the first view";
      reject(pcclError("ERR_PCCL_CANCELLED", `connect: ${reason}`, { peerId }));
    };
  });
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([session.admitted, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
