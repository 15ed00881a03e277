/** Groups for tests: all ranks in this process, each with a communicator of its own. */
import { connect, type ConnectOptions, type Communicator } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { ExpertGroup } from "@pccl/moe-ep";

export async function withCommunicators<T>(
  size: number,
  options: ConnectOptions,
  body: (communicators: readonly Communicator[]) => Promise<T>,
): Promise<T> {
  await using coordinator = await Coordinator.start({ listen: "127.0.0.1:0", minPeers: size });
  const communicators = await Promise.all(
    Array.from({ length: size }, () => connect(coordinator.address, options)),
  );
  try {
    return await body(communicators);
  } finally {
    await Promise.all(communicators.map((communicator) => communicator.close()));
  }
}

/**
 * Runs `body` on every rank; results by rank. Ranks are the other way round than the communicators', to see that the
 * group's own count.
 */
export async function onRanks<T>(
  size: number,
  body: (group: ExpertGroup) => Promise<T>,
  options: ConnectOptions = {},
): Promise<T[]> {
  return await withCommunicators(size, options, async (communicators) => {
    const groups = await Promise.all(
      communicators.map((communicator) =>
        ExpertGroup.connect(communicator, { rank: size - 1 - communicator.rank }),
      ),
    );
    const byRank = groups.toSorted((a, b) => a.rank - b.rank);
    return await Promise.all(byRank.map(body));
  });
}
