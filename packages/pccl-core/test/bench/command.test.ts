/**
 * Goal: `pccl bench` measures what its help says, says clearly why it can't, and leaves nothing behind. Method: the built
 * program in processes of its own; its peers are found by their parent's process id.
 */
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { COLLECTIVE_NAMES } from "../../src/bench/collectives.js";
import type { Measurement } from "../../src/bench/job.js";
import { killAll, pccl, RunningCoordinator } from "../cli/running-coordinator.js";

afterEach(killAll);

class Bench {
  readonly child: ReturnType<typeof pccl>;
  stdout = "";
  stderr = "";

  constructor(...args: string[]) {
    this.child = pccl("bench", ...args);
    this.child.stdout.on("data", (data) => (this.stdout += data));
    this.child.stderr.on("data", (data) => (this.stderr += data));
  }

  async code(): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "close");
    return this.child.exitCode;
  }

  /** Of a run with --json that has to succeed. */
  async results(): Promise<Measurement[]> {
    expect(await this.code(), this.stderr).toBe(0);
    return (JSON.parse(this.stdout) as { results: Measurement[] }).results;
  }

  /** Process ids of the peers, once there are as many. */
  async peers(count: number): Promise<number[]> {
    return await vi.waitUntil(() => {
      const found = childrenOf(this.child.pid as number);
      return found.length === count ? found : undefined;
    }, 30_000);
  }
}

function statusOf(pid: number | string): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return "";
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(/^PPid:\s+(\d+)/m.exec(statusOf(name))?.[1]) === parent)
    .map(Number);
}

function isGone(pid: number): boolean {
  return !/^State:\s+[^Z]/m.test(statusOf(pid));
}

const KEYS = [
  ...["collective", "world", "bytes", "dtype", "op", "quantize", "transport", "medianSeconds", "minSeconds"],
  ...["maxSeconds", "algbwGBps", "busbwGBps", "verified"],
];

/** What `busbwGBps` is of `algbwGBps`, between three peers. */
const BUS_FACTORS: Readonly<Record<string, number>> = {
  "all-reduce": 4 / 3,
  "reduce-scatter": 2 / 3,
  "all-gather": 2 / 3,
  broadcast: 1,
  "all-to-all": 2 / 3,
  gather: 2 / 3,
  scatter: 2 / 3,
  "send-recv": 1,
};

