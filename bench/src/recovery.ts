/**
 * How soon a group goes on after one of four peers is lost, or a link, in the middle of an op of 64 MiB.
 * Each round with a loss is compared with undisturbed ops of the same three peers right after it.
 *
 *   node bench/dist/recovery.js [--rounds 30] [--size-mib 64] [--stops 3] [--resets 10] [--lease-ms 2000] [--out FILE]
 */
import { execFileSync } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Coordinator } from "@pccl/core/coordinator";
import { firstPeers, join, nowMs, type OpOutcome, RemotePeer } from "./remote.js";
import { formatMs, summarize, writeResults } from "./statistics.js";

const PEERS = 4;
const UNDISTURBED = 3;

interface Loss {
  /** From the signal until the last survivor had its error. */
  readonly errorMs: number;
  /** From each survivor's error to its right result, the slowest's. */
  readonly retryMs: number;
  readonly undisturbedMs: number;
}

class Group {
  readonly address: string;
  readonly count: number;
  peers: RemotePeer[] = [];

  constructor(address: string, count: number) {
    this.address = address;
    this.count = count;
  }

  /** As many as at the beginning, the newcomers let in one after the other. */
  async refill(): Promise<void> {
    while (this.peers.length < PEERS) {
      const newcomer = new RemotePeer();
      const admitted = newcomer.connect(this.address);
      await newcomer.pending;
      await join(this.peers, admitted);
      await newcomer.call("allocate", { count: this.count });
      this.peers.push(newcomer);
    }
  }

  start(): Promise<OpOutcome>[] {
    return this.peers.map((peer) => peer.call("reduce", {}));
  }

  /** Runs one op on all, and returns how long the slowest took from the last one's start. */
  async undisturbedMs(): Promise<number> {
    const samples: number[] = [];
    for (let i = 0; i < UNDISTURBED; i++) {
      const outcomes = await Promise.all(this.start());
      check(outcomes, this.peers);
      samples.push(lastEnd(outcomes) - Math.max(...outcomes.map(({ startMs }) => startMs)));
    }
    return summarize(samples).median;
  }
}

function lastEnd(outcomes: readonly OpOutcome[]): number {
  return Math.max(...outcomes.map(({ endMs }) => endMs));
}

/** Correct before fast: peers contribute their ids. */
function check(outcomes: readonly OpOutcome[], contributors: readonly RemotePeer[]): void {
  const sum = contributors.reduce((total, { peerId }) => total + peerId, 0);
  for (const { value, uniform, worldSize } of outcomes) {
    if (uniform && value === sum && worldSize === contributors.length) continue;
    throw new Error(
      `a wrong result: ${value} of ${worldSize} peers instead of ${sum} of ${contributors.length}`,
    );
  }
}

/** Loses a random peer at a random moment of an op; undefined if the op was committed before. */
async function lose(group: Group, signal: "SIGKILL" | "SIGSTOP", wholeMs: number): Promise<Loss | undefined> {
  const victim = group.peers[Math.floor(Math.random() * PEERS)] as RemotePeer;
  const survivors = group.peers.filter((peer) => peer !== victim);
  const running = group.start();
  const doomed = running[group.peers.indexOf(victim)]?.catch(() => undefined);
  const rest = Promise.all(running.filter((_, i) => group.peers[i] !== victim));
  await delay(wholeMs * (0.15 + 0.6 * Math.random()));
  const signalMs = nowMs();
  victim.process.kill(signal);
  const outcomes = await rest;
  await victim.kill();
  await doomed;
  group.peers = survivors;
  if (outcomes.every(({ errorMs }) => errorMs === undefined)) return undefined;
  check(outcomes, survivors);
  return {
    errorMs: Math.max(...outcomes.map(({ errorMs = Number.NaN }) => errorMs)) - signalMs,
    retryMs: Math.max(...outcomes.map(({ errorMs = Number.NaN, endMs }) => endMs - errorMs)),
    undisturbedMs: await group.undisturbedMs(),
  };
}

