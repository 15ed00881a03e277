/** Collective ops as users write them, and the checks that they pass before anything is started. */
import type { Algorithm, CollectiveCall, Quantization, ReduceOp, Transport } from "@pccl/bindings";
import { checkInteger, checkOneOf, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { OPS_PER_LIST_MAX } from "../base/limits.js";
import { CALL_OPTION_KEYS, type CallOptions } from "./call-limits.js";
import { checkQuantize, type Quantize } from "./quantization.js";
import { checkDType, checkTensor, type DType, dtypeOf, refuseOverlap, type Tensor } from "./tensor.js";

export type { Algorithm, CollectiveCall, ReduceOp, Transport };

export interface CollectiveResult {
  /** Peers that took part: of the group, or 2 for send and recv. */
  readonly worldSize: number;
  /** The view that it was computed in. */
  readonly epoch: number;
  /** Bytes of tensor data, with their frames' headers, that this peer sent and received for the op. */
  readonly txBytes: number;
  readonly rxBytes: number;
  /** From the call to its end on this peer. */
  readonly seconds: number;
  /** How the group went about it. */
  readonly algorithm: Algorithm;
  /** What carried this peer's bytes: TCP, shared memory, both ("mixed"), or nothing, as when it was alone. */
  readonly transport: Transport;
}

export interface OpOptions extends CallOptions {
  /**
   * Names the op among concurrent ones; 0 to 2^64-1, the same on every peer. Default 0. Peers match their calls with
   * the same tag in the order in which each makes them, whatever their kind; one of these may be in flight at a time.
   * Sends and receives are matched by tag, sender and receiver, apart from the group's ops, also in the order in which
   * they are made, and several may be in flight.
   */
  readonly tag?: bigint | number | undefined;
}

export interface MoveOptions extends OpOptions {
  /** Default: what the array's type says. "f16" and "bf16" are for a Uint16Array that holds their bits. */
  readonly dtype?: DType | undefined;
}

export interface ReduceOptions extends MoveOptions {
  /** Default "sum". */
  readonly op?: ReduceOp | undefined;
}

export interface AllReduceOptions extends ReduceOptions {
  /**
   * Sends the elements, of a Float32Array, in fewer bytes: a format, or one with its options, the same on every peer.
   * Not for `prod`, and in groups of up to 16. docs/quantization.md says how far results are off.
   */
  readonly quantize?: Quantize | undefined;
}

export interface RootOptions extends MoveOptions {
  /** Peer id of the member that the data comes from, or goes to; the same on every peer. */
  readonly root: number;
}

export interface AllToAllOptions extends MoveOptions {
  /**
   * Elements for each member and from each member, in rank order; both or none, none for equal blocks. What one
   * member sends to another is what that one receives from it.
   */
  readonly sendCounts?: readonly number[] | undefined;
  readonly recvCounts?: readonly number[] | undefined;
}

export interface SendOptions extends MoveOptions {
  /** Peer id of the receiver, another member of the group. */
  readonly to: number;
}

export interface RecvOptions extends MoveOptions {
  /** Peer id of the sender, another member of the group. */
  readonly from: number;
}

/** What the shape of a call depends on: who is in the group, in rank order, and which of them this peer is. */
export interface GroupView {
  readonly peerId: number;
  readonly peers: readonly number[];
}

export type AllReduceEngineCall = CollectiveCall & { kind: "all-reduce" };

const REDUCE_OPS = ["sum", "avg", "max", "min", "prod"] as const;
const TAG_MAX = 2n ** 64n - 1n;
const OP_KEYS = ["tag", ...CALL_OPTION_KEYS] as const;
const MOVE_KEYS = ["dtype", ...OP_KEYS] as const;
const REDUCE_KEYS = ["op", "quantize", ...MOVE_KEYS] as const;

/** A kind as the method that makes such a call is named. */
export function callName(kind: CollectiveCall["kind"]): string {
  return kind.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

export function checkAllReduce(
  send: unknown,
  recv: unknown,
  options: AllReduceOptions = {},
  call = "allReduce",
): AllReduceEngineCall {
  checkOptions(call, options, REDUCE_KEYS);
  const source = checkTensor(call, "send", send, 1);
  const target = recv === undefined ? source : checkTensor(call, "recv", recv, 1);
  checkSame(call, source, target, 1, 1);
  return { kind: "all-reduce", send: source, recv: target, ...reduceOf(call, source, options) };
}

export function checkReduceScatter(
  { peers }: GroupView,
  send: unknown,
  recv: unknown,
  options: AllReduceOptions,
): CollectiveCall {
  const call = "reduceScatter";
  checkOptions(call, options, REDUCE_KEYS);
  const source = checkTensor(call, "send", send, 1);
  const target = checkTensor(call, "recv", recv, 1);
  checkSame(call, source, target, 1, peers.length);
  refuseOverlap(call, ["send", source], ["recv", target]);
  return { kind: "reduce-scatter", send: source, recv: target, ...reduceOf(call, source, options) };
}

export function checkAllGather(
  group: GroupView,
  send: unknown,
  recv: unknown,
  options: MoveOptions,
): CollectiveCall {
  const call = "allGather";
  checkOptions(call, options, MOVE_KEYS);
  const source = checkTensor(call, "send", send, 1);
  const target = checkTensor(call, "recv", recv, 1);
  checkSame(call, source, target, group.peers.length, 1);
  if (!isOwnBlock(group, source, target)) refuseOverlap(call, ["send", source], ["recv", target]);
  return { kind: "all-gather", send: source, recv: target, ...moveOf(call, source, options) };
}

export function checkBroadcast(group: GroupView, data: unknown, options: RootOptions): CollectiveCall {
  const call = "broadcast";
  checkOptions(call, options, ["root", ...MOVE_KEYS]);
  const tensor = checkTensor(call, "data", data, 1);
  const root = checkMember(call, "root", options?.root, group.peers);
  return { kind: "broadcast", data: tensor, root, ...moveOf(call, tensor, options) };
}

export function checkAllToAll(
  { peerId, peers }: GroupView,
  send: unknown,
  recv: unknown,
  options: AllToAllOptions,
): CollectiveCall {
  const call = "allToAll";
  checkOptions(call, options, ["sendCounts", "recvCounts", ...MOVE_KEYS]);
  const { sendCounts, recvCounts } = options;
  const move = (source: Tensor, target: Tensor): CollectiveCall & { kind: "all-to-all" } => {
    refuseOverlap(call, ["send", source], ["recv", target]);
    return { kind: "all-to-all", send: source, recv: target, ...moveOf(call, source, options) };
  };
  if (sendCounts === undefined && recvCounts === undefined) {
    const source = checkTensor(call, "send", send, 1);
    const target = checkTensor(call, "recv", recv, 1);
    checkSame(call, source, target, 1, 1);
    if (source.length % peers.length !== 0) {
      const blocks = `${source.length} elements can't be cut into ${peers.length} equal blocks, one per member`;
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${blocks}.`);
    }
    return move(source, target);
  }
  const source = checkTensor(call, "send", send, 0);
  const target = checkTensor(call, "recv", recv, 0);
  checkSameType(call, source, target);
  const counts = {
    sendCounts: checkCounts(call, "sendCounts", sendCounts, "send", source.length, peers.length),
    recvCounts: checkCounts(call, "recvCounts", recvCounts, "recv", target.length, peers.length),
  };
  const rank = peers.indexOf(peerId);
  const [own, ownBack] = [counts.sendCounts[rank], counts.recvCounts[rank]];
  if (own !== ownBack) {
    const counted = `sendCounts and recvCounts of this peer itself (rank ${rank}) differ: ${own} and ${ownBack}`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${counted}.`);
  }
  return { ...move(source, target), ...counts };
}

export function checkGather(
  group: GroupView,
  send: unknown,
  recv: unknown,
  options: RootOptions,
): CollectiveCall {
  const call = "gather";
  checkOptions(call, options, ["root", ...MOVE_KEYS]);
  const root = checkMember(call, "root", options?.root, group.peers);
  const source = checkTensor(call, "send", send, 1);
  const move = moveOf(call, source, options);
  if (!isForRoot(call, "recv", recv, root, group)) return { kind: "gather", send: source, root, ...move };
  const target = checkTensor(call, "recv", recv, 1);
  checkSame(call, source, target, group.peers.length, 1);
  refuseOverlap(call, ["send", source], ["recv", target]);
  return { kind: "gather", send: source, recv: target, root, ...move };
}

export function checkScatter(
  group: GroupView,
  send: unknown,
  recv: unknown,
  options: RootOptions,
): CollectiveCall {
  const call = "scatter";
  checkOptions(call, options, ["root", ...MOVE_KEYS]);
  const root = checkMember(call, "root", options?.root, group.peers);
  const target = checkTensor(call, "recv", recv, 1);
  const move = moveOf(call, target, options);
  if (!isForRoot(call, "send", send, root, group)) return { kind: "scatter", recv: target, root, ...move };
  const source = checkTensor(call, "send", send, 1);
  checkSame(call, source, target, 1, group.peers.length);
  refuseOverlap(call, ["send", source], ["recv", target]);
  return { kind: "scatter", send: source, recv: target, root, ...move };
}

export function checkBarrier(options: OpOptions): CollectiveCall {
  checkOptions("barrier", options, OP_KEYS);
  return { kind: "barrier", tag: checkTag("barrier", options.tag) };
}

export function checkSend(group: GroupView, data: unknown, options: SendOptions): CollectiveCall {
  checkOptions("send", options, ["to", ...MOVE_KEYS]);
  const tensor = checkTensor("send", "data", data, 1);
  const to = checkOther("send", "to", options?.to, group);
  return { kind: "send", data: tensor, to, ...moveOf("send", tensor, options) };
}

export function checkRecv(group: GroupView, data: unknown, options: RecvOptions): CollectiveCall {
  checkOptions("recv", options, ["from", ...MOVE_KEYS]);
  const tensor = checkTensor("recv", "data", data, 1);
  const from = checkOther("recv", "from", options?.from, group);
  return { kind: "recv", data: tensor, from, ...moveOf("recv", tensor, options) };
}

export interface AllReduceCall extends Pick<AllReduceOptions, "op" | "dtype" | "quantize"> {
  readonly send: Tensor;
  /** Default: `send`, in place. */
  readonly recv?: Tensor | undefined;
  /** Names the op among concurrent ones; 0 to 2^64-1, the same on every peer. Default: the index in the list. */
  readonly tag?: bigint | number | undefined;
}

/** All of a list, whose tags must differ, since any of them may run at the same time. */
export function checkReduceList(call: string, calls: readonly AllReduceCall[]): AllReduceEngineCall[] {
  if (!Array.isArray(calls)) {
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: calls must be an array, got ${describe(calls)}.`);
  }
  checkInteger(call, "the number of calls", calls.length, 0, OPS_PER_LIST_MAX);
  const tags = new Set<bigint>();
  return Array.from(calls as readonly (AllReduceCall | undefined)[], (entry, index) => {
    const name = `${call}: calls[${index}]`;
    if (entry === undefined) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${name} is undefined; it must be { send, … }.`);
    }
    checkOptions(name, entry, ["send", "recv", "op", "dtype", "quantize", "tag"]);
    const { send, recv, op, dtype, quantize, tag } = entry;
    const checked = checkAllReduce(send, recv, { op, dtype, quantize, tag: tag ?? index }, name);
    if (tags.has(checked.tag)) {
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${name}: tag ${checked.tag} is there twice.`);
    }
    tags.add(checked.tag);
    return checked;
  });
}

function moveOf(call: string, tensor: Tensor, { dtype, tag }: MoveOptions): { dtype: DType; tag: bigint } {
  return { dtype: checkDType(call, tensor, dtype), tag: checkTag(call, tag) };
}

function reduceOf(
  call: string,
  tensor: Tensor,
  options: AllReduceOptions,
): { op: ReduceOp; dtype: DType; tag: bigint; quantize?: Quantization } {
  const op = checkOneOf(call, "op", options.op ?? "sum", REDUCE_OPS);
  const move = moveOf(call, tensor, options);
  if (options.quantize === undefined) return { op, ...move };
  const quantize = checkQuantize(call, "quantize", options.quantize);
  const refusal =
    move.dtype !== "f32"
      ? `only f32 can be quantized, not ${move.dtype}`
      : op === "prod"
        ? "products can't be quantized, since their errors multiply too"
        : undefined;
  if (refusal !== undefined) throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${refusal}.`);
  return { op, ...move, quantize };
}

function checkTag(call: string, tag: unknown = 0): bigint {
  const value = typeof tag === "number" && Number.isSafeInteger(tag) ? BigInt(tag) : tag;
  if (typeof value !== "bigint" || value < 0n || value > TAG_MAX) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      `${call}: tag must be an integer from 0 to 2^64-1, got ${describe(tag)}.`,
    );
  }
  return value;
}

