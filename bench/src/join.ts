/**
 * What a change of membership costs: a fifth peer joins four, from the last vote to the new view on all five; and an
 * updateTopology that finds nobody waiting. On loopback, and over links of 100 ms if the emulator `wanem` is given.
 *
 *   node bench/dist/join.js [--rounds 30] [--lanes 1,8] [--wan PATH_OF_WANEM] [--wan-lanes 16] [--out FILE]
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { firstPeers, join, RemotePeer } from "./remote.js";
import { formatMs, type Summary, summarize, writeResults } from "./statistics.js";

const MEMBERS = 4;
const IDLE_VOTES = 200;
const LEASE_MS = 10_000;
const WAN_RTT_MS = 100;
const WAN_ROUNDS = 5;

interface Place {
  /** Of the coordinator, as it is told to listen. */
  readonly listen: string;
  /** Of the coordinator (0), the members (1 to 4) and the newcomer (5). */
  readonly namespaceOf: (host: number) => string | undefined;
}

const LOOPBACK: Place = { listen: "127.0.0.1:0", namespaceOf: () => undefined };

interface Measured {
  readonly joinMs: Summary;
  readonly idleVoteMs: Summary;
}

async function measure(place: Place, lanes: number, rounds: number): Promise<Measured> {
  // In a process of its own: what the benchmark does must not hold it up.
  const coordinator = new RemotePeer(place.namespaceOf(0));
  let members: RemotePeer[] = [];
  const newcomers: RemotePeer[] = [];
  try {
    const address = await coordinator.call("coordinator", {
      listen: place.listen,
      minPeers: MEMBERS,
      leaseMs: LEASE_MS,
    });
    members = await firstPeers(address, MEMBERS, lanes, (index) => place.namespaceOf(index + 1));
    const joins: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const newcomer = new RemotePeer(place.namespaceOf(MEMBERS + 1));
      newcomers.push(newcomer);
      const admitted = newcomer.connect(address, { connectionsPerPeer: lanes });
      await newcomer.pending;
      joins.push((await join(members, admitted)).ms);
      // Gone again, in good order; the next vote waits until all have noticed.
      await newcomer.call("close", {});
      const exited = once(newcomer.process, "exit");
      newcomer.process.disconnect();
      await exited;
      await Promise.all(members.map((member) => member.call("vote", {})));
    }
    const votes = await Promise.all(members.map((member) => member.call("idleVotes", { times: IDLE_VOTES })));
    return { joinMs: summarize(joins), idleVoteMs: summarize(votes.flat()) };
  } finally {
    await Promise.all([coordinator, ...members, ...newcomers].map((peer) => peer.kill()));
  }
}

/** Six hosts, each in a namespace, with a round trip of 100 ms between any two. */
async function overWan(wanem: string, lanes: number): Promise<Measured> {
  const name = `bench${process.pid}`;
  const run = (...args: string[]): void => {
    execFileSync(wanem, ["--name", name, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  };
  run("up", "--hosts", String(MEMBERS + 2), "--rtt", `${WAN_RTT_MS}ms`);
  try {
    const place = { listen: "10.77.0.1:48148", namespaceOf: (host: number) => `${name}-${host}` };
    return await measure(place, lanes, WAN_ROUNDS);
  } finally {
    run("down");
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "30" },
      lanes: { type: "string", default: "1,8" },
      wan: { type: "string" },
      "wan-lanes": { type: "string", default: "16" },
      out: { type: "string" },
    },
  });
  const results: object[] = [];
  for (const lanes of values.lanes.split(",").map(Number)) {
    const measured = await measure(LOOPBACK, lanes, Number(values.rounds));
    results.push({ link: "loopback", lanes, ...measured });
    console.log(`loopback, ${lanes} lane(s): join 4 → 5        ${formatMs(measured.joinMs)}`);
    console.log(`loopback, ${lanes} lane(s): idle updateTopology ${formatMs(measured.idleVoteMs)}`);
  }
  if (values.wan !== undefined) {
    const lanes = Number(values["wan-lanes"]);
    const measured = await overWan(values.wan, lanes);
    const roundTrips = measured.joinMs.median / WAN_RTT_MS;
    results.push({ link: `${WAN_RTT_MS} ms`, lanes, ...measured, roundTrips });
    console.log(`${WAN_RTT_MS} ms links, ${lanes} lanes: join 4 → 5  ${formatMs(measured.joinMs)}`);
    console.log(`${WAN_RTT_MS} ms links, ${lanes} lanes: ${roundTrips.toFixed(2)} round trips`);
  }
  writeResults(values.out, results);
}

await main();
