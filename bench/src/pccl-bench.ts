/** `pccl bench` as a command of its own, for one size. */
import { fileURLToPath } from "node:url";

const PCCL = fileURLToPath(new URL("../../node_modules/.bin/pccl", import.meta.url));

export function benchCommand(
  collective: "all-reduce" | "all-to-all",
  peers: number,
  bytes: number,
  transport: "tcp" | "shm",
  further: readonly string[] = [],
): readonly [string, ...string[]] {
  return [
    PCCL,
    ...["bench", collective, "--json", "--world", String(peers)],
    ...["--sizes", `${bytes}B`, "--transport", transport],
    ...further,
  ];
}

/** The median, in seconds. */
export function readBench(output: string, transport: string): number {
  const { results } = JSON.parse(output) as { results: { transport: string; medianSeconds: number }[] };
  const [result] = results;
  if (result?.transport !== transport) throw new Error(`it used ${result?.transport}`);
  return result.medianSeconds;
}
