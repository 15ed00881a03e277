/** What `Communicator.topology` tells, made from the coordinator's answer. */
import { checkInteger } from "../base/check.js";
import { hostsOf, type PathRecord, pathsBetweenHosts } from "../membership/host-paths.js";
import { slowestOf, UNKNOWN_SLOWNESS } from "../topology/paths.js";
import { predictRing } from "../topology/solve.js";
import type { TopologyInfo } from "./session-protocol.js";

/** The path from one peer to another, as it was found last. */
export interface PathInfo {
  readonly from: number;
  readonly to: number;
  /** 0: nothing got over it. */
  readonly bytesPerSecond: number;
  /** There and back, when nothing else was on the way. */
  readonly rttSeconds: number;
  readonly ageSeconds: number;
}

export interface Topology {
  /** Of the view that it is told of. */
  readonly epoch: number;
  /** The orders, as peer ids, in which large tensors go round the group. */
  readonly rings: readonly (readonly number[])[];
  /** What has been measured between the group's peers; of peers on one host the first in the ring measures for all. */
  readonly paths: readonly PathInfo[];
  /**
   * How long an all-reduce of `bytes` takes over the network between hosts, and what no order of the ring could be
   * below; undefined while a path of the ring isn't known.
   */
  readonly predictedSeconds: number | undefined;
  readonly boundSeconds: number | undefined;
}

/** What the prediction is for unless the call says otherwise. */
const PREDICTED_BYTES: number = 64 * 1024 * 1024;

export function checkBytes(call: string, bytes: unknown): number {
  return checkInteger(call, "bytes", bytes ?? PREDICTED_BYTES, 0, Number.MAX_SAFE_INTEGER);
}

export function topologyOf({ epoch, ring, paths: records }: TopologyInfo, bytes: number): Topology {
  const hosts = hostsOf(ring);
  const byPair = new Map(
    records.map(({ from, to, bytesPerSecond, rttMs, ageMs }): [string, PathRecord] => [
      `${from}>${to}`,
      { bytesPerSecond, rttMs, measuredAtMs: -ageMs },
    ]),
  );
  const paths = pathsBetweenHosts(hosts, (from, to) => byPair.get(`${from}>${to}`));
  const order = hosts.map((_, node) => node);
  const isKnown = slowestOf(paths, order) < UNKNOWN_SLOWNESS;
  const { seconds, boundSeconds } = predictRing(paths, order, bytes);
  return {
    epoch,
    rings: [ring.peerIds],
    paths: records.map(({ from, to, bytesPerSecond, rttMs, ageMs }) => ({
      from,
      to,
      bytesPerSecond,
      rttSeconds: rttMs / 1_000,
      ageSeconds: ageMs / 1_000,
    })),
    predictedSeconds: isKnown ? seconds : undefined,
    boundSeconds: isKnown ? boundSeconds : undefined,
  };
}
