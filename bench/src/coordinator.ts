/**
 * What peers cost a coordinator: N of them in one group, without data planes, first at rest, then with one that dies
 * and one that joins each second. CPU, messages, bytes and memory of the coordinator's own process.
 *
 *   node bench/dist/coordinator.js [--peers 10,100,1000] [--seconds 20] [--out FILE]
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { EnginelessPeer } from "@pccl/core/testing";
import { RemotePeer } from "./remote.js";
import { summarize, type Summary, writeResults } from "./statistics.js";

/** USER_HZ, which Linux fixes for /proc. */
const TICKS_PER_SECOND = 100;
const LEASE_MS = 5_000;

interface Usage {
  readonly atMs: number;
  readonly cpuSeconds: number;
  readonly residentMiB: number;
  /** Read and written, over all descriptors. */
  readonly bytes: number;
}

interface Rates {
  readonly seconds: number;
  readonly cpuShare: number;
  readonly messagesPerSecond: number;
  readonly kilobytesPerSecond: number;
}

interface Row {
  readonly peers: number;
  readonly residentMiB: number;
  readonly rest: Rates;
  readonly churn: Rates;
  /** One a second, unless an exchange took longer. */
  readonly exchangesPerSecond: number;
  /** CPU of the coordinator for one exchange, beyond what it needs at rest. */
  readonly exchangeCpuMs: number;
  /** From the newcomer's registration until every peer's vote was answered. */
  readonly admissionMs: Summary;
}

function usageOf(pid: number): Usage {
  const read = (file: string): string => readFileSync(`/proc/${pid}/${file}`, "utf8");
  const fields = read("stat")
    .replace(/^.*\) /s, "")
    .split(" ");
  const [utime = 0, stime = 0] = fields.slice(11, 13).map(Number);
  const number = (text: string, name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]);
  const io = read("io");
  return {
    atMs: performance.now(),
    cpuSeconds: (utime + stime) / TICKS_PER_SECOND,
    residentMiB: number(read("status"), "VmRSS") / 1_024,
    bytes: number(io, "rchar") + number(io, "wchar"),
  };
}

class Load {
  readonly #address: string;
  readonly #pid: number;
  readonly #peers = new Set<EnginelessPeer>();
  /** Messages of peers that are gone. */
  #past = 0;

  constructor(address: string, pid: number) {
    this.#address = address;
    this.#pid = pid;
  }

