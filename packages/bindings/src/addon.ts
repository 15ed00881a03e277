/**
 * The raw surface of the native addon, one to one. It holds no policy: it validates nothing that native code
 * does not validate itself, and it makes no promises out of events. @pccl/core builds the friendly API on it.
 */

/** Element types that a tensor can have on the wire: unsigned and signed integers, and floating point. */
export type DType =
  | "u8"
  | "i8"
  | "u16"
  | "i16"
  | "u32"
  | "i32"
  | "u64"
  | "i64"
  | "f16"
  | "bf16"
  | "f32"
  | "f64";

/** How two contributions are combined, element by element. `avg` is a sum divided by the ring's size. */
export type ReduceOp = "sum" | "avg" | "max" | "min" | "prod";

/**
 * How f32 elements travel in fewer bytes. u8, i8 and i4: evenly spaced values, per block from its least to its
 * greatest one ("min-max"), or with 0 among them ("zero-point"). fp8: e4m3 times a scale per block. bf16, f16: casts.
 */
export interface Quantization {
  readonly format: "u8" | "i8" | "i4" | "fp8" | "bf16" | "f16";
  /** "min-max" for fp8, bf16 and f16. */
  readonly scheme: "min-max" | "zero-point";
  /** Elements that share a scale: a power of two from 32 to 4096; 256 for bf16 and f16. */
  readonly blockSize: number;
  readonly rounding: "nearest" | "stochastic";
  /** 0 to 2^64 - 1. Of stochastic rounding. */
  readonly seed: bigint;
  /** NaN and infinities in the input: ERR_PCCL_NON_FINITE_INPUT, or they come out where f32 would give them. */
  readonly nonFinite: "error" | "pass";
}

/** Each has its own DType; f16 and bf16 lie in a Uint16Array, as their bits. */
export type Tensor =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/**
 * One collective op of the group, or of two members of it. Its buffers stay pinned until the op event, and can't be
 * transferred to another thread from then on, ever: Node can't take that mark back.
 *
 * `tag` names it among concurrent ops; members match their calls by tag and by order within the tag, those of send and
 * recv within tag, sender and receiver. `root`, `to` and `from` are peer ids. `dtype`: what the elements are, by
 * default what the arrays' type says; a Uint16Array can also hold f16 or bf16. Counts are in elements; N is the
 * group's size, and blocks are in rank order.
 */
