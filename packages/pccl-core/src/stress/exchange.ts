/**
 * The other collectives of a step, each made again on the survivors until it has gone through, and each checked
 * element by element: what a peer gives follows from its id, from that of the peer that it is for, from the step and
 * from the element's index.
 */
import { PeerLostError } from "../base/errors.js";
import { FULLY_LINKED_MAX } from "../base/limits.js";
import type { CollectiveResult } from "../peer/collective-call.js";
import type { Communicator } from "../peer/communicator.js";

const COUNT = 8_192;
/** Elements that have a scale in common, by default, and of one array. */
const QUANTIZED_BLOCK = 256;
const QUANTIZED_COUNT = 400_000;
/** Each peer's sends and receives are in flight at once. */
export const EXCHANGE_OPS_MAX: number = 2 * (FULLY_LINKED_MAX - 1);

export interface Exchanged {
  readonly retriedOps: number;
  /** The first element that isn't what it has to be, in words. */
  readonly wrong: string | undefined;
}

type Element = (rank: number, index: number) => number;

/** Integers whose sums over the ids of any run stay below 2^24, and thus are exact. */
function given(step: number, from: number, to: number, index: number): number {
  return ((step * 13 + from * 31 + to * 57 + index * 7) % 1_009) - 504;
}

export class Exchange {
  readonly #comm: Communicator;
  readonly #step: number;
  #retriedOps = 0;
  #wrong: string | undefined;

  constructor(comm: Communicator, step: number) {
    this.#comm = comm;
    this.#step = step;
  }