describe("pccl bench", () => {
  it.each(COLLECTIVE_NAMES)("measures %s, and prints the keys that its help lists", async (collective) => {
    const isBarrier = collective === "barrier";
    const sizes = isBarrier ? [] : ["--sizes", "12KiB,96KiB"];
    const results = await new Bench(
      collective,
      "--world",
      "3",
      "--iterations",
      "5",
      ...sizes,
      "--json",
    ).results();
    expect(results.map(({ bytes }) => bytes)).toEqual(isBarrier ? [0] : [12 * 1_024, 96 * 1_024]);
    for (const result of results) {
      expect(Object.keys(result)).toEqual(KEYS);
      const reduces = collective === "all-reduce" || collective === "reduce-scatter";
      expect(result).toMatchObject({
        ...{ collective, world: 3, op: reduces ? "sum" : "none", verified: true },
        dtype: isBarrier ? "none" : "f32",
        transport: expect.stringMatching(/^(tcp|shm|mixed)$/),
      });
      const { bytes, minSeconds, medianSeconds, maxSeconds, algbwGBps, busbwGBps } = result;
      expect(minSeconds).toBeGreaterThan(0);
      expect(medianSeconds).toBeGreaterThanOrEqual(minSeconds);
      expect(maxSeconds).toBeGreaterThanOrEqual(medianSeconds);
      expect(algbwGBps).toBeCloseTo(bytes / medianSeconds / 1e9, 9);
      expect(busbwGBps).toBeCloseTo(algbwGBps * (BUS_FACTORS[collective] ?? 0), 9);
    }
  });

  it.each(["tcp", "shm"])("uses the transport that was asked for: %s", async (transport) => {
    const [result] = await new Bench(
      "all-reduce",
      "--sizes",
      "64KiB",
      "--transport",
      transport,
      "--json",
    ).results();
    expect(result).toMatchObject({ world: 2, transport });
  });

  it("prints a table, and takes all options", async () => {
    const bench = new Bench(
      ...["all-to-all", "--world", "3", "--sizes", "12300B", "--dtype", "bf16", "--skew", "0.8"],
      ...["--concurrency", "4", "--connections", "2", "--iterations", "3", "--transport", "tcp"],
    );
    expect(await bench.code(), bench.stderr).toBe(0);
    expect(bench.stdout).toContain(
      "all-to-all between 3 peers, of bf16, a share of 0.8 to rank 0, split into 4 at once",
    );
    expect(bench.stdout).toMatch(/^ +12 KiB +tcp( +\d+\.\d+){5}$/m);
    const reduced = await new Bench(
      ...["all-reduce", "--sizes", "10B", "--dtype", "u8", "--op", "max", "--out-of-place", "--json"],
    ).results();
    expect(reduced).toMatchObject([{ bytes: 10, dtype: "u8", op: "max" }]);
  });

  it("joins a run: every peer is started by hand, and rank 0 prints", async () => {
    const coordinator = new RunningCoordinator();
    const [, address = ""] = await coordinator.line(/listening on (\S+)/);
    const args = [
      "all-reduce",
      "--world",
      "3",
      "--sizes",
      "4KiB",
      "--iterations",
      "3",
      "--coordinator",
      address,
    ];
    const peers = Array.from({ length: 3 }, () => new Bench(...args, "--json"));
    expect(await Promise.all(peers.map((peer) => peer.code()))).toEqual([0, 0, 0]);
    const [printed, ...others] = peers.map(({ stdout }) => stdout).filter((text) => text !== "");
    expect(others).toEqual([]);
    expect(JSON.parse(printed as string)).toMatchObject({
      results: [{ world: 3, bytes: 4_096, verified: true }],
    });
    expect(peers.filter(({ stderr }) => stderr.includes("rank 0 prints the results"))).toHaveLength(2);
  });

  it("measures what is sent quantized, once it is within its error and the same on all peers", async () => {
    const args = ["all-reduce", "--world", "3", "--sizes", "1MiB", "--iterations", "3", "--quantize"];
    const [result] = await new Bench(...args, "u8", "--json").results();
    expect(result).toMatchObject({ bytes: 2 ** 20, dtype: "f32", quantize: "u8", verified: true });
    for (const wrong of [["u4"], ["u8", "--dtype", "f64"], ["u8", "--op", "prod"]]) {
      expect(await new Bench(...args, ...wrong).code()).toBe(2);
    }
  });

  it("ends a run that it has joined when a peer leaves it, or a signal comes", async () => {
    const coordinator = new RunningCoordinator();
    const [, address = ""] = await coordinator.line(/listening on (\S+)/);
    const args = ["all-reduce", "--world", "3", "--sizes", "4MiB", "--iterations", "1000000"];
    const peers = Array.from({ length: 3 }, () => new Bench(...args, "--coordinator", address));
    await coordinator.line(/world size 3/);
    peers[0]?.child.kill("SIGINT");
    expect(await Promise.all(peers.map((peer) => peer.code()))).toEqual([130, 1, 1]);
    for (const { stderr } of peers.slice(1)) expect(stderr).toMatch(/^pccl: .*(peer \d|of the 3 peers)/m);
  });

  it("refuses to join a run with other arguments, on every peer", async () => {
    const coordinator = new RunningCoordinator();
    const [, address = ""] = await coordinator.line(/listening on (\S+)/);
    const args = ["all-reduce", "--world", "2", "--coordinator", address, "--sizes"];
    const peers = [new Bench(...args, "4KiB"), new Bench(...args, "8KiB")];
    expect(await Promise.all(peers.map((peer) => peer.code()))).toEqual([2, 2]);
    for (const { stdout, stderr } of peers) {
      expect(stderr).toContain("all peers must be started with the same arguments");
      expect(stdout).toBe("");
    }
  });

  it("says which peer's process has ended, and ends the others", async () => {
    const bench = new Bench(
      "all-reduce",
      "--world",
      "3",
      "--sizes",
      "4MiB",
      "--iterations",
      "1000000",
      "--json",
    );
    const peers = await bench.peers(3);
    process.kill(peers[1] as number, "SIGKILL");
    expect(await bench.code()).toBe(1);
    expect(bench.stderr).toMatch(/pccl: bench: peer process \d ended with SIGKILL (while|before)/);
    expect(bench.stdout).toBe("");
    expect(peers.every(isGone)).toBe(true);
  });

  it.each(["SIGINT", "SIGTERM"] as const)("takes its peers along at %s", async (signal) => {
    const bench = new Bench("all-reduce", "--sizes", "4MiB", "--iterations", "1000000");
    const peers = await bench.peers(2);
    bench.child.kill(signal);
    expect(await bench.code()).toBe(130);
    expect(peers.every(isGone)).toBe(true);
  });

  it("leaves no peer when it is killed", async () => {
    const bench = new Bench("all-reduce", "--sizes", "4MiB", "--iterations", "1000000");
    const peers = await bench.peers(2);
    bench.child.kill("SIGKILL");
    await vi.waitUntil(() => peers.every(isGone), 30_000);
  });

  it("says that no coordinator is there, with exit code 1", async () => {
    const bench = new Bench("barrier", "--coordinator", "127.0.0.1:1");
    expect(await bench.code()).toBe(1);
    expect(bench.stderr).toContain("127.0.0.1:1");
  });

  it.each([
    [[], "one collective is needed"],
    [["all-reduce", "broadcast"], "one collective is needed"],
    [["dance"], "the collective must be one of all-reduce"],
    [["all-reduce", "--sizes", "4"], "--sizes must be sizes like"],
    [["all-reduce", "--sizes", "2B"], "no element for each block"],
    [["all-gather", "--sizes", "16B", "--world", "5"], "no element for each block"],
    [["all-reduce", "--sizes", "16B", "--concurrency", "5"], "no element for each block"],
    [["all-reduce", "--world", "0"], "--world must be an integer from 1"],
    [["send-recv", "--world", "1"], "--world must be an integer from 2"],
    [["all-reduce", "--world", "two"], "--world must be an integer"],
    [["all-reduce", "--transport", "ib"], "--transport must be one of auto, tcp, shm"],
    [["all-reduce", "--dtype", "f8"], "--dtype must be one of"],
    [["all-reduce", "--op", "xor"], "--op must be one of"],
    [["all-gather", "--op", "sum"], "--op doesn't go with all-gather"],
    [["all-reduce", "--skew", "0.8"], "--skew doesn't go with all-reduce"],
    [["all-to-all", "--world", "4", "--skew", "0.1"], "--skew must be a number from 0.25"],
    [["all-to-all", "--world", "1", "--skew", "1"], "--skew needs a --world of 2"],
    [["barrier", "--sizes", "4KiB"], "--sizes doesn't go with barrier"],
    [["broadcast", "--out-of-place"], "--out-of-place doesn't go with broadcast"],
    [["reduce-scatter", "--in-place"], "--in-place doesn't go with reduce-scatter"],
    [["all-reduce", "--in-place", "--out-of-place"], "not both"],
    [["all-reduce", "--iterations", "0"], "--iterations must be an integer from 1"],
    [["all-reduce", "--concurrency", "0"], "--concurrency must be an integer from 1"],
    [["all-reduce", "--connections", "65"], "--connections must be an integer from 1 to 64"],
    [["all-reduce", "--loud"], "--loud"],
  ])("refuses the arguments %j with exit code 2", async (args, message) => {
    const bench = new Bench(...args);
    expect(await bench.code()).toBe(2);
    expect(bench.stderr).toContain(message);
    expect(bench.stdout).toBe("");
  });

  it("shows its help", async () => {
    const bench = new Bench("--help");
    expect(await bench.code()).toBe(0);
    const flags = [...bench.stdout.matchAll(/--[a-z-]+/g)].map(([flag]) => flag);
    for (const flag of [
      "--world",
      "--sizes",
      "--transport",
      "--dtype",
      "--op",
      "--connections",
      "--iterations",
    ]) {
      expect(flags).toContain(flag);
    }
    for (const name of COLLECTIVE_NAMES) expect(bench.stdout).toContain(name);
  });
});
