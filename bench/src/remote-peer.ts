/** The program of a RemotePeer: does what its parent says, and tells when. Times are the machine's, in milliseconds. */
import { readFileSync, writeFileSync } from "node:fs";
import { type Communicator, connect, type ConnectOptions, PcclError } from "@pccl/core";
import type { Coordinator } from "@pccl/core/coordinator";
import type { Commands, MemoryUse, OpOutcome, VoteTimes } from "./remote.js";

let comm: Communicator | undefined;
let coordinator: Coordinator | undefined;
let send = new Float32Array(0);
let recv = new Float32Array(0);
let running: Promise<unknown> = Promise.resolve();

/** The same clock in all processes. */
function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function joined(): Communicator {
  if (comm === undefined) throw new Error("not connected");
  return comm;
}

/** Reduces, again after a loss, until there is a result. */
async function reduce(): Promise<OpOutcome> {
  const startMs = nowMs();
  let errorMs: number | undefined;
  for (;;) {
    try {
      const { worldSize } = await joined().allReduce(send, recv);
      const endMs = nowMs();
      const [value = Number.NaN] = recv;
      return {
        startMs,
        errorMs,
        endMs,
        worldSize,
        value,
        uniform: recv.every((element) => element === value),
      };
    } catch (error) {
      if (!(error instanceof PcclError && error.code === "ERR_PCCL_PEER_LOST")) throw error;
      errorMs = nowMs();
    }
  }
}

/** A line of proc(5)'s status, in bytes. */
function memoryField(name: "VmRSS" | "VmHWM"): number {
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1_024;
}

async function reduceMemory({ bytes, inPlace }: { bytes: number; inPlace: boolean }): Promise<MemoryUse> {
  const [source, target] = [new Float32Array(bytes / 4).fill(1), new Float32Array(bytes / 4).fill(1)];
  // Kept, so that it doesn't depend on the garbage collector what a process has in use after it.
  [send, recv] = [source, target];
  const before = memoryField("VmRSS");
  // Makes the peak begin anew.
  writeFileSync("/proc/self/clear_refs", "5");
  await joined().allReduce(source, inPlace ? source : target);
  return { peakBytes: memoryField("VmHWM") - before, keptBytes: memoryField("VmRSS") - before };
}

const commands: { [Name in keyof Commands]: (args: Parameters<Commands[Name]>[0]) => unknown } = {
  async coordinator({ listen, minPeers, leaseMs }) {
    const module = await import("@pccl/core/coordinator");
    coordinator = await module.Coordinator.start({ listen, minPeers, leaseMs });
    return coordinator.address;
  },
  async connect({ address, ...given }) {
    const options: ConnectOptions = {
      connectTimeoutMs: 60_000,
      ...given,
      onPending: () => process.send?.({ pending: true }),
    };
    comm = await connect(address, options);
    return { peerId: comm.peerId, admittedMs: nowMs() };
  },
  allocate({ count }) {
    send = new Float32Array(count).fill(joined().peerId);
    recv = new Float32Array(count);
  },
  reduce,
  async vote(): Promise<VoteTimes> {
    const callMs = nowMs();
    const changed = await joined().updateTopology();
    return { callMs, doneMs: nowMs(), changed };
  },
  async idleVotes({ times }) {
    const durationsMs: number[] = [];
    for (let i = 0; i < times; i++) {
      const startMs = nowMs();
      await joined().updateTopology();
      durationsMs.push(nowMs() - startMs);
    }
    return durationsMs;
  },
  reduceMemory,
  resident: () => memoryField("VmRSS"),
  startReduce({ bytes }) {
    running = joined().allReduce(new Float32Array(bytes / 4));
  },
  async endReduce() {
    await running;
  },
  cpuSeconds() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  },
  optimize: () => joined().optimizeTopology(),
  topology: (options) => joined().topology(options),
  async close() {
    await comm?.close();
    await coordinator?.close();
  },
};

type Request = { [Name in keyof Commands]: { id: number; command: Name; args: object } }[keyof Commands];

process.on("message", ({ id, command, args }: Request) => {
  Promise.resolve((commands[command] as (args: object) => unknown)(args)).then(
    (value) => process.send?.({ id, value }),
    (error: unknown) => process.send?.({ id, error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", () => process.exit(0));
