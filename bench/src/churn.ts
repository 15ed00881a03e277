/**
 * Soak test: peers are killed and added at random while they reduce and sync without pause. It fails when a peer
 * ends by itself, when two peers hold different bytes at one revision, or when no revision comes for 30 s.
 *
 *   node bench/dist/churn.js [--seconds 60] [--peers-max 6] [--seed 1] [--count 65536]
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { connect, PcclError, SharedState } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";

const STALL_MS = 30_000;
const CONCURRENT_OPS = 4;

interface Job {
  readonly coordinator: string;
  readonly count: number;
}

interface Progress {
  readonly peerId: number;
  readonly revision: number;
  readonly hash: string;
  readonly groupWorldSize: number;
  readonly retried: number;
}

async function runPeer({ coordinator, count }: Job): Promise<void> {
  const comm = await connect(coordinator);
  const weights = new Float32Array(count);
  const sends = Array.from({ length: CONCURRENT_OPS }, () => new Float32Array(count));
  const recvs = sends.map((send) => new Float32Array(send.length));
  const state = new SharedState({ weights }, { revision: 0 });
  for (;;) {
    let retried = 0;
    for (;;) {
      try {
        const { hashes } = await comm.syncSharedState(state);
        process.send?.({
          peerId: comm.peerId,
          revision: state.revision,
          hash: hashes["weights"] ?? "",
          groupWorldSize: comm.groupWorldSize,
          retried,
        } satisfies Progress);
        break;
      } catch (error) {
        if (!(error instanceof PcclError && error.retryable)) throw error;
        retried++;
      }
    }
    sends.forEach((send, index) => {
      for (let i = 0; i < send.length; i++)
        send[i] = ((comm.peerId * 31 + state.revision + index + i) % 97) / 7;
    });
    // Half of the ops in place, half out of place.
    const calls = sends.map((send, index) => ({
      send,
      op: "avg" as const,
      ...(index % 2 === 0 ? {} : { recv: recvs[index] as Float32Array }),
    }));
    await comm.allReduceAll(calls, { maxInFlight: 3 });
    calls.forEach(({ send, recv }) => {
      const result = recv ?? send;
      for (let i = 0; i < weights.length; i++) weights[i] = (weights[i] ?? 0) + (result[i] ?? 0);
    });
    state.revision++;
    if (await comm.hasPendingPeers()) await comm.updateTopology();
  }
}

/** Mulberry32: a run can be repeated by its seed, as far as timing allows. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      peer: { type: "boolean", default: false },
      seconds: { type: "string", default: "60" },
      "peers-max": { type: "string", default: "6" },
      seed: { type: "string", default: "1" },
      count: { type: "string", default: "65536" },
    },
  });
  if (values.peer) {
    const [job] = (await once(process, "message")) as [Job];
    process.on("disconnect", () => process.exit(0));
    return await runPeer(job);
  }

  const random = randomFrom(Number(values.seed));
  const coordinator = await Coordinator.start({ listen: "127.0.0.1:0", leaseMs: 2_000 });
  /** Living processes; those that have synced once carry their last progress. */
  const alive = new Map<ChildProcess, Progress | undefined>();
  const doomed = new Set<ChildProcess>();
  const hashes = new Map<number, string>();
  const problems: string[] = [];
  let revision = 0;
  let lastProgressMs = performance.now();
  let longestGapMs = 0;
  let kills = 0;
  let joins = 0;
  let retries = 0;

  const onProgress = (child: ChildProcess, progress: Progress): void => {
    alive.set(child, progress);
    retries += progress.retried;
    const known = hashes.get(progress.revision);
    hashes.set(progress.revision, progress.hash);
    if (known !== undefined && known !== progress.hash) {
      problems.push(`peer ${progress.peerId} differs from the others at revision ${progress.revision}`);
    }
    if (progress.revision > revision) {
      revision = progress.revision;
      longestGapMs = Math.max(longestGapMs, performance.now() - lastProgressMs);
      lastProgressMs = performance.now();
    }
  };
  const spawnPeer = (): void => {
    const child = fork(fileURLToPath(import.meta.url), ["--peer"], { stdio: "inherit" });
    alive.set(child, undefined);
    joins++;
    child.on("message", (message) => onProgress(child, message as Progress));
    child.on("exit", (code, signal) => {
      alive.delete(child);
      if (!doomed.has(child)) problems.push(`a peer ended by itself: ${signal ?? code}`);
    });
    child.send({ coordinator: coordinator.address, count: Number(values.count) } satisfies Job);
  };

  for (let i = 0; i < 3; i++) spawnPeer();
  const endMs = performance.now() + Number(values.seconds) * 1_000;
  while (performance.now() < endMs && problems.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 200 + 1_300 * random()));
    const working = [...alive].filter(([child, progress]) => progress !== undefined && !doomed.has(child));
    // At least two working peers stay, so that the state has a holder whatever happens to the victim's neighbours.
    if (working.length > 2 && random() < 0.5) {
      const victim = working[Math.floor(random() * working.length)]?.[0];
      if (victim !== undefined) {
        doomed.add(victim);
        victim.kill("SIGKILL");
        kills++;
      }
    } else if (alive.size < Number(values["peers-max"])) spawnPeer();
    if (performance.now() - lastProgressMs > STALL_MS) {
      problems.push(`no revision for ${STALL_MS} ms; the last one is ${revision}`);
    }
    if (process.stderr.isTTY)
      process.stderr.write(
        `\rrevision ${revision}  peers ${alive.size}  kills ${kills}  joins ${joins}  sync retries ${retries}   `,
      );
  }
  if (process.stderr.isTTY) process.stderr.write("\n");
  for (const child of alive.keys()) doomed.add(child);
  for (const child of alive.keys()) child.kill("SIGKILL");
  await coordinator.close();
  const ok = problems.length === 0 && revision > 0;
  const gap = Math.round(longestGapMs);
  console.log(JSON.stringify({ ok, revision, kills, joins, retries, longestGapMs: gap, problems }));
  process.exitCode = ok ? 0 : 1;
}

await main();
