/** Where a peer listens for data: an address with a port, or with a range of them, of which the first free one is taken. */
import { type Address, isLoopback, parseAddress } from "../base/address.js";
import { describe } from "../base/check.js";
import { PcclError, pcclError } from "../base/errors.js";
import { COORDINATOR_PORT } from "../base/limits.js";

const PORT_MAX = 65_535;

export interface ListenRange {
  readonly host: string;
  /** In the order in which they are tried; 0 alone: any free one. */
  readonly ports: readonly [number, ...number[]];
}

/**
 * Reads HOST:PORT or HOST:FIRST-LAST. Undefined: any port, of loopback if that is where the coordinator is, else of all
 * addresses. Throws ERR_PCCL_INVALID_ARGUMENT.
 */
export function listenRange(listen: unknown, coordinator: string): ListenRange {
  if (listen === undefined) {
    const { host } = parseAddress("connect", coordinator, COORDINATOR_PORT);
    return { host: isLoopback(host) ? "127.0.0.1" : "0.0.0.0", ports: [0] };
  }
  const [, from, last] = typeof listen === "string" ? (/^(.*:\d+)-(\d{1,5})$/.exec(listen) ?? []) : [];
  const { host, port }: Address = parseAddress("connect: listen", from ?? listen, 0);
  if (last === undefined) return { host, ports: [port] };
  if (port === 0 || Number(last) < port || Number(last) > PORT_MAX) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `connect: listen must be HOST:PORT or HOST:FIRST-LAST with ports from 1 to ${PORT_MAX}, got ${describe(listen)}.`,
    );
  }
  const others = Array.from({ length: Number(last) - port }, (_, i) => port + 1 + i);
  return { host, ports: [port, ...others] };
}

/** The first port of the range that can be had. Throws ERR_PCCL_LISTEN_FAILED, with the last port's reason, if none can. */
export function listenOnFirst<T>({ ports }: ListenRange, listenOn: (port: number) => T): T {
  let failure: unknown;
  for (const port of ports) {
    try {
      return listenOn(port);
    } catch (error) {
      failure = error;
      if (!(error instanceof PcclError && error.code === "ERR_PCCL_LISTEN_FAILED")) break;
    }
  }
  throw failure;
}