  async begin(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await this.#add();
    await Promise.all([...this.#peers].map(({ admitted }) => admitted));
  }

  async #add(): Promise<EnginelessPeer> {
    const peer = await EnginelessPeer.start(this.#address);
    this.#peers.add(peer);
    return peer;
  }

  get #messages(): number {
    return [...this.#peers].reduce(
      (sum, peer) => sum + peer.messagesSent + peer.messagesReceived,
      this.#past,
    );
  }

  /** One peer dies without a word, another one joins by the votes of all others. */
  async #exchange(): Promise<number> {
    const [victim, ...others] = [...this.#peers];
    if (victim === undefined) throw new Error("nobody is there");
    this.#past += victim.messagesSent + victim.messagesReceived;
    this.#peers.delete(victim);
    victim.kill();
    const startMs = performance.now();
    const newcomer = await this.#add();
    await newcomer.pending;
    await Promise.all(others.map((peer) => peer.updateTopology()));
    await newcomer.admitted;
    const ms = performance.now() - startMs;
    const lost = others.filter(({ ended }) => ended !== undefined);
    if (lost.length > 0) throw new Error(`${lost.length} peers are out: ${lost[0]?.ended}`);
    return ms;
  }

  async rates(during: () => Promise<void>): Promise<Rates> {
    const [before, messagesBefore] = [usageOf(this.#pid), this.#messages];
    await during();
    const [after, messagesAfter] = [usageOf(this.#pid), this.#messages];
    const seconds = (after.atMs - before.atMs) / 1_000;
    return {
      seconds,
      cpuShare: (after.cpuSeconds - before.cpuSeconds) / seconds,
      messagesPerSecond: (messagesAfter - messagesBefore) / seconds,
      kilobytesPerSecond: (after.bytes - before.bytes) / 1_000 / seconds,
    };
  }

  /** One exchange in each second; a late one isn't made up for. */
  async churn(seconds: number): Promise<number[]> {
    const durations: number[] = [];
    const endMs = performance.now() + seconds * 1_000;
    while (performance.now() < endMs) {
      const dueMs = performance.now() + 1_000;
      durations.push(await this.#exchange());
      await delay(Math.max(0, dueMs - performance.now()));
    }
    return durations;
  }
}

/** In a process of its own, which also ends what it has opened. */
async function measure(peers: number, seconds: number): Promise<Row> {
  const coordinator = new RemotePeer();
  try {
    const address = await coordinator.call("coordinator", {
      listen: "127.0.0.1:0",
      minPeers: peers,
      leaseMs: LEASE_MS,
    });
    const pid = coordinator.process.pid ?? 0;
    const load = new Load(address, pid);
    await load.begin(peers);
    const rest = await load.rates(() => delay(seconds * 1_000));
    let admissions: number[] = [];
    const churn = await load.rates(async () => {
      admissions = await load.churn(seconds);
    });
    return {
      peers,
      residentMiB: usageOf(pid).residentMiB,
      rest,
      churn,
      exchangesPerSecond: admissions.length / churn.seconds,
      exchangeCpuMs: (1_000 * (churn.cpuShare - rest.cpuShare) * churn.seconds) / admissions.length,
      admissionMs: summarize(admissions),
    };
  } finally {
    await coordinator.kill();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      load: { type: "string" },
      peers: { type: "string", default: "10,100,1000" },
      seconds: { type: "string", default: "20" },
      out: { type: "string" },
    },
  });
  if (values.load !== undefined) {
    process.send?.(await measure(Number(values.load), Number(values.seconds)));
    process.exit(0);
  }
  const rows: Row[] = [];
  console.log(
    " peers  RSS MiB   rest: CPU   msg/s    kB/s   churn: CPU   msg/s    kB/s  exchanges/s  CPU ms each  admission ms",
  );
  for (const peers of values.peers.split(",")) {
    const child = fork(fileURLToPath(import.meta.url), ["--load", peers, "--seconds", values.seconds]);
    const exited = once(child, "exit");
    child.on("message", (row: Row) => rows.push(row));
    if ((await exited)[0] !== 0) throw new Error(`the load of ${peers} peers failed`);
    const row = rows.at(-1) as Row;
    const rates = ({ cpuShare, messagesPerSecond, kilobytesPerSecond }: Rates): string => {
      const numbers = [messagesPerSecond, kilobytesPerSecond].map((rate) => rate.toFixed(0).padStart(7));
      return `${(100 * cpuShare).toFixed(1).padStart(7)} % ${numbers.join(" ")}`;
    };
    console.log(
      `${String(row.peers).padStart(6)} ${row.residentMiB.toFixed(1).padStart(8)}  ${rates(row.rest)}    ` +
        `${rates(row.churn)}  ${row.exchangesPerSecond.toFixed(2).padStart(11)}  ` +
        `${row.exchangeCpuMs.toFixed(0).padStart(11)}  ${row.admissionMs.median.toFixed(0).padStart(12)}`,
    );
  }
  const [small, large] = [rows[0] as Row, rows.at(-1) as Row];
  const more = large.peers - small.peers;
  const kibibytesPerPeer = more > 0 ? ((large.residentMiB - small.residentMiB) * 1_024) / more : undefined;
  if (kibibytesPerPeer !== undefined) console.log(`memory per peer: ${kibibytesPerPeer.toFixed(1)} KiB`);
  writeResults(values.out, { rows, kibibytesPerPeer });
}

await main();
