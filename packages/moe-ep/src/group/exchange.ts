/** What the ranks of a group say to each other: the collectives that steps are made of, in the group's own rank order. */
import { type CallOptions, type Communicator, PcclError, type Tensor } from "@pccl/core";
import { describe, isPcclErrorCode, pcclError } from "@pccl/core/base";

/** All collectives of groups; what passes between two ranks has the tags after it. */
const TAG = 0x6d6f_6500_0000_0000n;
/** The group is at an end with such an error, which all its members get. */
const FINAL_CODES: readonly string[] = [
  "ERR_PCCL_PEER_LOST",
  "ERR_PCCL_CLOSED",
  "ERR_PCCL_REMOVED",
  "ERR_PCCL_COORDINATOR_LOST",
];
/** An op with such an error was never begun: the others don't know of it. */
const LOCAL_CODES: readonly string[] = [
  "ERR_PCCL_INVALID_ARGUMENT",
  "ERR_PCCL_BUFFER_IN_USE",
  "ERR_PCCL_TAG_IN_USE",
  "ERR_PCCL_TOO_MANY_OPS",
  "ERR_PCCL_CALL_IN_PROGRESS",
  "ERR_PCCL_OUT_OF_MEMORY",
];
const REASON_BYTES = 240;
const HEADER_BYTES = 16 + REASON_BYTES;
const [STATUS_FINE, STATUS_FAILED] = [1, 2];

export class Exchange {
  readonly rank: number;
  readonly size: number;
  /** The group's ranks in the communicator's order, which blocks of collectives lie in. */
  readonly order: readonly number[];
  readonly #communicator: Communicator | undefined;
  readonly #peers: readonly number[];
  /** Errors that all ranks got, or will get. */
  readonly #shared = new WeakSet<object>();

  /** `ranks[i]` is the group's rank of the communicator's rank i. Without a communicator: a group of one. */
  constructor(communicator: Communicator | undefined, ranks: readonly number[]) {
    this.#communicator = communicator;
    this.#peers = [...(communicator?.peers ?? [0])];
    this.order = ranks;
    this.size = ranks.length;
    this.rank = ranks[communicator?.rank ?? 0] as number;
  }

  /** In the communicator's order, from numbers by rank. */
  byBlock<T>(values: readonly T[]): T[] {
    return this.order.map((rank) => values[rank] as T);
  }

