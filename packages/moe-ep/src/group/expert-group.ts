/** The processes that share the experts of layers: a fixed set of a communicator's peers, with ranks of their own. */
import { type CallOptions, Communicator, connect, type ConnectOptions } from "@pccl/core";
import { checkInteger, checkOptions, describe, type PcclError, pcclError } from "@pccl/core/base";
import { readEnvironment } from "./environment.js";
import { Exchange } from "./exchange.js";

export interface GroupOptions extends CallOptions {
  /**
   * This process's rank in the group, the same in every run for the same results of training; each rank from 0 to the
   * number of members - 1 is taken by one of them. Default, for all or none: the communicator's rank.
   */
  readonly rank?: number | undefined;
}

const ANY_RANK = 0xffff_ffff;
const CALL = "ExpertGroup.connect";

/**
 * Layers are made on a group, and each of their calls is collective over it. A group is for the members that the
 * communicator had when it was connected: after a loss its calls reject with ERR_PCCL_PEER_LOST, and the survivors
 * connect a new group and make their layers again.
 */
export class ExpertGroup {
  /** From 0. */
  readonly rank: number;
  readonly size: number;
  /** For layers. */
  readonly exchange: Exchange;
  readonly #ownCommunicator: Communicator | undefined;
  #call: string | undefined;
  #layers = 0;
  #steps = 0;

  private constructor(exchange: Exchange, ownCommunicator: Communicator | undefined) {
    this.rank = exchange.rank;
    this.size = exchange.size;
    this.exchange = exchange;
    this.#ownCommunicator = ownCommunicator;
  }

  /** A group of this process alone. */
  static alone(): ExpertGroup {
    return new ExpertGroup(new Exchange(undefined, [0]), undefined);
  }

  /**
   * Makes a group of all peers of the communicator's group. Collective; ranks that don't fit together reject with
   * ERR_PCCL_INVALID_ARGUMENT on all of them. The communicator stays the caller's; the group takes tags from
   * 0x6d6f650000000000 on.
   */
  static async connect(communicator: Communicator, options: GroupOptions = {}): Promise<ExpertGroup> {
    checkOptions(CALL, options, ["rank", "signal", "timeoutMs"]);
    if (!(communicator instanceof Communicator)) {
      throw invalid(`communicator must be a Communicator, got ${describe(communicator)}`);
    }
    return new ExpertGroup(await exchangeOf(communicator, options), undefined);
  }

  /**
   * The group of the processes that `moe-ep launch` started with this one; `options` are those of connect. close()
   * leaves it. Rejects as connect does, and with ERR_PCCL_INVALID_ARGUMENT if the environment says nothing about it.
   */
  static async fromEnvironment(options: ConnectOptions = {}): Promise<ExpertGroup> {
    const call = "ExpertGroup.fromEnvironment";
    const { address, rank, size } = readEnvironment(call, process.env);
    const communicator = await connect(address, options);
    try {
      if (communicator.groupWorldSize !== size) {
        throw pcclError(
          "ERR_PCCL_INVALID_ARGUMENT",
          `${call}: WORLD_SIZE is ${size}, and the group has ${communicator.groupWorldSize} members`,
        );
      }
      return new ExpertGroup(await exchangeOf(communicator, { rank }), communicator);
    } catch (error) {
      await communicator.close();
      throw error;
    }
  }

  /** Leaves the world if the group joined it by itself, as fromEnvironment does. */
  async close(): Promise<void> {
    await this.#ownCommunicator?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Numbers a layer, alike on all ranks: they make their layers in the same order. */
  nextLayer(): number {
    return this.#layers++;
  }

  /** Numbers a step; rank 0's number names it, should ranks have counted differently. */
  nextStep(): number {
    return this.#steps++;
  }

  /** Runs a call of a layer: one at a time, since the ranks' ops are matched by their order. */
  async exclusively<T>(call: string, body: () => Promise<T>): Promise<T> {
    if (this.#call !== undefined) {
      throw pcclError(
        "ERR_PCCL_CALL_IN_PROGRESS",
        `${call}: ${this.#call} of the same expert group is in progress`,
      );
    }
    this.#call = call;
    try {
      return await body();
    } finally {
      this.#call = undefined;
    }
  }
}

async function exchangeOf(communicator: Communicator, options: GroupOptions): Promise<Exchange> {
  const size = communicator.groupWorldSize;
  const { rank, ...limits } = options;
  const plain = new Exchange(
    communicator,
    Array.from({ length: size }, (_, i) => i),
  );
  const answers = await plain.agree(
    CALL,
    4,
    () => {
      const own = rank === undefined ? ANY_RANK : checkInteger(CALL, "rank", rank, 0, size - 1);
      return new Uint8Array(new Uint32Array([own]).buffer);
    },
    limits,
  );
  const ranks = answers.map((answer) => new DataView(answer.buffer, answer.byteOffset).getUint32(0, true));
  if (ranks.every((one) => one === ANY_RANK)) return plain;
  if (new Set(ranks).size < size || ranks.includes(ANY_RANK)) {
    const list = ranks.map((one) => (one === ANY_RANK ? "none" : one)).join(", ");
    throw invalid(`each of the ${size} members must have a rank of its own, got ${list}`);
  }
  return new Exchange(communicator, ranks);
}

function invalid(message: string): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${CALL}: ${message}`);
}
