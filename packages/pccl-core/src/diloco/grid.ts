/** Two dimensions: peer groups of the same shard, each of which averages, and replicas of one process of every group. */
import { checkInteger, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { GROUP_MAX } from "../base/limits.js";
import { Communicator } from "../peer/communicator.js";

/**
 * Whether the world is a full grid of `groups` groups of this peer's size, as its view has it: no replica lacks a
 * process, or has one that others haven't. Peers know the size of their own group and of the world; two other groups
 * that differ by as much in opposite directions are seen by those, and not here.
 */
export function isGridComplete(communicator: Communicator, groups: number): boolean {
  const call = "isGridComplete";
  if (!(communicator instanceof Communicator)) {
    const message = `${call}: the first argument must be a Communicator, got ${describe(communicator)}.`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
  }
  checkInteger(call, "groups", groups, 1, GROUP_MAX + 1);
  return communicator.groupWorldSize * groups === communicator.worldSize;
}
