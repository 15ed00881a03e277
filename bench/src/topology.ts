/**
 * What optimizeTopology is worth: an all-reduce over the links of a scenario, emulated by wanem, in the ring that the
 * call finds; in the worst and the best ring, by what the links are known to carry; and in random ones. Each ring has a
 * world of its own, in which the peers join in its order.
 *
 *   node bench/dist/topology.js --wan PATH_OF_WANEM [--scenario FILE] [--bytes 16777216] [--rings 9]
 *     [--iterations 5] [--warm-up 2] [--lanes N] [--out FILE]
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Topology } from "@pccl/core";
import { RemotePeer } from "./remote.js";
import { medianOf, writeResults } from "./statistics.js";

const SCENARIO = "bench/scenarios/three-sites.json";
const LEASE_MS = 10_000;
/** Of a link's rate, what headers leave for data. */
const PAYLOAD_SHARE = 0.957;

/** As in a scenario of `pccl bench wan`; `rtt` is twice the delay of this direction. */
interface LinkFields {
  readonly rate: string;
  readonly rtt: string;
}

interface Scenario {
  readonly title: string;
  readonly hosts: number;
  readonly network: LinkFields;
  readonly links: readonly ({ readonly from: number; readonly to: number } & Partial<LinkFields>)[];
}

interface Link {
  readonly bytesPerSecond: number;
  readonly delaySeconds: number;
}

/** Links by [from][to]. */
function linksOf({ hosts, network, links }: Scenario): Link[][] {
  const units = { mbit: 1e6 / 8, gbit: 1e9 / 8, ms: 1e-3 };
  const quantity = (text: string): number => {
    const [, number, unit] = /^([\d.]+)(mbit|gbit|ms)$/.exec(text) ?? [];
    if (unit === undefined) throw new Error(`${text} is no rate or round trip that this benchmark knows`);
    return Number(number) * units[unit as keyof typeof units];
  };
  const link = ({ rate, rtt }: LinkFields): Link => ({
    bytesPerSecond: quantity(rate) * PAYLOAD_SHARE,
    delaySeconds: quantity(rtt) / 2,
  });
  const table = Array.from({ length: hosts }, () => Array.from({ length: hosts }, () => link(network)));
  for (const { from, to, ...fields } of links) {
    (table[from] as Link[])[to] = link({ ...network, ...fields });
  }
  return table;
}

/** The bytes over the slowest link, and a byte's way along the others. */
function boundSeconds(links: readonly (readonly Link[])[], ring: readonly number[], bytes: number): number {
  const hops = ring.map((from, i) => links[from]?.[ring[(i + 1) % ring.length] as number] as Link);
  const share = (2 * (ring.length - 1)) / ring.length;
  const slowest = Math.min(...hops.map(({ bytesPerSecond }) => bytesPerSecond));
  return share * (bytes / slowest + hops.reduce((sum, { delaySeconds }) => sum + delaySeconds, 0));
}

function* rings(hosts: number, ring: readonly number[] = [0]): Generator<readonly number[]> {
  if (ring.length === hosts) yield ring;
  for (let host = 1; host < hosts; host++) if (!ring.includes(host)) yield* rings(hosts, [...ring, host]);
}

/** So many of them, the same ones each time: every so many-th, at odd distances. */
function sample<T>(all: readonly T[], count: number): T[] {
  return Array.from({ length: Math.min(count, all.length) }, (_, i) => all[(i * 97 + 41) % all.length] as T);
}

interface Settings {
  readonly bytes: number;
  readonly iterations: number;
  readonly warmUp: number;
  readonly lanes: number | undefined;
}

/** Peers that join in the ring's order; `inWorld` gets them in the order of the hosts. */
async function world<T>(
  peers: readonly RemotePeer[],
  address: string,
  ring: readonly number[],
  { bytes, lanes }: Settings,
  inWorld: () => Promise<T>,
): Promise<T> {
  const admitted: Promise<unknown>[] = [];
  for (const host of ring) {
    const peer = peers[host] as RemotePeer;
    admitted.push(peer.connect(address, lanes === undefined ? {} : { connectionsPerPeer: lanes }));
    await Promise.race([peer.pending, admitted.at(-1)]);
  }
  await Promise.all(admitted);
  await Promise.all(peers.map((peer) => peer.call("allocate", { count: bytes / 4 })));
  const result = await inWorld();
  await Promise.all(peers.map((peer) => peer.call("close", {})));
  return result;
}

/** Seconds of an all-reduce: the median, each from the last call to the last end. */
async function reduceSeconds(
  peers: readonly RemotePeer[],
  { iterations, warmUp }: Settings,
): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < warmUp + iterations; i++) {
    const ops = await Promise.all(peers.map((peer) => peer.call("reduce", {})));
    const sum = peers.reduce((total, { peerId }) => total + peerId, 0);
    if (ops.some(({ uniform, value }) => !uniform || value !== sum)) {
      throw new Error("an all-reduce gave a wrong result");
    }
    const startMs = Math.max(...ops.map((op) => op.startMs));
    if (i >= warmUp) times.push((Math.max(...ops.map(({ endMs }) => endMs)) - startMs) / 1_000);
  }
  return medianOf(times);
}

