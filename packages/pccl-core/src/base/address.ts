/** HOST:PORT as users write it; IPv6 hosts in brackets. */
import { describe } from "./check.js";
import { pcclError } from "./errors.js";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Parses "host:port", "[::1]:port" or, with `defaultPort`, "host" alone. Port 0 means: any free port. */
export function parseAddress(call: string, text: unknown, defaultPort?: number): Address {
  const match =
    typeof text === "string" ? /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]\s/]+))(?::(\d{1,5}))?$/.exec(text) : null;
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  if (host === undefined || port === undefined || port > 65_535) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: the address must be HOST:PORT (IPv6 as [::1]:PORT), got ${describe(text)}.`,
    );
  }
  return { host, port };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The names of this host's own loopback: an address of it is of no use to peers elsewhere. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
