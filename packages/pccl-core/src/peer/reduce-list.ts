/** Several all-reduces as one call: how many run at once, and what is made again. */
import { setMaxListeners } from "node:events";
import { PeerLostError } from "../base/errors.js";
import type { AllReduceEngineCall, CollectiveResult } from "./collective-call.js";

export interface AllReduceAllResult {
  /**
   * "committed": each op's result holds the contributions of several peers. "alone": at least one op could only be
   * finished with this peer as the last one of its group; its result has a `worldSize` of 1.
   */
  readonly outcome: "committed" | "alone";
  /** In the order of the calls. */
  readonly results: readonly CollectiveResult[];
  /** Attempts that were aborted by a change of membership and made again. */
  readonly retriedOps: number;
}

/**
 * Runs the calls in their order, at most `slots` at once. One that a change of membership aborts is made again in its
 * own slot at once: then the lowest unfinished op is always in flight on every peer, whatever order they learn of the
 * aborts in and however many slots each has, and no two peers can wait in different ops for ever.
 *
 * After any other error, or when the caller withdraws, the rest is begun and withdrawn at once, which fails the list
 * on every other peer. Members match their ops by counting those with the same tag: had each of them begun only the
 * ops that it had come to, the next list would wait for ops that others have counted already.
 */
export async function reduceList(
  reduce: (call: AllReduceEngineCall, signal: AbortSignal) => Promise<CollectiveResult>,
  calls: readonly AllReduceEngineCall[],
  slots: number,
  signal: AbortSignal | undefined,
): Promise<AllReduceAllResult> {
  // Ends all of them: the caller withdraws, or one has failed.
  const end = new AbortController();
  // Node warns of a leak from the eleventh listener on; here each op in flight has one.
  setMaxListeners(slots, end.signal);
  const onAbort = (): void => end.abort();
  if (signal?.aborted === true) onAbort();
  else signal?.addEventListener("abort", onAbort, { once: true });
  const results = new Array<CollectiveResult>(calls.length);
  let next = 0;
  let retriedOps = 0;
  let firstError: { readonly error: unknown } | undefined;
  const runSlot = async (): Promise<void> => {
    for (let index = next++; index < calls.length; ) {
      try {
        results[index] = await reduce(calls[index] as AllReduceEngineCall, end.signal);
      } catch (error) {
        if (error instanceof PeerLostError) {
          retriedOps++;
          continue;
        }
        firstError ??= { error };
        end.abort();
      }
      index = next++;
    }
  };
  await Promise.all(Array.from({ length: Math.min(slots, calls.length) }, runSlot));
  signal?.removeEventListener("abort", onAbort);
  if (firstError !== undefined) throw firstError.error;
  const alone = results.some(({ worldSize }) => worldSize === 1);
  return { outcome: alone ? "alone" : "committed", results, retriedOps };
}
