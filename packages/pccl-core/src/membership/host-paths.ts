/**
 * A ring as its hosts see it, and what is known of the paths between them. Peers of one host don't need the network
 * for each other, so hosts are the nodes for which an order is sought; any pair of their members tells of the path.
 */
import { type Paths, pathsBetween } from "../topology/paths.js";
import type { Ring } from "./messages.js";

/** What was found out last of the path from one peer to another. */
export interface PathRecord {
  /** 0: nothing got over it. */
  readonly bytesPerSecond: number;
  readonly rttMs: number;
  readonly measuredAtMs: number;
}

export type FindPath = (from: number, to: number) => PathRecord | undefined;

/** The hosts of a ring, each with its members, in ring order. */
export function hostsOf({ peerIds, hosts }: Pick<Ring, "peerIds" | "hosts">): number[][] {
  const members = new Map<number, number[]>();
  peerIds.forEach((id, rank) => {
    const host = hosts[rank] as number;
    const ids = members.get(host);
    if (ids === undefined) members.set(host, [id]);
    else ids.push(id);
  });
  return [...members.values()];
}

/** What was found out last of the path from one host to another. */
export function latestBetween(
  find: FindPath,
  from: readonly number[],
  to: readonly number[],
): PathRecord | undefined {
  let latest: PathRecord | undefined;
  for (const a of from) {
    for (const b of to) {
      const found = find(a, b);
      if (found !== undefined && (latest === undefined || found.measuredAtMs > latest.measuredAtMs))
        latest = found;
    }
  }
  return latest;
}

export function pathsBetweenHosts(hosts: readonly (readonly number[])[], find: FindPath): Paths {
  return pathsBetween(hosts.length, (from, to) => {
    const found = latestBetween(find, hosts[from] as readonly number[], hosts[to] as readonly number[]);
    return found && { bytesPerSecond: found.bytesPerSecond, latencySeconds: found.rttMs / 2_000 };
  });
}
