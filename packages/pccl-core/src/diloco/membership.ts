/** The calls by which a group's outer state comes to newcomers, and back to a peer that has lost it. */
import { PcclError, PcclTimeoutError } from "../base/errors.js";
import type { CallOptions } from "../peer/call-limits.js";
import type { Communicator } from "../peer/communicator.js";
import type { SyncResult } from "../peer/state-sync.js";
import type { OuterState } from "./outer-state.js";

/** A failed sync is a death or a torn connection of some peer; that many in a row is something else. */
const ATTEMPTS_MAX = 16;

/** How often a peer that is alone asks for company. */
const COMPANY_INTERVAL_MS = 200;

/** A newcomer's part of its admission; all members of a new group are newcomers. */
export async function joinGroup(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
): Promise<SyncResult> {
  return await sync(communicator, state, limits, false);
}

/** A member's part of it, when newcomers are pending. */
export async function admitNewcomers(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
): Promise<SyncResult> {
  await communicator.updateTopology(limits());
  return await sync(communicator, state, limits, true);
}

/** All members elect one content. */
export async function repairGroup(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
): Promise<SyncResult> {
  return await sync(communicator, state, limits, true);
}

/** Returns once there is another member; whether somebody had to be let in for it. */
export async function waitForCompany(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
): Promise<boolean> {
  let hasChanged = false;
  while (communicator.groupWorldSize === 1) {
    if (await communicator.hasPendingPeers(limits())) {
      await admitNewcomers(communicator, state, limits);
      hasChanged = true;
      continue;
    }
    const { signal } = limits();
    await new Promise((resolve) => setTimeout(resolve, COMPANY_INTERVAL_MS));
    signal?.throwIfAborted();
  }
  return hasChanged;
}

async function sync(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
  isMember: boolean,
): Promise<SyncResult> {
  state.advanceRevision();
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await communicator.syncSharedState(state.shared, limits());
      await state.replaced();
      return result;
    } catch (error) {
      if (attempt >= ATTEMPTS_MAX || !canTryAgain(error, isMember)) throw error;
      // A restored newcomer offers its checkpoint to a new group; one that trains already has no use for it.
      if (!isMember && isRevisionError(error)) state.shared.revision = 0;
    }
  }
}

/**
 * A newcomer with another model or other settings fails the sync for all. It has its error then and leaves; members go
 * on without it.
 */
function canTryAgain(error: unknown, isMember: boolean): boolean {
  if (!(error instanceof PcclError) || error instanceof PcclTimeoutError) return false;
  return error.retryable || isRevisionError(error) || (isMember && error.code === "ERR_PCCL_STATE_MISMATCH");
}

function isRevisionError(error: unknown): boolean {
  return error instanceof PcclError && error.code === "ERR_PCCL_STATE_REVISION";
}
