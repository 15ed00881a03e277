/** What the peers of a benchmark agree on, by all-reduces: that all are there, and the largest of their times. */
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { pcclError } from "../base/errors.js";
import type { Communicator } from "../peer/communicator.js";
import type { Tensor } from "../peer/tensor.js";

const JOIN_POLL_MS = 50;

/** Lets others in until all are there, and makes sure that all were told the same. */
export async function join(comm: Communicator, job: { world: number }, timeoutMs: number): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (comm.groupWorldSize < job.world) {
    if (performance.now() > deadlineMs) {
      const what = `only ${comm.groupWorldSize} of ${job.world} peers came in ${timeoutMs} ms`;
      throw pcclError("ERR_PCCL_TIMEOUT", `bench: ${what}`);
    }
    if (await comm.hasPendingPeers()) await comm.updateTopology();
    else await delay(JOIN_POLL_MS);
  }
  const different = (what: string): Error =>
    pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `bench: all peers must be started with the same arguments; ${what}`,
    );
  if (comm.groupWorldSize > job.world) {
    throw different(`this one with --world ${job.world}, but there are ${comm.groupWorldSize} peers`);
  }
  const digest = createHash("sha256").update(JSON.stringify(job)).digest().readBigUInt64LE();
  if (!(await isSame(comm, job, digest))) throw different("they differ");
}

/** Whether all peers have the same number. */
export async function isSame(comm: Communicator, job: { world: number }, value: bigint): Promise<boolean> {
  const extremes = BigUint64Array.of(value, BigInt.asUintN(64, ~value));
  await maxOverAll(comm, job, extremes);
  return extremes[0] === BigInt.asUintN(64, ~(extremes[1] as bigint));
}

/** Ops go on without a peer that is gone, so what was done before is that of all only if this is. */
export async function maxOverAll(comm: Communicator, job: { world: number }, values: Tensor): Promise<void> {
  const { worldSize } = await comm.allReduce(values, undefined, { op: "max" });
  if (worldSize === job.world) return;
  throw pcclError("ERR_PCCL_PEER_LOST", `bench: only ${worldSize} of the ${job.world} peers are left`);
}

/** Of sorted values. */
export function median(sorted: ArrayLike<number>): number {
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2;
}