export type CollectiveCall =
  /** Same length; the same array for both means in place. `quantize`: of f32, but for "prod", in groups of up to 16. */
  | {
      readonly kind: "all-reduce";
      readonly send: Tensor;
      readonly recv: Tensor;
      readonly op: ReduceOp;
      readonly quantize?: Quantization | undefined;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  /** `send` has N times the length of `recv`, and doesn't overlap it. */
  | {
      readonly kind: "reduce-scatter";
      readonly send: Tensor;
      readonly recv: Tensor;
      readonly op: ReduceOp;
      readonly quantize?: Quantization | undefined;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  /** `recv` has N times the length of `send`; in place when `send` is the own block of `recv`. */
  | {
      readonly kind: "all-gather";
      readonly send: Tensor;
      readonly recv: Tensor;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  /** The root's stays, the others' are overwritten. */
  | {
      readonly kind: "broadcast";
      readonly data: Tensor;
      readonly root: number;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  /** Counts by rank, both or none; none: N equal blocks. Blocks lie one after the other. */
  | {
      readonly kind: "all-to-all";
      readonly send: Tensor;
      readonly recv: Tensor;
      readonly sendCounts?: readonly number[];
      readonly recvCounts?: readonly number[];
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  /** `recv` at the root only, N times the length of `send`. */
  | {
      readonly kind: "gather";
      readonly send: Tensor;
      readonly recv?: Tensor;
      readonly root: number;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  /** `send` at the root only, N times the length of `recv`. */
  | {
      readonly kind: "scatter";
      readonly send?: Tensor;
      readonly recv: Tensor;
      readonly root: number;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  | { readonly kind: "barrier"; readonly tag: bigint }
  | {
      readonly kind: "send";
      readonly data: Tensor;
      readonly to: number;
      readonly dtype?: DType;
      readonly tag: bigint;
    }
  | {
      readonly kind: "recv";
      readonly data: Tensor;
      readonly from: number;
      readonly dtype?: DType;
      readonly tag: bigint;
    };

export type Algorithm =
  | "ring"
  | "one-shot"
  | "chain"
  | "pairwise"
  | "direct"
  | "hierarchical"
  | "quantized"
  | "alone";

/** What carried an op's bytes; "none" when none went anywhere. */
export type Transport = "tcp" | "shm" | "mixed" | "none";

export interface RingMember {
  readonly peerId: number;
  /** Empty, with port 0, for members that this peer is neither linked with nor a relay for. */
  readonly host: string;
  readonly port: number;
  /** The member that forwards to this one, when it can't be reached directly; host and port are that one's then. */
  readonly via?: number;
}

/** One group's part of a view: everything native code needs to move bytes in that epoch. */
export interface RingView {
  /** Of the ring: it rises when this ring changes, and names its ops and links. */
  readonly epoch: number;
  /** Of the world, as users see it: what InstalledView.epoch says. */
  readonly viewEpoch: number;
  /** This process's own id. */
  readonly peerId: number;
  /** 16 bytes that a dialling peer must present: strangers on the data port are turned away. */
  readonly key: Uint8Array;
  /** The group's members in ring order; rank = index. Contains this peer. */
  readonly ring: readonly RingMember[];
  /** Admitted peers over all groups. Native code only stores it, so that readers get one coherent snapshot. */
  readonly worldSize: number;
  /** A link on which nothing came for this long is broken; 500 to 600,000. */
  readonly silenceMs: number;
  /** Pairs of members that can't reach each other, for which this peer forwards bytes. */
  readonly relays: readonly { readonly a: number; readonly b: number }[];
  /** Parallel to the ring: members with the same number are on the same host; empty: each on one of its own. */
  readonly hosts: readonly number[];
}

/** What a process can read without waiting about the view that is installed. */
export interface InstalledView {
  /** RingView.viewEpoch. */
  readonly epoch: number;
  /** RingView.epoch. */
  readonly ringEpoch: number;
  readonly peerId: number;
  readonly rank: number;
  readonly groupSize: number;
  readonly worldSize: number;
  /** The group's peer ids in rank order. */
  readonly members: readonly number[];
}

/**
 * How far an op of the frozen epoch got on this peer.
 * not-done: this peer lacks part of the result, and being frozen it will never say otherwise.
 * done: this peer holds its full result, but doesn't know that every member does.
 * committed / aborted: settled, and the caller has been told (or is about to be).
 */
export type OpState = "not-done" | "done" | "committed" | "aborted";

/** Names an op of an epoch. */
export interface OpName {
  /** 64-bit tag. */
  readonly tag: bigint;
  /** Counts the ops with this tag in this epoch, from 0; those between two members by tag, sender and receiver. */
  readonly seq: number;
  /** Peer ids of the sender and the receiver of a send and its recv; both or none. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
}

export interface OpReport extends OpName {
  readonly state: OpState;
}

export interface OpVerdict extends OpName {
  readonly commit: boolean;
}

export interface NativeError {
  /** One of the ERR_PCCL_* codes of @pccl/core's catalogue. */
  readonly code: string;
  /** A sentence that names the operation, the peer and the phase. */
  readonly message: string;
  readonly peerId?: number;
  /** Of an op: the view in which it failed, as InstalledView.epoch. */
  readonly epoch?: number;
}

/** Delivered to the environment that started the op. */
export type OpEvent =
  | {
      readonly type: "op-done";
      readonly id: number;
      /** Peers whose contributions are in the result. */
      readonly worldSize: number;
      /** Of a collective op: the view in which it ended, as InstalledView.epoch. */
      readonly epoch: number;
      readonly txBytes: number;
      readonly rxBytes: number;
      readonly seconds: number;
      /** Of a collective op. */
      readonly algorithm: Algorithm;
      readonly transport: Transport;
      /** Of a fetch: who gave anything. */
      readonly sources: readonly number[];
    }
  | { readonly type: "op-failed"; readonly id: number; readonly error: NativeError };

/** Delivered to the control attachment only. Epochs are those of the ring. */
export type ControlEvent =
  | {
      readonly type: "prepared";
      readonly epoch: number;
      /** Members to which no link could be made, with the reason for each; empty on success. */
      readonly failures: readonly { readonly peerId: number; readonly reason: string }[];
    }
  | {
      /** No connection of the link could be restored within silenceMs; ops that need it stay where they are. */
      readonly type: "link-lost";
      readonly epoch: number;
      readonly peerId: number;
      readonly reason: string;
    }
  | ({
      /** A second after this peer has, these members haven't called this op yet. Once per op. */
      readonly type: "stalled";
      readonly epoch: number;
      readonly missing: readonly number[];
    } & OpName)
  | ProbeEvent;

/** The end of a probe: what the path carries, or why that can't be told. */
export type ProbeEvent = { readonly type: "probed"; readonly id: number } & (
  | {
      readonly bytesPerSecond: number;
      /** Before anything was streamed. */
      readonly rttSeconds: number;
      /** Streamed to find out, and the time that it took. */
      readonly bytes: number;
      readonly seconds: number;
    }
  | { readonly reason: string }
);

export type EngineEvent = OpEvent | ControlEvent;

/** One named tensor that other peers may fetch by name and hash while it is exported. */
export interface StateTensor {
  readonly name: string;
  readonly data: Tensor;
}

export interface HashedTensor {
  readonly name: string;
  /** Root of the tensor's hash tree (docs/protocol.md), 32 hex digits, canonical (big-endian) form. */
  readonly hash: string;
}

export interface FetchCall {
  readonly exportId: number;
  /** Tensors of the export, by index, and the roots of the hash trees that they are to have. */
  readonly targets: readonly { readonly tensor: number; readonly hash: string }[];
  /** Members that export what is wanted: all of it, or what they have fetched so far themselves. */
  readonly sources: readonly (RingMember & { readonly complete: boolean })[];
  /** Of `shares` members that fetch the same at once, this one is number `share`. */
  readonly share: number;
  readonly shares: number;
}

/**
 * One environment's handle on an engine: a listening port, the links to the neighbours, and the thread that
 * serves them. Callbacks run on the environment's own thread, several events in one call. Ops are started by the
 * creating attachment, whose environment owns their buffers; views are installed by the control attachment.
 * Every method throws an Error with a `code` from the catalogue on bad input, before anything changes.
 */
export interface Engine {
  /** Process-wide number, for attachEngine in another thread of this process. */
  readonly id: number;
  /** The port that the data listener is bound to. */
  readonly port: number;
  /** Equal in engines that can share memory; empty in one that shares none, as `transport` "tcp" asks for. */
  readonly hostId: string;

  /** The installed view, or undefined before the first install. */
  view(): InstalledView | undefined;

  /**
   * Starts a collective op; the result arrives as an op event with the returned id. A short one that is alone in flight
   * is carried out in this call, if it takes no more than some 50 µs, and its event comes in the next turn. It starts in the installed epoch.
   * Between prepare and install all-reduce, broadcast, barrier, send and recv wait for the next one; the others, whose
   * buffers have the shape that a ring asks for, fail with ERR_PCCL_PEER_LOST when it is replaced. They were shaped for
   * `ringEpoch`, or for the installed one, and are refused with ERR_PCCL_PEER_LOST if that is over.
   */
  start(call: CollectiveCall, ringEpoch?: number): number;

  /**
   * Withdraws an op that this peer hasn't finished: every member of it gets ERR_PCCL_CANCELLED and the buffers
   * are as before the call. Too late (done or settled): returns false and the op ends as it would have.
   */
  cancel(id: number): boolean;

  /**
   * Pins tensors, hashes them on background threads, and lets other peers fetch them until commitState or releaseState.
   * The op-done event comes when hashing has ended; then hashes() gives the result.
   */
  exportState(tensors: readonly StateTensor[]): number;
  hashes(exportId: number): readonly HashedTensor[];
  /** Ends an export without a change, and its fetch. Returns the payload bytes that were served from it. */
  releaseState(exportId: number): number;

  /**
   * Fetches what differs from the export into memory of the engine's own, verified, from all sources at once; op-done
   * carries rxBytes and sources. The tensors don't change. What came of a fetch that failed is kept for the next one.
   */
  fetchState(call: FetchCall): number;

  /** Ends an export and writes what was fetched to its tensors; op-done carries the bytes served as txBytes. */
  commitState(exportId: number): number;

  /** A tensor of the export that was found written to while others fetched it. */
  changedTensor(exportId: number): string | undefined;

  /**
   * Control attachment only. Freezes the installed epoch (its ops make no more progress), starts building the
   * links of `view`, and returns what this peer knows of the frozen epoch's ops. A `prepared` event follows
   * within `timeoutMs`. A second prepare replaces the first; links already up are kept.
   */
  prepare(view: RingView, timeoutMs: number): readonly OpReport[];

  /** Control attachment only. Applies verdicts to the frozen ops (no verdict: abort), then opens the prepared epoch. */
  install(epoch: number, verdicts: readonly OpVerdict[]): void;

  /** Control attachment only. The world has changed and this ring hasn't: what view() says from now on. */
  setWorld(viewEpoch: number, worldSize: number): void;

  /**
   * Control attachment only. If this op is in flight here, in the open epoch, and that member still hasn't called it,
   * aborts it on all its members with ERR_PCCL_CALL_MISMATCH, and returns true.
   */
  abortIfMissing(epoch: number, op: OpName, peerId: number): boolean;

  /**
   * Control attachment only. Measures the path to another member of the installed view ("send"), or from it
   * ("receive"), over connections of its own; a `probed` event with this id follows within five seconds or so.
   */
  probe(id: number, target: RingMember, direction: "send" | "receive"): void;

  /**
   * The creating attachment: fails ops in flight with ERR_PCCL_CLOSED, restores their buffers, closes links and
   * listener and ends the thread. A further attachment: only detaches. Idempotent.
   */
  close(): void;
}

export interface EngineOptions {
  /** An address to bind ("127.0.0.1", "0.0.0.0", "::"). */
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
  /**
   * TCP connections that make up a link, 1 to 64; of two peers' numbers both use the larger one. Undefined: as many as
   * the link's throughput asks for.
   */
  readonly connectionsPerPeer?: number | undefined;
  /** Of the TCP connections, by the kernel's name; undefined: the system's. */
  readonly congestionControl?: string | undefined;
  /** Collective ops in flight at once, 1 to 256, default 16. */
  readonly opsInFlightMax?: number | undefined;
  /**
   * What links to members on the same host are made of. "auto" (default): shared memory, and TCP where that fails.
   * "shm": shared memory, or the link fails. "tcp": TCP.
   */
  readonly transport?: "auto" | "shm" | "tcp" | undefined;
}

/** What the planners of expert parallelism are asked. Arrays hold numbers per rank or per expert; counts is row-major. */
export interface PlanRequest {
  readonly planner: "ep" | "lla" | "auto" | "eplb";
  readonly ranks: number;
  readonly experts: number;
  /** ranks × experts: token-copies on a rank for an expert. */
  readonly counts: Float64Array;
  /** The rank that holds each expert's weights. */
  readonly owners: Float64Array;
  readonly speeds: Float64Array;
  readonly nodes: Float64Array;
  /** Experts that each rank may borrow. */
  readonly importsMax: Float64Array;
  readonly capacityFactor: number;
  readonly minChunkCopies: number;
  readonly minImbalance: number;
  readonly strictReference: boolean;
  readonly costModel: {
    readonly copySeconds: number;
    readonly expertSeconds: number;
    readonly transferSeconds: number;
    readonly farTransferSeconds: number;
    readonly crossCopySeconds: number;
    readonly farCrossCopySeconds: number;
    readonly lendSeconds: number;
  };
  /** Past loads of the experts; read by eplb only. */
  readonly statistics: Float64Array;
  readonly redundantExperts: number;
}

/** A plan as flat arrays. Interval i of expert e is at firstInterval[e] + i; matrices are source rank × target rank. */
export interface RawPlan {
  readonly isApplied: boolean;
  readonly loanExperts: Float64Array;
  readonly loanTargets: Float64Array;
  readonly loanCopies: Float64Array;
  readonly intervalRanks: Float64Array;
  readonly intervalStarts: Float64Array;
  readonly intervalEnds: Float64Array;
  /** experts + 1 numbers. */
  readonly firstInterval: Float64Array;
  readonly loadsBefore: Float64Array;
  readonly loadsAfter: Float64Array;
  readonly sentBefore: Float64Array;
  readonly sentAfter: Float64Array;
  readonly secondsBefore: Float64Array;
  readonly secondsAfter: Float64Array;
}

export interface RawRouterOptions {
  readonly experts: number;
  readonly slotsMax: number;
  readonly score: "softmax" | "sigmoid";
  readonly renormalize: boolean;
  readonly scale: number;
  readonly probabilityMin: number;
  readonly groups: number;
  readonly groupsKept: number;
  readonly maskedScore: number;
  /** One number per expert, or none. */
  readonly correction: Float32Array;
}

/** Slots of token t are firstSlot[t] to firstSlot[t + 1]. */
export interface RawRouting {
  readonly firstSlot: Int32Array;
  readonly experts: Int32Array;
  readonly gates: Float32Array;
}

export interface RawExpertShape {
  readonly kind: "swiglu" | "gpt-oss";
  /** Of weights, tokens and results; bf16 lies in a Uint16Array. Gradients of weights are f32. */
  readonly dtype: "f32" | "bf16";
  readonly hidden: number;
  readonly inner: number;
}

/** The tokens of one expert. Lists lie one after the other in all arrays of a call. */
export interface RawExpertTokens {
  readonly tokens: number;
  /** What packExpert made. */
  readonly weights: Uint8Array;
}

export interface RawExpertGradients extends RawExpertTokens {
  /** Of the first token, among all tokens of the expert. */
  readonly firstPosition: number;
  /** In the order and sizes of packExpert's tensors; the call adds to them. */
  readonly gradients: readonly Float32Array[];
}

/** What a step of expert parallelism is made of. Blocks of its messages lie in memory in the order of `blocks`. */
export interface RawStepRequest {
  readonly ranks: number;
  readonly experts: number;
  readonly rank: number;
  /** As PlanRequest's and RawPlan's. */
  readonly counts: Float64Array;
  readonly firstInterval: Float64Array;
  readonly intervalRanks: Float64Array;
  readonly intervalStarts: Float64Array;
  readonly intervalEnds: Float64Array;
  /** The ranks whose blocks come first, second, …. */
  readonly blocks: Float64Array;
  /** Whether there will be a backward pass: headers carry the gates then. */
  readonly training: boolean;
  /** This rank's routing: as RawRouting. */
  readonly firstSlot: Int32Array;
  readonly slotExperts: Int32Array;
  readonly gates: Float32Array;
}

/** A step in native memory: which row is which. */
export type RawStep = object & { readonly __brand: "step" };

/** Counts are by block. */
export interface RawOutgoing {
  readonly step: RawStep;
  readonly rowCounts: readonly number[];
  readonly copyCounts: readonly number[];
  readonly headers: Int32Array;
  readonly headerCounts: readonly number[];
}

export interface RawIncoming {
  readonly rowCounts: readonly number[];
  readonly copyCounts: readonly number[];
  /** What this rank computes: consecutive positions of an expert, by expert and position. */
  readonly lists: readonly { readonly expert: number; readonly copies: number }[];
}

/** One of RawIncoming's lists, by index. */
export interface RawList {
  readonly list: number;
  readonly weights: Uint8Array;
}

export interface RawListGradients extends RawList {
  /** As RawExpertGradients'. */
  readonly gradients: readonly Float32Array[];
}

export type ElementwiseKernel =
  | "difference"
  | "copy"
  | "scale"
  | "addScaled"
  | "sgd"
  | "nesterov"
  | "adam"
  | "mix"
  | "carry";

export interface Addon {
  /** Raised when this surface changes; the loader refuses another number. */
  readonly abiVersion: number;
  /** Every code that native code can give an error; a test compares them with the catalogue. */
  readonly errorCodes: readonly string[];
  createEngine(options: EngineOptions, onEvents: (events: EngineEvent[]) => void): Engine;
  /** Attaches this environment to an open engine of this process as its control side; there is one at a time. */
  attachEngine(id: number, onEvents: (events: EngineEvent[]) => void): Engine;

  /** A zeroed buffer of whole pages, huge ones where the system has them. */
  allocate(bytes: number): ArrayBuffer;

  /** The same in a file without a name, that processes of this host can map: the number of the file in this one. */
  allocateShared(bytes: number): { readonly buffer: ArrayBuffer; readonly file: number };
  /**
   * Such memory of another process. It must not be written to: that would end the process. undefined if there is none
   * of this size that this process may read.
   */
  mapShared(process: number, file: number, bytes: number): ArrayBuffer | undefined;

  /**
   * Runs one of the kernels of native/src/diloco/elementwise.h, which says what arrays and factors each has. Calls run
   * one after the other, in order with those of experts, on a thread of their own; their arrays stay pinned until the
   * promise is settled, and their buffers can't be transferred from then on. `sum` receives the kernel's sum.
   */
  elementwise(
    kernel: ElementwiseKernel,
    arrays: readonly Float32Array[],
    factors: readonly number[],
    sum?: Float64Array,
  ): Promise<void>;
  /** Root of the hash tree of each array's bytes (docs/protocol.md) into 16 bytes each; runs as elementwise does. */
  digest(arrays: readonly Tensor[], into: Uint8Array): Promise<void>;
  /**
   * With c = values + decay error: values becomes what is left of c after it was quantized and back, error the rest.
   * This and the next two run as elementwise does; native/src/diloco/feedback.h says what sparse bytes are.
   */
  quantizeWithFeedback(
    values: Float32Array,
    error: Float32Array,
    decay: number,
    quantization: Quantization,
  ): Promise<void>;
  /** Likewise, with the `keep` greatest elements of each chunk of 4,096; their bytes go to `into`. */
  sparsifyWithFeedback(
    values: Float32Array,
    error: Float32Array,
    decay: number,
    keep: number,
    into: Uint8Array,
  ): Promise<void>;
  /** sum += factor times what the bytes stand for. valid[0] becomes 0 if they are none that sparsify writes. */
  addSparse(
    bytes: Uint8Array,
    keep: number,
    factor: number,
    sum: Float32Array,
    valid: Uint8Array,
  ): Promise<void>;
  /** The bytes that a quantized op sends for these values, in blocks from the first one on. */
  quantize(values: Float32Array, quantization: Quantization): Uint8Array;
  /** The values of as many bytes as quantize gives for that many. */
  dequantize(bytes: Uint8Array, quantization: Quantization, into: Float32Array): void;

  /** Pure and deterministic: equal requests give equal plans on every machine. */
  planExperts(request: PlanRequest): RawPlan;
  /** x weightᵀ + bias; x is tokens × hidden, f32 or bf16, weight experts × hidden, bias experts long or empty. */
  projectRouter(
    x: Float32Array | Uint16Array,
    weight: Float32Array,
    bias: Float32Array,
    experts: number,
  ): Float32Array;
  projectRouterGradient(
    x: Float32Array | Uint16Array,
    weight: Float32Array,
    logitGradients: Float32Array,
    experts: number,
  ): { readonly x: Float32Array; readonly weight: Float32Array; readonly bias: Float32Array };
  /** logits is tokens × experts. */
  route(options: RawRouterOptions, logits: Float32Array): RawRouting;
  /** From the gradient by the gates, one per slot, to that by the logits. */
  routeGradient(
    options: RawRouterOptions,
    logits: Float32Array,
    routing: Pick<RawRouting, "firstSlot" | "experts">,
    gateGradients: Float32Array,
  ): Float32Array;

  /** Bytes of a packed expert. */
  expertBytes(shape: RawExpertShape): { readonly inference: number; readonly training: number };
  /**
   * Calls with experts run one after the other on a thread of their own. Their arrays stay pinned until the promise
   * is settled, and their buffers can't be transferred from then on. Bad input throws, before anything changes.
   *
   * swiglu's tensors: gate and up [inner][hidden], down [hidden][inner]. gpt-oss's: gateUp [hidden][2 inner], with
   * gates and ups in turn, its bias, down [inner][hidden], its bias. `into` is at a multiple of 64 bytes; its size
   * says whether it trains.
   */
  packExpert(
    shape: RawExpertShape,
    tensors: readonly (Float32Array | Uint16Array)[],
    into: Uint8Array,
  ): Promise<void>;
  /** x and y are tokens × hidden, preactivations tokens × 2 inner. */
  expertForward(
    shape: RawExpertShape,
    experts: readonly RawExpertTokens[],
    x: Float32Array | Uint16Array,
    y: Float32Array | Uint16Array,
    preactivations?: Float32Array | Uint16Array,
  ): Promise<void>;
  expertBackward(
    shape: RawExpertShape,
    experts: readonly RawExpertGradients[],
    x: Float32Array | Uint16Array,
    preactivations: Float32Array | Uint16Array,
    yGradient: Float32Array | Uint16Array,
    xGradient: Float32Array | Uint16Array,
  ): Promise<void>;

  /**
   * Where this rank's copies go: its messages' sizes, and their headers. Whose rows are whose only native code knows
   * from then on; the calls below run as those with experts do.
   */
  addressCopies(request: RawStepRequest): RawOutgoing;
  /** What comes to this rank, by the headers that it received, as blocks; once per step. */
  receiveCopies(step: RawStep, headers: Int32Array): RawIncoming;
  /** The rows that this rank sends, from its tokens' (tokens × width). */
  gatherRows(
    step: RawStep,
    dtype: "f32" | "bf16",
    width: number,
    from: Float32Array | Uint16Array,
    into: Float32Array | Uint16Array,
  ): Promise<void>;
  /**
   * x holds the received rows; y receives the results in the order in which they are sent back, preactivations in that
   * of the lists.
   */
  forwardLists(
    step: RawStep,
    shape: RawExpertShape,
    lists: readonly RawList[],
    x: Float32Array | Uint16Array,
    y: Float32Array | Uint16Array,
    preactivations?: Float32Array | Uint16Array,
  ): Promise<void>;
  /** outputGradient lies as x does; xGradient is sent back as y was. The gates are those of the headers. */
  backwardLists(
    step: RawStep,
    shape: RawExpertShape,
    lists: readonly RawListGradients[],
    x: Float32Array | Uint16Array,
    preactivations: Float32Array | Uint16Array,
    outputGradient: Float32Array | Uint16Array,
    xGradient: Float32Array | Uint16Array,
  ): Promise<void>;
  /**
   * Sums of each token's results, times their gates if `gated`, in the order of its slots, then of the addends, which
   * are tokens × width of f32 or bf16.
   */
  combineRows(
    step: RawStep,
    dtype: "f32" | "bf16",
    width: number,
    gated: boolean,
    results: Float32Array | Uint16Array,
    addends: readonly (Float32Array | Uint16Array)[],
    into: Float32Array | Uint16Array,
  ): Promise<void>;
  /** One number per slot: the product of its result with its token's row of outputGradient. */
  gateGradients(
    step: RawStep,
    dtype: "f32" | "bf16",
    width: number,
    results: Float32Array | Uint16Array,
    outputGradient: Float32Array | Uint16Array,
    into: Float32Array,
  ): Promise<void>;
  /** into += from. */
  addFloats(from: Float32Array, into: Float32Array): Promise<void>;
}