function describeTopology(
  { rings: [ring = []], paths, predictedSeconds }: Topology,
  hostOf: Map<number, number>,
): string {
  const rows = ring.map((from) => {
    const cells = ring.map((to) => {
      const path = paths.find((candidate) => candidate.from === from && candidate.to === to);
      if (path === undefined) return "-".padStart(13);
      const speed = `${((path.bytesPerSecond * 8) / 1e6).toFixed(0)}/${(path.rttSeconds * 1_000).toFixed(0)}`;
      return speed.padStart(13);
    });
    return `  host ${hostOf.get(from)}${cells.join("")}`;
  });
  const order = ring.map((id) => hostOf.get(id)).join(" > ");
  return [
    `ring of hosts ${order}, predicted ${predictedSeconds?.toFixed(2)} s; Mbit/s / ms of round trip from each to each:`,
    ...rows,
  ].join("\n");
}

async function measure(
  wanem: string,
  scenario: Scenario,
  settings: Settings,
  count: number,
): Promise<object> {
  const name = `topo${process.pid}`;
  const run = (...args: string[]): void => {
    execFileSync(wanem, ["--name", name, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  };
  const folder = mkdtempSync(join(tmpdir(), "pccl-topology-"));
  const { hosts, network, links } = scenario;
  writeFileSync(join(folder, "matrix.json"), JSON.stringify({ hosts, default: network, links }));
  run("up", "--matrix", join(folder, "matrix.json"));
  const processes: RemotePeer[] = [];
  try {
    const coordinator = new RemotePeer(`${name}-0`);
    processes.push(coordinator);
    const listen = { listen: "10.77.0.1:48148", minPeers: hosts, leaseMs: LEASE_MS };
    const address = await coordinator.call("coordinator", listen);
    const peers = Array.from({ length: hosts }, (_, host) => new RemotePeer(`${name}-${host}`));
    processes.push(...peers);

    const table = linksOf(scenario);
    const all = [...rings(hosts)].sort(
      (a, b) => boundSeconds(table, a, settings.bytes) - boundSeconds(table, b, settings.bytes),
    );
    const [best, worst] = [all[0] as readonly number[], all.at(-1) as readonly number[]];
    const timeOf = async (label: string, ring: readonly number[]): Promise<number> => {
      const seconds = await world(peers, address, ring, settings, () => reduceSeconds(peers, settings));
      const bound = boundSeconds(table, ring, settings.bytes).toFixed(2);
      console.log(`${label.padEnd(10)} ${ring.join(" > ")}  ${seconds.toFixed(2)} s, bound ${bound} s`);
      return seconds;
    };
    const worstSeconds = await timeOf("worst", worst);
    const bestSeconds = await timeOf("best", best);
    const ours = await world(peers, address, worst, settings, async () => {
      const startMs = performance.now();
      await Promise.all(peers.map((peer) => peer.call("optimize", {})));
      const optimizeSeconds = (performance.now() - startMs) / 1_000;
      const topology = await (peers[0] as RemotePeer).call("topology", { bytes: settings.bytes });
      const hostOf = new Map(peers.map(({ peerId }, host) => [peerId, host]));
      console.log(
        `optimizeTopology took ${optimizeSeconds.toFixed(1)} s: ${describeTopology(topology, hostOf)}`,
      );
      const ring = topology.rings[0]?.map((id) => hostOf.get(id) as number) ?? [];
      return { optimizeSeconds, topology, ring, seconds: await reduceSeconds(peers, settings) };
    });
    console.log(`optimized  ${ours.ring.join(" > ")}  ${ours.seconds.toFixed(2)} s`);
    const random: number[] = [];
    for (const ring of sample(all, count)) random.push(await timeOf("random", ring));
    const figures = {
      overWorst: worstSeconds / ours.seconds,
      overMedianOfRandom: medianOf(random) / ours.seconds,
      overBest: ours.seconds / bestSeconds,
      boundOverBestBound:
        boundSeconds(table, ours.ring, settings.bytes) / boundSeconds(table, best, settings.bytes),
    };
    const { overWorst, overMedianOfRandom, overBest, boundOverBestBound } = figures;
    console.log(
      `${overWorst.toFixed(2)} times as fast as the worst ring (2 is asked for), ` +
        `${overMedianOfRandom.toFixed(2)} times as the median of ${random.length} random ones (1.4); ` +
        `${((overBest - 1) * 100).toFixed(1)} % slower than the best ring, ` +
        `${((boundOverBestBound - 1) * 100).toFixed(1)} % by the bounds (10 %)`,
    );
    return {
      scenario: scenario.title,
      ...settings,
      best,
      worst,
      bestSeconds,
      worstSeconds,
      random,
      ours,
      ...figures,
    };
  } finally {
    await Promise.all(processes.map((peer) => peer.kill()));
    run("down");
    rmSync(folder, { recursive: true });
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      wan: { type: "string" },
      scenario: { type: "string", default: SCENARIO },
      bytes: { type: "string", default: String(16 * 1024 * 1024) },
      rings: { type: "string", default: "9" },
      iterations: { type: "string", default: "5" },
      "warm-up": { type: "string", default: "2" },
      lanes: { type: "string" },
      out: { type: "string" },
    },
  });
  if (values.wan === undefined) {
    console.error("topology needs --wan, the path of the network emulator wanem, and root");
    process.exitCode = 2;
    return;
  }
  const settings: Settings = {
    bytes: Number(values.bytes),
    iterations: Number(values.iterations),
    warmUp: Number(values["warm-up"]),
    lanes: values.lanes === undefined ? undefined : Number(values.lanes),
  };
  const scenario = JSON.parse(readFileSync(values.scenario, "utf8")) as Scenario;
  writeResults(values.out, await measure(values.wan, scenario, settings, Number(values.rings)));
}

await main();
