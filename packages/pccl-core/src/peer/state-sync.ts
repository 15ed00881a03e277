/** One sync of a SharedState: offer, election by the coordinator, fetch, completion. */
import { PcclError, pcclError } from "../base/errors.js";
import type { SyncStrategy } from "../membership/messages.js";
import type { ControlSession } from "./control-session.js";
import type { EngineOps } from "./engine-ops.js";
import type { SyncPlanReply } from "./session-protocol.js";
import type { SharedState, StateItem } from "./shared-state.js";

export interface SyncResult {
  /** The group's revision, which `state.revision` now equals. */
  readonly revision: number;
  /** Bytes served to other peers, and all that came from them, hashes included. In the background see `served`. */
  readonly txBytes: number;
  readonly rxBytes: number;
  /** Tensors of this peer that differed and were replaced. */
  readonly changedKeys: readonly string[];
  /** Peers that anything came from. */
  readonly sources: readonly number[];
  /** Root of each tensor's hash tree, 32 hex digits: the same on every peer of the group. */
  readonly hashes: Readonly<Record<string, string>>;
  /**
   * Resolves when nobody reads the state any more, so that it may be written: with `background` maybe later than the
   * call, otherwise at once. Rejects with ERR_PCCL_STATE_CHANGED if it was written before.
   */
  readonly served: Promise<Served>;
}

export interface Served {
  /** Bytes that other peers got. */
  readonly txBytes: number;
}

export interface SyncRequest {
  readonly call: string;
  readonly strategy: SyncStrategy;
  readonly background: boolean;
}

export async function syncWithGroup(
  ops: EngineOps,
  session: ControlSession,
  state: SharedState,
  { call, strategy, background }: SyncRequest,
  signal: AbortSignal | undefined,
): Promise<SyncResult> {
  const items = state.items(call);
  const exportId = await ops.exportState(call, items, signal);
  let isExported = true;
  const end = async (): Promise<Served> => {
    isExported = false;
    return await endExport(ops, call, exportId);
  };
  try {
    const hashes = ops.hashes(call, exportId);
    const entries = items.map(({ name, dtype, count, allowInequality }) => ({
      name,
      dtype,
      count,
      hash: hashes.get(name) ?? "",
      allowInequality,
    }));
    const { revision: offered } = state;
    const offer = { kind: "sync-offer", revision: offered, strategy, background, entries } as const;
    const plan = await session.request(offer, signal);
    const { syncEnded } = session;
    const { rxBytes, sources, revision } = await carryOut(
      ops,
      session,
      { call, exportId, items, plan },
      signal,
    );
    const changedKeys = plan.fetches.map(({ name }) => name);
    for (const { name, hash } of plan.fetches) hashes.set(name, hash);
    // Who has just got it all has nothing to wait for; the others still have those to fetch from that it had.
    const served = background && changedKeys.length === 0 ? syncEnded.then(end) : end();
    isExported = false;
    // Who never asks for it mustn't get an unhandled rejection.
    served.catch(() => {});
    const txBytes = background ? 0 : (await served).txBytes;
    if (changedKeys.length > 0) await served;
    state.revision = revision;
    return { revision, txBytes, rxBytes, changedKeys, sources, hashes: Object.fromEntries(hashes), served };
  } finally {
    if (isExported) ops.release(exportId);
  }
}

/** Writes what was fetched, if anything was, and lets go of the tensors. */
async function endExport(ops: EngineOps, call: string, exportId: number): Promise<Served> {
  const changed = ops.changedTensor(call, exportId);
  if (changed === undefined) return { txBytes: (await ops.commitState(call, exportId)).txBytes };
  ops.release(exportId);
  throw pcclError(
    "ERR_PCCL_STATE_CHANGED",
    `${call}: tensor ${JSON.stringify(changed)} was written to while other peers fetched it`,
  );
}

interface Fetching {
  readonly call: string;
  readonly exportId: number;
  readonly items: readonly StateItem[];
  readonly plan: SyncPlanReply;
}

/**
 * Fetches what the plan names, into memory of the engine's, and waits until the group is through. A failure of this
 * peer is told to the group; one of the group ends the fetch.
 */
async function carryOut(
  ops: EngineOps,
  session: ControlSession,
  fetching: Fetching,
  signal: AbortSignal | undefined,
): Promise<{ rxBytes: number; sources: readonly number[]; revision: number }> {
  const { syncFailed } = session;
  const stop = signal === undefined ? syncFailed : AbortSignal.any([signal, syncFailed]);
  try {
    const { rxBytes, sources } = await fetchTargets(ops, fetching, stop).catch((error: unknown) => {
      const reason = error instanceof PcclError ? error.reason : String(error);
      // Its answer can only say that the sync has failed, which nobody needs to wait for.
      if (!syncFailed.aborted) session.request({ kind: "sync-done", ok: false, reason }).catch(() => {});
      throw error;
    });
    const revision = await session.request({ kind: "sync-done", ok: true, reason: "" }, signal);
    return { rxBytes, sources, revision };
  } catch (error) {
    throw syncFailed.aborted ? syncFailed.reason : error;
  }
}

async function fetchTargets(
  ops: EngineOps,
  { call, exportId, items, plan }: Fetching,
  stop: AbortSignal,
): Promise<{ rxBytes: number; sources: readonly number[] }> {
  const { fetches, sources, share, shares } = plan;
  if (fetches.length === 0) return { rxBytes: 0, sources: [] };
  const indices = new Map(items.map(({ name }, index) => [name, index]));
  const targets = fetches.map(({ name, hash }) => {
    const tensor = indices.get(name);
    if (tensor === undefined) {
      throw pcclError("ERR_PCCL_INTERNAL", `${call}: the plan names "${name}", which this peer doesn't have`);
    }
    return { tensor, hash };
  });
  const members = sources.map(({ member: { peerId, endpoint }, complete }) => ({
    peerId,
    ...endpoint,
    complete,
  }));
  return await ops.fetchState(call, { exportId, targets, sources: members, share, shares }, stop);
}
