/** One op of a benchmark: its buffers, the data that tests it, and the call of the public API that is timed. */
import { createHash } from "node:crypto";
import type { Communicator } from "../peer/communicator.js";
import { bytesOf, type DType, type Tensor } from "../peer/tensor.js";
import { COLLECTIVES, type CollectiveName } from "./collectives.js";
import { contributionOf, extremesOf, type Reduction, reductionOf, restingValue } from "./contributions.js";
import type { BenchJob, Measurement } from "./job.js";
import { elementBytes, integerMax, makeTensor as makeArray, Pattern, scatter } from "./pattern.js";
import { quantizedErrorMax } from "./quantized-error.js";

export interface Work {
  /** Data in which an error shows. */
  readonly fill: () => void;
  /** What is wrong with the result of that data, in words. */
  readonly check: () => string | undefined;
  /** Of the result, where all peers have the same and `check` allows for errors. */
  readonly digest?: () => bigint;
  /** Data that the op can be applied to as often as one likes; for most it is any. */
  readonly rest?: () => void;
  readonly run: () => Promise<{ readonly transport: Measurement["transport"] }>;
}

interface Setting {
  readonly comm: Communicator;
  readonly world: number;
  readonly rank: number;
  readonly job: BenchJob;
  readonly dtype: DType;
  /** Elements of what the collective's `bytes` counts. */
  readonly count: number;
  /** Elements of a peer's block, where there are blocks. */
  readonly block: number;
  readonly tag: number;
  readonly makeTensor: (dtype: DType, length: number) => Tensor;
}

/** What of `bytes` is measured: whole elements, in whole blocks, the same for all concurrent ops; 0 if it is too little. */
export function usableBytes({ collective, dtype, world, concurrency }: BenchJob, bytes: number): number {
  const unit = elementBytes(dtype) * (COLLECTIVES[collective].blocks ? world : 1) * concurrency;
  return Math.floor(bytes / unit) * unit;
}

/** `bytes` is of this op alone. */
export function makeWork(comm: Communicator, job: BenchJob, bytes: number, tag: number): Work {
  const { dtype, world, collective } = job;
  const count = bytes / elementBytes(dtype);
  return MAKERS[collective]({
    ...{ comm, world, rank: comm.rank, job, dtype, tag },
    ...{ count, block: count / world },
    makeTensor: (type, length) =>
      job.memory === "alloc" && length > 0 ? comm.alloc(length, type) : makeArray(type, length),
  });
}

/** Data that is only moved: different for each source. */
function dataOf(dtype: DType, source: number): Pattern {
  return new Pattern(dtype, (position) => scatter(source, position, integerMax(dtype) + 1));
}

/** The first block that isn't what it has to be. Block i is `lengths[i]` long. */
function blocksDifference(
  dtype: DType,
  recv: Tensor,
  lengths: readonly number[],
  sourceOf: (rank: number) => number,
): string | undefined {
  let begin = 0;
  for (const [rank, length] of lengths.entries()) {
    const wrong = dataOf(dtype, sourceOf(rank)).difference(recv.subarray(begin, begin + length));
    if (wrong !== undefined) return `in the block of rank ${rank}, ${wrong}`;
    begin += length;
  }
  return undefined;
}

function fillBlocks(
  dtype: DType,
  send: Tensor,
  lengths: readonly number[],
  sourceOf: (rank: number) => number,
): void {
  let begin = 0;
  for (const [rank, length] of lengths.entries()) {
    dataOf(dtype, sourceOf(rank)).write(send.subarray(begin, begin + length));
    begin += length;
  }
}

function reductionFor({ dtype, op, world, quantize }: BenchJob): Reduction {
  return { dtype, op, world, isQuantized: quantize !== undefined };
}

/** The first element of a reduction's result, from position `from` on, that isn't what it has to be. */
function resultDifference(job: BenchJob, recv: Tensor, from = 0): string | undefined {
  const reduction = reductionFor(job);
  const expected = reductionOf(reduction);
  if (job.quantize === undefined) return expected.difference(recv, from);
  const { part, result } = extremesOf(reduction);
  return expected.distance(
    recv as Float32Array,
    quantizedErrorMax(job.quantize, job.world, part, result),
    from,
  );
}

function digestOf(tensor: Tensor): bigint {
  return createHash("sha256").update(bytesOf(tensor)).digest().readBigUInt64LE();
}

/** How many of `count` elements go to each rank. */
function countsOf(count: number, world: number, skew: number): number[] {
  const first = Math.round(count * skew);
  const each = Math.floor((count - first) / (world - 1));
  const left = count - first - each * (world - 1);
  return Array.from({ length: world }, (_, rank) => (rank === 0 ? first : each + (rank <= left ? 1 : 0)));
}