async function losses(
  group: Group,
  signal: "SIGKILL" | "SIGSTOP",
  rounds: number,
): Promise<{ errorMs: unknown; retryMs: unknown; retryRatio: unknown; committedBefore: number }> {
  const seen: Loss[] = [];
  let committedBefore = 0;
  while (seen.length < rounds) {
    await group.refill();
    const loss = await lose(group, signal, await group.undisturbedMs());
    if (loss === undefined) committedBefore++;
    else seen.push(loss);
  }
  const errors = summarize(seen.map(({ errorMs }) => errorMs));
  const retries = summarize(seen.map(({ retryMs }) => retryMs));
  const ratios = summarize(seen.map(({ retryMs, undisturbedMs }) => retryMs / undisturbedMs));
  console.log(`${signal}: survivors' error after       ${formatMs(errors)}`);
  console.log(`${signal}: their retried result after   ${formatMs(retries)}`);
  console.log(
    `${signal}: retry / undisturbed op of 3  median ${ratios.median}, p99 ${ratios.p99}, max ${ratios.max}`,
  );
  return { errorMs: errors, retryMs: retries, retryRatio: ratios, committedBefore };
}

/** Resets all connections between two of the peers, as the kernel's socket diagnosis lets root do. */
function resetBetween(a: RemotePeer, b: RemotePeer): number {
  const ss = (...args: string[]): string => execFileSync("ss", args, { encoding: "utf8" });
  const sockets = ss("-t", "-n", "-p", "-H", "state", "established").split("\n");
  /** LOCAL REMOTE of a process's connections. */
  const of = ({ process: { pid } }: RemotePeer): string[] =>
    sockets
      .filter((line) => line.includes(`pid=${pid},`))
      .map((line) => /(\S+:\d+)\s+(\S+:\d+)/.exec(line)?.slice(1, 3).join(" ") ?? "");
  const theirs = new Set(of(b).map((pair) => pair.split(" ").reverse().join(" ")));
  const shared = of(a).filter((pair) => theirs.has(pair));
  for (const pair of shared) {
    const [local = "", remote = ""] = pair.split(" ");
    ss("-K", "-t", "-n", "-H", "src", local, "dst", remote);
  }
  return shared.length;
}

/** Resets between two live peers: the op has to complete, with all four of them. */
async function resets(group: Group, rounds: number): Promise<unknown> {
  await group.refill();
  const durations: number[] = [];
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const undisturbedMs = await group.undisturbedMs();
    const running = group.start();
    await delay(undisturbedMs * (0.15 + 0.6 * Math.random()));
    const [a, b] = [group.peers[round % PEERS], group.peers[(round + 1) % PEERS]] as [RemotePeer, RemotePeer];
    if (resetBetween(a, b) === 0)
      throw new Error("no connection between two neighbours was found to be reset");
    const outcomes = await Promise.all(running);
    check(outcomes, group.peers);
    const ms = lastEnd(outcomes) - Math.max(...outcomes.map(({ startMs }) => startMs));
    durations.push(ms);
    ratios.push(ms / undisturbedMs);
  }
  const [ops, ratio] = [summarize(durations), summarize(ratios)];
  console.log(`reset: the op completes in     ${formatMs(ops)}`);
  console.log(`reset: ratio to an undisturbed op  median ${ratio.median}, max ${ratio.max}`);
  return { opMs: ops, ratio };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "30" },
      "size-mib": { type: "string", default: "64" },
      stops: { type: "string", default: "3" },
      resets: { type: "string", default: "10" },
      "lease-ms": { type: "string", default: "2000" },
      out: { type: "string" },
    },
  });
  const leaseMs = Number(values["lease-ms"]);
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: PEERS, leaseMs });
  const group = new Group(coordinator.address, Number(values["size-mib"]) * 2 ** 18);
  try {
    group.peers = await firstPeers(coordinator.address, PEERS);
    await Promise.all(group.peers.map((peer) => peer.call("allocate", { count: group.count })));
    const results = {
      sizeMiB: Number(values["size-mib"]),
      leaseMs,
      kill: await losses(group, "SIGKILL", Number(values.rounds)),
      reset: Number(values.resets) === 0 ? undefined : await resets(group, Number(values.resets)),
      stop: Number(values.stops) === 0 ? undefined : await losses(group, "SIGSTOP", Number(values.stops)),
    };
    writeResults(values.out, results);
  } finally {
    await Promise.all(group.peers.map((peer) => peer.kill()));
  }
}

await main();