  async run(): Promise<Exchanged> {
    await this.#reduceScatter();
    await this.#allGather();
    await this.#broadcast();
    const barrier = await this.#again(() => this.#comm.barrier());
    // All members know how many they were there, and by now can only have become fewer.
    if (barrier !== undefined && barrier.worldSize <= FULLY_LINKED_MAX) {
      await this.#quantized();
      await this.#allToAll();
      await this.#scatterAndGather();
      await this.#sendAndRecv();
    }
    return { retriedOps: this.#retriedOps, wrong: this.#wrong };
  }

  async #reduceScatter(): Promise<void> {
    await this.#again(async () => {
      const { peerId, peers, rank } = this.#comm;
      const send = this.#filled(peers.length * COUNT, (index) => this.#given(peerId, 0, index));
      const recv = new Float32Array(COUNT);
      const result = await this.#comm.reduceScatter(send, recv);
      const sum = (index: number): number =>
        peers.reduce((total, id) => total + this.#given(id, 0, rank * COUNT + index), 0);
      this.#check("reduceScatter", recv, (_, index) => sum(index));
      return result;
    });
  }

  /** In place. */
  async #allGather(): Promise<void> {
    await this.#again(async () => {
      const { peerId, peers, rank } = this.#comm;
      const recv = new Float32Array(peers.length * COUNT);
      const own = recv.subarray(rank * COUNT, (rank + 1) * COUNT);
      own.set(this.#filled(COUNT, (index) => this.#given(peerId, 1, index)));
      const result = await this.#comm.allGather(own, recv);
      this.#check("allGather", recv, (from, index) => this.#given(peers[from] as number, 1, index));
      return result;
    });
  }

  async #broadcast(): Promise<void> {
    await this.#again(async () => {
      const root = this.#root();
      const data = this.#filled(COUNT, (index) =>
        root === this.#comm.peerId ? this.#given(root, 2, index) : -1,
      );
      const result = await this.#comm.broadcast(data, { root });
      this.#check("broadcast", data, (_, index) => this.#given(root, 2, index));
      return result;
    });
  }

  /**
   * In place. Blocks of equal elements come through quantization as they are; the first two tell of whom the sum is,
   * as it may be of another view than the one that it was called in.
   */
  async #quantized(): Promise<void> {
    await this.#again(async () => {
      const { peerId } = this.#comm;
      const element = (count: number, ids: number, index: number): number => {
        const block = Math.floor(index / QUANTIZED_BLOCK);
        if (block < 2) return block === 0 ? count : ids;
        return (block % 61) * ids + ((block + this.#step) % 211) * count;
      };
      const data = this.#filled(QUANTIZED_COUNT, (index) => element(1, peerId, index));
      const result = await this.#comm.allReduce(data, undefined, { quantize: "u8" });
      const ids = data[QUANTIZED_BLOCK] as number;
      const sum: Element = (_, index) => element(result.worldSize, ids, index);
      this.#check("quantized allReduce", data, sum, QUANTIZED_COUNT);
      return result;
    });
  }

  /** With blocks of different lengths, some of them empty. */
  async #allToAll(): Promise<void> {
    await this.#again(async () => {
      const { peerId, peers } = this.#comm;
      const count = (from: number, to: number): number =>
        ((from * 5 + to * 3 + this.#step) % 4) * (COUNT / 4);
      const sendCounts = peers.map((to) => count(peerId, to));
      const recvCounts = peers.map((from) => count(from, peerId));
      const send = concatenated(sendCounts, (to, index) => this.#given(peerId, peers[to] as number, index));
      const want = concatenated(recvCounts, (from, index) =>
        this.#given(peers[from] as number, peerId, index),
      );
      const recv = new Float32Array(want.length);
      const result = await this.#comm.allToAll(send, recv, { sendCounts, recvCounts });
      this.#check("allToAll", recv, (_, index) => want[index] as number, want.length);
      return result;
    });
  }

  async #scatterAndGather(): Promise<void> {
    await this.#again(async () => {
      const { peerId, peers } = this.#comm;
      const root = this.#root();
      const counts = peers.map(() => COUNT);
      const send =
        root === peerId
          ? concatenated(counts, (to, index) => this.#given(root, peers[to] as number, index))
          : undefined;
      const recv = new Float32Array(COUNT);
      const result = await this.#comm.scatter(send, recv, { root });
      this.#check("scatter", recv, (_, index) => this.#given(root, peerId, index));
      return result;
    });
    await this.#again(async () => {
      const { peerId, peers } = this.#comm;
      const root = this.#root();
      const send = this.#filled(COUNT, (index) => this.#given(peerId, root, index));
      const recv = root === peerId ? new Float32Array(peers.length * COUNT) : undefined;
      const result = await this.#comm.gather(send, recv, { root });
      if (recv !== undefined) {
        this.#check("gather", recv, (from, index) => this.#given(peers[from] as number, root, index));
      }
      return result;
    });
  }

  /** Between each two peers, both ways, all at once. What two do is theirs alone to make again. */
  async #sendAndRecv(): Promise<void> {
    const { peerId, peers } = this.#comm;
    const others = peers.filter((id) => id !== peerId);
    await Promise.all(
      others.flatMap((other) => {
        const isThere = (): boolean => this.#comm.peers.includes(other);
        const outgoing = this.#filled(COUNT, (index) => this.#given(peerId, other, index));
        const incoming = new Float32Array(COUNT);
        const recv = async (): Promise<CollectiveResult> => {
          const result = await this.#comm.recv(incoming, { from: other });
          this.#check("recv", incoming, (_, index) => this.#given(other, peerId, index));
          return result;
        };
        return [
          this.#again(() => this.#comm.send(outgoing, { to: other }), isThere),
          this.#again(recv, isThere),
        ];
      }),
    );
  }

  async #again(
    op: () => Promise<CollectiveResult>,
    isWorthIt: () => boolean = () => true,
  ): Promise<CollectiveResult | undefined> {
    while (isWorthIt()) {
      try {
        return await op();
      } catch (error) {
        if (!(error instanceof PeerLostError)) throw error;
        this.#retriedOps++;
      }
    }
    return undefined;
  }

  /** The same on all peers whose views differ by losses only. */
  #root(): number {
    return Math.min(...this.#comm.peers);
  }

  #given(from: number, to: number, index: number): number {
    return given(this.#step, from, to, index);
  }

  #filled(length: number, element: (index: number) => number): Float32Array {
    return Float32Array.from({ length }, (_, index) => element(index));
  }

  #check(call: string, got: Float32Array, want: Element, blockLength: number = COUNT): void {
    const isWrong = (value: number, index: number): boolean =>
      value !== want(Math.floor(index / blockLength), index % blockLength);
    const at = got.findIndex(isWrong);
    if (at < 0 || this.#wrong !== undefined) return;
    this.#wrong = `${call} among peers ${this.#comm.peers.join()}: element ${at} is ${got[at]}`;
  }
}

function concatenated(counts: readonly number[], element: Element): Float32Array {
  return Float32Array.from(
    counts.flatMap((count, rank) => Array.from({ length: count }, (_, index) => element(rank, index))),
  );
}
