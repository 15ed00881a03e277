/** How a process that `moe-ep launch` started finds its group: by the same variables as torchrun's. */
import { type PcclError, pcclError } from "@pccl/core/base";

export interface GroupEnvironment {
  /** Of the coordinator. */
  readonly address: string;
  readonly rank: number;
  readonly size: number;
}

/** RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Throws ERR_PCCL_INVALID_ARGUMENT if one is missing or makes no sense. */
export function readEnvironment(call: string, environment: NodeJS.ProcessEnv): GroupEnvironment {
  const invalid = (message: string): PcclError =>
    pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${message}`);
  const text = (name: string): string => {
    const value = environment[name];
    if (value === undefined || value === "") {
      throw invalid(`the environment has no ${name}; start this program with \`moe-ep launch\``);
    }
    return value;
  };
  const integer = (name: string, min: number): number => {
    const value = Number(text(name));
    if (!Number.isInteger(value) || value < min)
      throw invalid(`${name} is "${text(name)}" in the environment`);
    return value;
  };
  const rank = integer("RANK", 0);
  const size = integer("WORLD_SIZE", 1);
  if (rank >= size) throw invalid(`RANK is ${rank} in the environment, and WORLD_SIZE ${size}`);
  return { address: `${text("MASTER_ADDR")}:${integer("MASTER_PORT", 1)}`, rank, size };
}