  /**
   * Exchanges the ranks' payloads, of `bytes` each; the result is by rank. What `prepare` throws on one rank, all ranks
   * get, with that rank's code: so none goes on alone.
   */
  async agree(
    call: string,
    bytes: number,
    prepare: () => Uint8Array | Promise<Uint8Array>,
    options: CallOptions = {},
  ): Promise<Uint8Array[]> {
    let own: Uint8Array | undefined;
    let failure: PcclError | undefined;
    try {
      own = await prepare();
    } catch (error) {
      failure =
        error instanceof PcclError
          ? error
          : pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${String(error)}`, { cause: error });
    }
    const block = encode(bytes, own, failure);
    const all = new Uint8Array(block.length * this.size);
    await this.#run(call, all, block, options);
    const blocks: Uint8Array[] = [];
    for (const [at, rank] of this.order.entries()) {
      blocks[rank] = all.subarray(at * block.length, (at + 1) * block.length);
    }
    if (failure !== undefined) throw this.#share(failure);
    for (const [rank, other] of blocks.entries()) {
      const error = failureOf(call, rank, other);
      if (error !== undefined) throw this.#share(error);
    }
    return blocks.map((other) => other.subarray(HEADER_BYTES));
  }

  async #run(call: string, all: Uint8Array, block: Uint8Array, options: CallOptions): Promise<void> {
    const communicator = this.#current(call);
    if (communicator === undefined) all.set(block);
    else
      await this.#together(call, options, () => communicator.allGather(block, all, { ...options, tag: TAG }));
  }

  /** Rows of `width` elements: counts are of rows, by block. */
  async allToAll(
    call: string,
    send: Tensor,
    recv: Tensor,
    { width, sent, received }: { width: number; sent: readonly number[]; received: readonly number[] },
    options: CallOptions = {},
  ): Promise<void> {
    const communicator = this.#current(call);
    if (communicator === undefined) {
      (recv as Uint8Array).set(send as Uint8Array);
      return;
    }
    const sendCounts = sent.map((count) => count * width);
    const recvCounts = received.map((count) => count * width);
    await this.#together(call, options, () =>
      communicator.allToAll(send, recv, { ...options, tag: TAG, sendCounts, recvCounts }),
    );
  }

  /**
   * Between two ranks. `number` names what is sent, the same on both, from 0 to 2^40 - 1; one that was used in a step
   * that failed isn't used again.
   */
  async send(call: string, data: Tensor, rank: number, number: number, options: CallOptions): Promise<void> {
    const communicator = this.#current(call) as Communicator;
    const to = this.#peers[this.order.indexOf(rank)] as number;
    await communicator.send(data, { ...options, to, tag: TAG + 1n + BigInt(number) });
  }

  async recv(call: string, data: Tensor, rank: number, number: number, options: CallOptions): Promise<void> {
    const communicator = this.#current(call) as Communicator;
    const from = this.#peers[this.order.indexOf(rank)] as number;
    await communicator.recv(data, { ...options, from, tag: TAG + 1n + BigInt(number) });
  }

  /**
   * Lets the others fail, if `error` is of this rank alone: they wait in an op of the group, or come to one. Call it
   * when a step has failed before its last op.
   */
  async failTogether(error: unknown): Promise<void> {
    if (this.#communicator === undefined || this.#shared.has(Object(error) as object)) return;
    if (error instanceof PcclError && FINAL_CODES.includes(error.code)) return;
    // Ops of one tag are matched in order: theirs is of another kind, so that all of them reject.
    await this.#communicator.barrier({ tag: TAG }).catch(() => undefined);
  }

  /** The communicator, if its members are still those that the group was made of. */
  #current(call: string): Communicator | undefined {
    const peers = this.#communicator?.peers ?? this.#peers;
    if (peers.length !== this.#peers.length || peers.some((peer, i) => peer !== this.#peers[i])) {
      throw this.#share(
        pcclError(
          "ERR_PCCL_PEER_LOST",
          `${call}: the communicator's members are not those of the expert group any more; connect a new group`,
          { epoch: this.#communicator?.epoch },
        ),
      );
    }
    return this.#communicator;
  }

  /** An op of the whole group. */
  async #together(call: string, { signal }: CallOptions, op: () => Promise<unknown>): Promise<void> {
    signal?.throwIfAborted();
    try {
      await op();
    } catch (error) {
      if (error instanceof PcclError && LOCAL_CODES.includes(error.code)) throw error;
      if (error instanceof PcclError && error.code === "ERR_PCCL_DESCRIPTOR_MISMATCH") {
        const why = "the ranks make different calls, or one of them has failed in this one";
        throw this.#share(pcclError(error.code, `${call}: ${why}`, { epoch: error.epoch, cause: error }));
      }
      throw this.#share(error as Error);
    }
  }

  #share<E extends Error>(error: E): E {
    // A caller may withdraw a call with a reason of any kind.
    this.#shared.add(Object(error) as object);
    return error;
  }
}

function encode(bytes: number, payload: Uint8Array | undefined, failure: PcclError | undefined): Uint8Array {
  const block = new Uint8Array(HEADER_BYTES + bytes);
  const view = new DataView(block.buffer);
  view.setUint32(0, failure === undefined ? STATUS_FINE : STATUS_FAILED, true);
  if (failure !== undefined) {
    // As much of it as fits: what comes of characters cut in two doesn't matter to a reader.
    const text = new TextEncoder().encode(`${failure.code} ${failure.reason}`).subarray(0, REASON_BYTES);
    view.setUint32(4, text.length, true);
    block.set(text, 16);
  }
  if (payload !== undefined) block.set(payload, HEADER_BYTES);
  return block;
}

function failureOf(call: string, rank: number, block: Uint8Array): PcclError | undefined {
  const view = new DataView(block.buffer, block.byteOffset);
  if (view.getUint32(0, true) === STATUS_FINE) return undefined;
  const text = new TextDecoder().decode(block.subarray(16, 16 + view.getUint32(4, true)));
  const [code, ...words] = text.split(" ");
  const reason = `${call}: rank ${rank} failed: ${words.join(" ")}`;
  return isPcclErrorCode(code)
    ? pcclError(code, reason)
    : pcclError("ERR_PCCL_INTERNAL", `${call}: rank ${rank} sent ${describe(text)}`);
}
