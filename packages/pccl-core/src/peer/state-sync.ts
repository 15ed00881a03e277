/** One sync of a SharedState: offer, election by the coordinator, fetch, verification, completion. */
import { PcclError, pcclError } from "../base/errors.js";
import type { SyncStrategy } from "../membership/messages.js";
import type { ControlSession } from "./control-session.js";
import type { EngineOps } from "./engine-ops.js";
import type { SyncPlanReply } from "./session-protocol.js";
import type { SharedState } from "./shared-state.js";
import { bytesOf, checkTensor, dtypeOf } from "./tensor.js";

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
  signal: AbortSignal | undefined,
): Promise<SyncResult> {
  const tensors = [...state.tensors].map(([name, tensor]) => ({
    name,
    data: checkTensor(CALL, name, tensor, 0),
  }));
  const exportId = await ops.exportState(CALL, tensors, signal);
  let txBytes: number | undefined;
  try {
    const hashes = ops.hashes(CALL, exportId);
    const plan = await session.request(
      {
        kind: "sync-offer",
        revision: state.revision,
        strategy,
        entries: tensors.map(({ name, data }) => ({
          name,
          dtype: dtypeOf(data),
          count: data.length,
          hash: hashes.get(name) ?? "",
        })),
      },
      signal,
    );
    const { shadows, rxBytes, revision } = await carryOut(ops, session, state, plan, signal);
    // Before the tensors are written, which nobody may read meanwhile.
    txBytes = ops.release(exportId);
    for (const [name, shadow] of shadows) {
      const tensor = state.tensors.get(name);
      if (tensor !== undefined) bytesOf(tensor).set(shadow);
    }
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
    if (txBytes === undefined) ops.release(exportId);
  }
}

/**
 * Fetches what the plan names into new memory, since the caller's tensors change only when the whole group is
 * through, and waits until it is. A failure of this peer is told to the group; one of the group ends the fetch.
 */
async function carryOut(
  ops: EngineOps,
  session: ControlSession,
  state: SharedState,
  plan: SyncPlanReply,
  signal: AbortSignal | undefined,
): Promise<{ shadows: Map<string, Uint8Array>; rxBytes: number; revision: number }> {
  const { syncFailed } = session;
  const stop = signal === undefined ? syncFailed : AbortSignal.any([signal, syncFailed]);
  try {
    const { shadows, rxBytes } = await fetchShadows(ops, state, plan, stop).catch((error: unknown) => {
      const reason = error instanceof PcclError ? error.reason : String(error);
      // Its answer can only say that the sync has failed, which nobody needs to wait for.
      if (!syncFailed.aborted) session.request({ kind: "sync-done", ok: false, reason }).catch(() => {});
      throw error;
    });
    const revision = await session.request({ kind: "sync-done", ok: true, reason: "" }, signal);
    return { shadows, rxBytes, revision };
  } catch (error) {
    throw syncFailed.aborted ? syncFailed.reason : error;
  }
}

async function fetchShadows(
  ops: EngineOps,
  state: SharedState,
  { source, fetches }: SyncPlanReply,
  stop: AbortSignal,
): Promise<{ shadows: Map<string, Uint8Array>; rxBytes: number }> {
  const shadows = new Map<string, Uint8Array>();
  if (source === undefined || fetches.length === 0) return { shadows, rxBytes: 0 };
  const requests = fetches.map(({ name, hash }) => {
    const tensor = state.tensors.get(name);
    if (tensor === undefined) {
      throw pcclError("ERR_PCCL_INTERNAL", `${CALL}: the plan names "${name}", which this peer doesn't have`);
    }
    const into = new Uint8Array(tensor.byteLength);
    shadows.set(name, into);
    return { name, hash, into };
  });
  const { peerId, endpoint } = source;
  const done = await ops.fetchState(CALL, { peerId, ...endpoint }, requests, stop);
  return { shadows, rxBytes: done.rxBytes };
}
