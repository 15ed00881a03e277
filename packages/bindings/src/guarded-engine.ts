/** The raw engine with its callers' buffers made safe: the part of pinning that Node-API has no call for. */
import type {
  CollectiveCall,
  Engine,
  FetchCall,
  HashedTensor,
  InstalledView,
  OpName,
  OpReport,
  OpVerdict,
  RingMember,
  RingView,
  StateTensor,
  Tensor,
} from "./addon.js";
import { markUntransferable, refuseWasmMemory } from "./untransferable.js";

/** Native code checks the list and says what is wrong with it; until then it can be anything. */
function refuseWasmMemoryIn(list: unknown, what: string, key: "data"): void {
  if (!Array.isArray(list)) return;
  list.forEach((item: Readonly<Record<string, unknown>> | null | undefined, i) =>
    refuseWasmMemory(`${what}[${i}].${key}`, item?.[key]),
  );
}

/** The buffers that a call has. Native code checks the call and says what is wrong with it; until then it can be anything. */
function buffersOf(call: CollectiveCall): [name: string, tensor: Tensor][] {
  if (typeof call !== "object" || call === null) return [];
  const { send, recv, data } = call as Partial<Record<"send" | "recv" | "data", Tensor>>;
  return Object.entries({ send, recv, data }).filter(
    (entry): entry is [string, Tensor] => entry[1] !== undefined,
  );
}

export class GuardedEngine implements Engine {
  readonly #raw: Engine;

  constructor(raw: Engine) {
    this.#raw = raw;
  }

  get id(): number {
    return this.#raw.id;
  }

  get port(): number {
    return this.#raw.port;
  }

  get hostId(): string {
    return this.#raw.hostId;
  }

  view(): InstalledView | undefined {
    return this.#raw.view();
  }

  start(call: CollectiveCall, ringEpoch?: number): number {
    const buffers = buffersOf(call);
    for (const [name, tensor] of buffers) refuseWasmMemory(`${call.kind}: ${name}`, tensor);
    const id = this.#raw.start(call, ringEpoch);
    for (const [, tensor] of buffers) markUntransferable(tensor);
    return id;
  }

  cancel(id: number): boolean {
    return this.#raw.cancel(id);
  }

  exportState(tensors: readonly StateTensor[]): number {
    refuseWasmMemoryIn(tensors, "exportState: tensors", "data");
    const id = this.#raw.exportState(tensors);
    for (const { data } of tensors) markUntransferable(data);
    return id;
  }

  hashes(exportId: number): readonly HashedTensor[] {
    return this.#raw.hashes(exportId);
  }

  releaseState(exportId: number): number {
    return this.#raw.releaseState(exportId);
  }

  fetchState(call: FetchCall): number {
    return this.#raw.fetchState(call);
  }

  commitState(exportId: number): number {
    return this.#raw.commitState(exportId);
  }

  changedTensor(exportId: number): string | undefined {
    return this.#raw.changedTensor(exportId);
  }

  prepare(view: RingView, timeoutMs: number): readonly OpReport[] {
    return this.#raw.prepare(view, timeoutMs);
  }

  install(epoch: number, verdicts: readonly OpVerdict[]): void {
    this.#raw.install(epoch, verdicts);
  }

  setWorld(viewEpoch: number, worldSize: number): void {
    this.#raw.setWorld(viewEpoch, worldSize);
  }

  abortIfMissing(epoch: number, op: OpName, peerId: number): boolean {
    return this.#raw.abortIfMissing(epoch, op, peerId);
  }

  probe(id: number, target: RingMember, direction: "send" | "receive"): void {
    this.#raw.probe(id, target, direction);
  }

  close(): void {
    this.#raw.close();
  }
}
