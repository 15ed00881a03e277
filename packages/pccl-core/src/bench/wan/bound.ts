/**
 * What no ring all-reduce can be faster than over given links: each carries its share of the bytes at the rate that TCP
 * gets out of it, and the first byte passes 2(N-1) links one after the other.
 */
import type { WanLinks } from "./scenario.js";

/** What headers leave of a link's rate: 1448 bytes of payload in a frame of 1514. */
const PAYLOAD_SHARE = 0.957;
/** Beyond that many hosts not every ring is looked at. */
const EXHAUSTIVE_HOSTS_MAX = 8;

/** In seconds, of the best ring over all orders of the hosts. */
export function ringBound(links: WanLinks, bytes: number): number {
  if (links.length > EXHAUSTIVE_HOSTS_MAX) {
    return ringBoundOf(
      links,
      bytes,
      links.map((_, host) => host),
    );
  }
  let best = Number.POSITIVE_INFINITY;
  for (const order of rings(links.length)) best = Math.min(best, ringBoundOf(links, bytes, order));
  return best;
}

function ringBoundOf(links: WanLinks, bytes: number, order: readonly number[]): number {
  const hosts = order.length;
  const hops = order.map((host, i) => {
    const link = links[host]?.[order[(i + 1) % hosts] as number];
    if (link === undefined) throw new Error("a ring of hosts without a link");
    return link;
  });
  const slowest = Math.min(...hops.map((link) => link.bitsPerSecond));
  const linkBytes = (2 * bytes * (hosts - 1)) / hosts;
  // All but two hops are taken twice, the others once, wherever a byte begins; on the average this much.
  const meanDelay = hops.reduce((sum, link) => sum + link.delaySeconds, 0) / hosts;
  return (linkBytes * 8) / (PAYLOAD_SHARE * slowest) + 2 * (hosts - 1) * meanDelay;
}

/** The orders of 0 … hosts-1 as rings that begin at 0. */
function* rings(hosts: number): Generator<number[]> {
  function* extend(ring: number[]): Generator<number[]> {
    if (ring.length === hosts) yield ring;
    for (let host = 1; host < hosts; host++) if (!ring.includes(host)) yield* extend([...ring, host]);
  }
  yield* extend([0]);
}

/** The longest round trip between any two hosts, in seconds. */
export function roundTripMax(links: WanLinks): number {
  return Math.max(
    ...links.flatMap((row, from) =>
      row.map((link, to) => (from === to ? 0 : link.delaySeconds + (links[to]?.[from]?.delaySeconds ?? 0))),
    ),
  );
}