function described({ constructor, length }: Tensor): string {
  return `${constructor.name} of ${length}`;
}

/** The same type, and `send` as many times the length of a block as it has blocks, `recv` likewise. */
function checkSame(call: string, send: Tensor, recv: Tensor, recvBlocks: number, sendBlocks: number): void {
  if (dtypeOf(send) === dtypeOf(recv) && send.length * recvBlocks === recv.length * sendBlocks) return;
  const [less, more] = sendBlocks > recvBlocks ? ["recv", "send"] : ["send", "recv"];
  const blocks = Math.max(sendBlocks, recvBlocks);
  const rule =
    blocks === 1 || dtypeOf(send) !== dtypeOf(recv)
      ? "must have the same type and length"
      : `don't fit: with ${blocks} members in the group ${more} must have ${blocks} times the length of ${less}`;
  throw pcclError(
    "ERR_PCCL_INVALID_ARGUMENT",
    `${call}: send (${described(send)}) and recv (${described(recv)}) ${rule}.`,
  );
}

function checkSameType(call: string, send: Tensor, recv: Tensor): void {
  if (dtypeOf(send) === dtypeOf(recv)) return;
  throw pcclError(
    "ERR_PCCL_INVALID_ARGUMENT",
    `${call}: send (${described(send)}) and recv (${described(recv)}) must have the same type.`,
  );
}

