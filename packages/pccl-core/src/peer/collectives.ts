/** The collective ops of a Communicator: what each takes and gives. How one is run, the Communicator knows. */
import {
  type AllReduceOptions,
  type AllToAllOptions,
  checkAllGather,
  checkAllReduce,
  checkAllToAll,
  checkBarrier,
  checkBroadcast,
  checkGather,
  checkRecv,
  checkReduceScatter,
  checkScatter,
  checkSend,
  type CollectiveCall,
  type CollectiveResult,
  type GroupView,
  type MoveOptions,
  type OpOptions,
  type RecvOptions,
  type RootOptions,
  type SendOptions,
} from "./collective-call.js";
import type { CallOptions } from "./call-limits.js";
import type { Tensor } from "./tensor.js";

/**
 * Each call resolves when all members have its result and know it, and rejects on all of them if it does on one.
 * Every member of the group makes the same call, with the same tag and dtype; the order of concurrent ones doesn't
 * matter. Tensors are typed arrays of any kind but Uint8ClampedArray, also parts of one (`subarray`) and ones in a
 * SharedArrayBuffer. Lengths are in elements; N is the group's size, and what belongs to several members lies in rank
 * order: see `peers`.
 *
 * The memory must not be touched until the promise settles, and its buffer can't be transferred any more. Bad input
 * rejects with ERR_PCCL_INVALID_ARGUMENT before anything changes, also input that doesn't fit this peer's view; what
 * members pass differently rejects with ERR_PCCL_DESCRIPTOR_MISMATCH on all of them.
 *
 * ERR_PCCL_PEER_LOST can be retried: a member is gone, nobody has the result, and the survivors' view is then
 * installed. Calls whose buffers depend on N or on the ranks never begin in another view than the one that this peer
 * knew when it made them, but reject with it as well; before it makes them again a caller shapes its buffers anew.
 *
 * After an error what would have been written holds anything, but for an all-reduce in place; what is only read is
 * never written.
 */
export abstract class Collectives {
  /** Runs a call that passes `check` with the view that this peer knows. */
  protected abstract collective(
    name: string,
    options: CallOptions,
    check: (group: GroupView) => CollectiveCall,
  ): Promise<CollectiveResult>;

  /**
   * Combines `send` of all members, element by element, into `recv` on each of them, with the same bits everywhere.
   * Without `recv`, or with the same array, in place. The same length on every peer; a Uint16Array holds u16, or f16
   * or bf16 with that `dtype`.
   *
   * Integers: `sum` and `prod` wrap around; `avg` divides the sum, wrapped around, and rounds toward zero. Floating
   * point rounds to nearest, ties to even; f16 and bf16 are combined in f32 and rounded each time that a peer adds
   * its contribution. A NaN anywhere gives NaN, for `max` and `min` too, and -0 is less than +0.
   *
   * With `quantize`, f32 elements travel in 8, 4 or 16 bits, and the result is off by what docs/quantization.md says:
   * every peer's elements are rounded once, summed up in f32, and the sum is rounded once.
   *
   * On failure an in-place array holds the caller's values again.
   */
  async allReduce(send: Tensor, recv?: Tensor, options: AllReduceOptions = {}): Promise<CollectiveResult> {
    return await this.collective("allReduce", options, () => checkAllReduce(send, recv, options));
  }

  /**
   * Combines `send` of all members as allReduce does, and gives each member its block of the result: `send` has N
   * times the length of `recv`, and doesn't overlap it. With `quantize` only what travels is rounded, not the result.
   */
  async reduceScatter(send: Tensor, recv: Tensor, options: AllReduceOptions = {}): Promise<CollectiveResult> {
    return await this.collective("reduceScatter", options, (group) =>
      checkReduceScatter(group, send, recv, options),
    );
  }

  /**
   * Gives every member what each of them sends: `recv` has N times the length of `send`, the same on every peer. In
   * place when `send` is this peer's block of `recv`; else they don't overlap.
   */
  async allGather(send: Tensor, recv: Tensor, options: MoveOptions = {}): Promise<CollectiveResult> {
    return await this.collective("allGather", options, (group) => checkAllGather(group, send, recv, options));
  }

  /**
   * Copies `data` of the peer `root` into `data` of all the others, which have the same length. The root's is only
   * read.
   */
  async broadcast(data: Tensor, options: RootOptions): Promise<CollectiveResult> {
    return await this.collective("broadcast", options, (group) => checkBroadcast(group, data, options));
  }

  /**
   * Sends each member its block of `send`, and receives from each its block for this one. Without counts there are N
   * equal blocks. With counts blocks can have any length, also 0: they lie one after the other without gaps, and
   * what `sendCounts` says for a member is what that one's `recvCounts` says for this one, else
   * ERR_PCCL_DESCRIPTOR_MISMATCH. `send` and `recv` don't overlap.
   *
   * In groups of more than 16 members, not all of which are linked, it is refused with ERR_PCCL_INVALID_ARGUMENT.
   */
  async allToAll(send: Tensor, recv: Tensor, options: AllToAllOptions = {}): Promise<CollectiveResult> {
    return await this.collective("allToAll", options, (group) => checkAllToAll(group, send, recv, options));
  }

  /**
   * Brings `send` of every member to the peer `root`, whose `recv` has N times its length; the others pass undefined.
   * In groups of more than 16 members it is refused, as allToAll is.
   */
  async gather(send: Tensor, recv: Tensor | undefined, options: RootOptions): Promise<CollectiveResult> {
    return await this.collective("gather", options, (group) => checkGather(group, send, recv, options));
  }

  /**
   * Gives each member its block of the peer `root`'s `send`, which has N times the length of `recv`; the others pass
   * undefined. In groups of more than 16 members it is refused, as allToAll is.
   */
  async scatter(send: Tensor | undefined, recv: Tensor, options: RootOptions): Promise<CollectiveResult> {
    return await this.collective("scatter", options, (group) => checkScatter(group, send, recv, options));
  }

  /** Resolves on no member before every one of them has called it. */
  async barrier(options: OpOptions = {}): Promise<CollectiveResult> {
    return await this.collective("barrier", options, () => checkBarrier(options));
  }

  /**
   * Sends `data` to the peer `to`, which calls `recv` with this peer's id, the same tag, length and dtype. Resolves
   * when that one has it. Members other than the two take no part. Several may be in
   * flight in either direction; those with the same tag are matched in the order in which each side calls them.
   *
   * ERR_PCCL_PEER_LOST may come of the loss of a third member, too: the call is then made again, while `peers` has
   * the other one. In groups of more than 16 members it is refused between members that aren't linked.
   */
  async send(data: Tensor, options: SendOptions): Promise<CollectiveResult> {
    return await this.collective("send", options, (group) => checkSend(group, data, options));
  }

  /** Receives into `data` what the peer `from` sends this one: see `send`. */
  async recv(data: Tensor, options: RecvOptions): Promise<CollectiveResult> {
    return await this.collective("recv", options, (group) => checkRecv(group, data, options));
  }
}
