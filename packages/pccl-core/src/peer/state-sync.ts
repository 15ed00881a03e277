/** One sync of a SharedState: offer, election by the coordinator, fetch, verification, completion. */
import type { SyncStrategy } from "../membership/messages.js";
import type { ControlSession } from "./control-session.js";
import { type EngineOps, guard } from "./engine-ops.js";
import type { SyncPlanReply } from "./session-protocol.js";
import type { SharedState } from "./shared-state.js";
import { checkTensor, dtypeOf, type Tensor } from "./tensor.js";

export interface SyncResult {
  /** The group's revision, which `state.revision` now equals. */
  readonly revision: number;
  /** Bytes served to other peers and fetched from them. */
  readonly txBytes: number;
  readonly rxBytes: number;
  /** Tensors of this peer that differed and were replaced. */
  readonly changedKeys: readonly string[];
  /** Peers that they came from. */
  readonly sources: readonly number[];
  /** XXH3-128 of each tensor, 32 hex digits: the same on every peer of the group. */
  readonly hashes: Readonly<Record<string, string>>;
}

const CALL = "syncSharedState";

export async function syncWithGroup(
  ops: EngineOps,
  session: ControlSession,
  state: SharedState,
  strategy: SyncStrategy,
): Promise<SyncResult> {
  const tensors = [...state.tensors].map(([name, tensor]) => ({
    name,
    data: checkTensor(CALL, name, tensor, 0),
  }));
  const exported = await ops.run(CALL, (engine) => engine.exportState(tensors));
  let released: number | undefined;
  const release = (): number => (released ??= guard(CALL, () => ops.engine.releaseState(exported.id)));
  try {
    const hashes = new Map(
      guard(CALL, () => ops.engine.hashes(exported.id)).map(({ name, hash }) => [name, hash]),
    );
    const plan = await session.request({
      kind: "sync-offer",
      revision: state.revision,
      strategy,
      entries: tensors.map(({ name, data }) => ({
        name,
        dtype: dtypeOf(data),
        count: data.length,
        hash: hashes.get(name) ?? "",
      })),
    });
    const { shadows, rxBytes } = await fetchShadows(ops, session, state, plan);
    const revision = await session.request({ kind: "sync-done", ok: true, reason: "" });
    const txBytes = release();
    for (const [name, shadow] of shadows) state.tensors.get(name)?.set(shadow);
    for (const { name, hash } of plan.fetches) hashes.set(name, hash);
    state.revision = revision;
    return {
      revision,
      txBytes,
      rxBytes,
      changedKeys: [...shadows.keys()],
      sources: plan.source === undefined ? [] : [plan.source.peerId],
      hashes: Object.fromEntries(hashes),
    };
  } finally {
    release();
  }
}

/**
 * Fetches what the plan names into new memory: the caller's tensors change only when the whole group is through.
 * A failure is told to the group before it is thrown, so that nobody waits for this peer.
 */
async function fetchShadows(
  ops: EngineOps,
  session: ControlSession,
  state: SharedState,
  { source, fetches }: SyncPlanReply,
): Promise<{ shadows: Map<string, Tensor>; rxBytes: number }> {
  const shadows = new Map<string, Tensor>();
  if (source === undefined || fetches.length === 0) return { shadows, rxBytes: 0 };
  try {
    const requests = fetches.map(({ name, hash }) => {
      const tensor = state.tensors.get(name);
      if (tensor === undefined) throw new Error(`the plan names "${name}", which this peer doesn't have`);
      const into = tensor.slice();
      shadows.set(name, into);
      return { name, hash, into };
    });
    const { peerId, endpoint } = source;
    const done = await ops.run(CALL, (engine) => engine.fetchState({ peerId, ...endpoint }, requests));
    return { shadows, rxBytes: done.rxBytes };
  } catch (error) {
    await session
      .request({
        kind: "sync-done",
        ok: false,
        reason: error instanceof Error ? error.message : String(error),
      })
      .catch(() => undefined);
    throw error;
  }
}
