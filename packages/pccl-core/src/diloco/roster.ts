/** What each peer says of its contribution before a round's data moves: a few numbers, gathered from all. */
import type { CallOptions } from "../peer/call-limits.js";
import type { Communicator } from "../peer/communicator.js";
import type { CollectiveResult } from "../peer/collective-call.js";
import type { Contribution } from "./guard.js";

export interface RosterEntry extends Contribution {
  /** Mean of the peer's training losses since its last contribution; NaN if it gave none. */
  readonly loss: number;
  /** Of the outer state that the contribution starts from, 32 hex digits. */
  readonly digest: string;
}

const NUMBERS = 7;

export interface Roster {
  /** In rank order. */
  readonly entries: readonly RosterEntry[];
  readonly result: CollectiveResult;
}

/** Collective over the group; rejects as allGather does. */
export async function gatherRoster(
  communicator: Communicator,
  own: RosterEntry,
  options: CallOptions & { readonly tag: bigint },
): Promise<Roster> {
  const send = encode(own);
  const recv = new Float64Array(communicator.groupWorldSize * NUMBERS);
  const result = await communicator.allGather(send, recv, options);
  const entries = Array.from({ length: result.worldSize }, (_, rank) =>
    decode(recv.subarray(rank * NUMBERS, (rank + 1) * NUMBERS)),
  );
  return { entries, result };
}

/** Whether everybody starts from the same outer state. */
export function isInStep({ entries }: Roster): boolean {
  return entries.every(({ digest }) => digest === entries[0]?.digest);
}

/** Mean over the peers that contribute and gave a loss; undefined if none did. */
export function meanLoss(entries: readonly RosterEntry[]): number | undefined {
  const losses = entries.filter(({ loss, weight }) => weight > 0 && Number.isFinite(loss));
  return losses.length === 0 ? undefined : losses.reduce((sum, { loss }) => sum + loss, 0) / losses.length;
}

/** The digest's 128 bits as three integers, exact in a double. */
function encode({ peerId, weight, norm, loss, digest }: RosterEntry): Float64Array {
  const parts = [digest.slice(0, 12), digest.slice(12, 24), digest.slice(24)];
  return Float64Array.of(peerId, weight, norm, loss, ...parts.map((part) => Number.parseInt(part, 16)));
}

function decode([peerId, weight, norm, loss, ...digest]: Float64Array): RosterEntry {
  const widths = [12, 12, 8];
  return {
    peerId: peerId as number,
    weight: weight as number,
    norm: norm as number,
    loss: loss as number,
    digest: digest.map((part, index) => part.toString(16).padStart(widths[index] as number, "0")).join(""),
  };
}
