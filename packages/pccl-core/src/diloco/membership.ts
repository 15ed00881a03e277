/** The calls by which a group's outer state comes to newcomers, and back to a peer that has lost it. */
import type { CallOptions } from "../peer/call-limits.js";
import type { Communicator } from "../peer/communicator.js";
import type { SyncResult } from "../peer/state-sync.js";
import type { OuterState } from "./outer-state.js";

/** How often a peer that is alone asks for company. */
const COMPANY_INTERVAL_MS = 200;

/** A member's part of an admission; a newcomer's is the sync alone. */
export async function admitNewcomers(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
): Promise<SyncResult> {
  await communicator.updateTopology(limits());
  return await syncGroup(communicator, state, limits);
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

/**
 * All members elect one content, and those that hold another one receive it: newcomers, and a peer whose memory failed.
 * Not tried again when it fails: that is this peer's alone, and the others have gone on. They would wait for it in other
 * calls; closed, it is a peer that is gone.
 */
export async function syncGroup(
  communicator: Communicator,
  state: OuterState,
  limits: () => CallOptions,
): Promise<SyncResult> {
  state.advanceRevision();
  const result = await communicator.syncSharedState(state.shared, limits());
  await state.replaced();
  return result;
}