const MAKERS: Readonly<Record<CollectiveName, (setting: Setting) => Work>> = {
  "all-reduce": ({ makeTensor, comm, rank, job, dtype, count, tag }) => {
    const { op, place, quantize } = job;
    const send = makeTensor(dtype, count);
    const recv = place === "in" ? send : makeTensor(dtype, count);
    const reduction = reductionFor(job);
    return {
      fill: () => contributionOf(reduction, rank).write(send),
      check: () => resultDifference(job, recv),
      ...(quantize !== undefined && { digest: () => digestOf(recv) }),
      rest: () => restingValue(dtype, op).write(send),
      run: () => comm.allReduce(send, recv, { op, dtype, tag, quantize }),
    };
  },
  "reduce-scatter": ({ makeTensor, comm, rank, job, dtype, count, block, tag }) => {
    const { op, quantize } = job;
    const send = makeTensor(dtype, count);
    const recv = makeTensor(dtype, block);
    return {
      fill: () => contributionOf(reductionFor(job), rank).write(send),
      check: () => resultDifference(job, recv, rank * block),
      run: () => comm.reduceScatter(send, recv, { op, dtype, tag, quantize }),
    };
  },
  "all-gather": ({ makeTensor, comm, world, rank, job: { place }, dtype, count, block, tag }) => {
    const recv = makeTensor(dtype, count);
    const send = place === "in" ? recv.subarray(rank * block, (rank + 1) * block) : makeTensor(dtype, block);
    const lengths = Array.from({ length: world }, () => block);
    return {
      fill: () => dataOf(dtype, rank).write(send),
      check: () => blocksDifference(dtype, recv, lengths, (from) => from),
      run: () => comm.allGather(send, recv, { dtype, tag }),
    };
  },
  broadcast: ({ makeTensor, comm, rank, dtype, count, tag }) => {
    const data = makeTensor(dtype, count);
    const root = comm.peers[0] as number;
    return {
      fill: () => {
        if (rank === 0) dataOf(dtype, 0).write(data);
      },
      check: () => dataOf(dtype, 0).difference(data),
      run: () => comm.broadcast(data, { root, dtype, tag }),
    };
  },
  "all-to-all": ({ makeTensor, comm, world, rank, job: { skew }, dtype, count, tag }) => {
    const sendCounts = countsOf(count, world, skew ?? 1 / world);
    const recvCounts = sendCounts.map(() => sendCounts[rank] as number);
    const send = makeTensor(dtype, count);
    const recv = makeTensor(
      dtype,
      recvCounts.reduce((sum, length) => sum + length),
    );
    const options = { dtype, tag, ...(skew !== undefined && { sendCounts, recvCounts }) };
    return {
      fill: () => fillBlocks(dtype, send, sendCounts, (to) => rank * world + to),
      check: () => blocksDifference(dtype, recv, recvCounts, (from) => from * world + rank),
      run: () => comm.allToAll(send, recv, options),
    };
  },
  gather: ({ makeTensor, comm, world, rank, dtype, count, block, tag }) => {
    const send = makeTensor(dtype, block);
    const recv = rank === 0 ? makeTensor(dtype, count) : undefined;
    const root = comm.peers[0] as number;
    const lengths = Array.from({ length: world }, () => block);
    return {
      fill: () => dataOf(dtype, rank).write(send),
      check: () => recv && blocksDifference(dtype, recv, lengths, (from) => from),
      run: () => comm.gather(send, recv, { root, dtype, tag }),
    };
  },
  scatter: ({ makeTensor, comm, world, rank, dtype, count, block, tag }) => {
    const send = rank === 0 ? makeTensor(dtype, count) : undefined;
    const recv = makeTensor(dtype, block);
    const root = comm.peers[0] as number;
    const lengths = Array.from({ length: world }, () => block);
    return {
      fill: () => send && fillBlocks(dtype, send, lengths, (to) => to),
      check: () => dataOf(dtype, rank).difference(recv),
      run: () => comm.scatter(send, recv, { root, dtype, tag }),
    };
  },
  "send-recv": ({ makeTensor, comm, world, rank, dtype, count, tag }) => {
    const [next, before] = [(rank + 1) % world, (rank + world - 1) % world];
    const to = comm.peers[next] as number;
    const from = comm.peers[before] as number;
    const send = makeTensor(dtype, count);
    const recv = makeTensor(dtype, count);
    return {
      fill: () => dataOf(dtype, rank).write(send),
      check: () => dataOf(dtype, before).difference(recv),
      run: async () => {
        const [received] = await Promise.all([
          comm.recv(recv, { from, dtype, tag }),
          comm.send(send, { to, dtype, tag }),
        ]);
        return received;
      },
    };
  },
  barrier: ({ comm, tag }) => ({
    fill: () => undefined,
    // There is no data. That nobody gets out before all are in is for the tests of the library to show.
    check: () => undefined,
    run: () => comm.barrier({ tag }),
  }),
};
