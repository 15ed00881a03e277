/** Work between ranks that each of them does in the same order. */

/**
 * Starts tasks in order, at most `max` at a time. If all ranks number what passes between them alike, and each starts
 * its part in that order, then the first one that isn't finished is in progress on both of its ranks: they never wait
 * for each other in a circle. Rejects with the first error once all that were started have ended; none is started then.
 */
export async function inOrder(tasks: readonly (() => Promise<void>)[], max: number): Promise<void> {
  let next = 0;
  let failure: { readonly error: unknown } | undefined;
  const work = async (): Promise<void> => {
    while (next < tasks.length && failure === undefined) {
      const task = tasks[next++] as () => Promise<void>;
      try {
        await task();
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(max, tasks.length) }, work));
  if (failure !== undefined) throw failure.error;
}