/** Whether `send` lies where its block of `recv` does. */
function isOwnBlock({ peerId, peers }: GroupView, send: Tensor, recv: Tensor): boolean {
  return (
    send.buffer === recv.buffer &&
    send.byteOffset === recv.byteOffset + peers.indexOf(peerId) * send.byteLength
  );
}

/** Whether this peer is the root, who alone has the buffer of the whole group. */
function isForRoot(
  call: string,
  name: string,
  buffer: unknown,
  root: number,
  { peerId }: GroupView,
): boolean {
  if (peerId === root || buffer === undefined) return peerId === root;
  throw pcclError(
    "ERR_PCCL_INVALID_ARGUMENT",
    `${call}: ${name} is for the root (peer ${root}) alone; peer ${peerId} passes undefined.`,
  );
}

function checkMember(call: string, name: string, peerId: unknown, peers: readonly number[]): number {
  if (typeof peerId === "number" && peers.includes(peerId)) return peerId;
  throw pcclError(
    "ERR_PCCL_INVALID_ARGUMENT",
    `${call}: ${name} must be the id of a member of the group (${peers.join(", ")}), got ${describe(peerId)}.`,
  );
}

function checkOther(call: string, name: string, other: unknown, { peerId, peers }: GroupView): number {
  const member = checkMember(call, name, other, peers);
  if (member !== peerId) return member;
  throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${name} is this peer itself (${peerId}).`);
}

function checkCounts(
  call: string,
  name: string,
  counts: unknown,
  bufferName: string,
  length: number,
  members: number,
): number[] {
  if (!Array.isArray(counts) || counts.length !== members) {
    const got = Array.isArray(counts) ? `${counts.length} of them` : describe(counts);
    const rule = `must be an array with a count for each of the ${members} members, got ${got}`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${name} ${rule}.`);
  }
  const checked = Array.from(counts as readonly unknown[], (count, rank) =>
    checkInteger(call, `${name}[${rank}]`, count, 0, length),
  );
  const sum = checked.reduce((total, count) => total + count, 0);
  if (sum !== length) {
    const rule = `${name} add up to ${sum}, and ${bufferName} has ${length} elements`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${rule}.`);
  }
  return checked;
}
