/** Asks a host's kernel whether a process still listens on a port, without the process having to answer. */
import { connect } from "node:net";
import type { Endpoint } from "../membership/messages.js";
import type { ProbeResult } from "../membership/state.js";

/** How long the host has to answer. */
const ANSWER_TIMEOUT_MS = 1_000;
/** A connection that a dying process's kernel still took is reset within this time. */
const SETTLE_MS = 100;

/** Never throws, ends within about two seconds, and doesn't keep the process alive. */
export async function probe(endpoint: Endpoint): Promise<ProbeResult> {
  const first = await attempt(endpoint);
  const result = first === "closed" ? await attempt(endpoint) : first;
  return result === "closed" ? "unknown" : result;
}

function attempt({ host, port }: Endpoint): Promise<ProbeResult | "closed"> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.unref();
    let timer: NodeJS.Timeout;
    const end = (result: ProbeResult | "closed"): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    const wait = (ms: number, result: ProbeResult): void => {
      clearTimeout(timer);
      timer = setTimeout(() => end(result), ms);
      timer.unref();
    };
    socket.on("connect", () => wait(SETTLE_MS, "alive"));
    socket.on("error", ({ code }: NodeJS.ErrnoException) =>
      end(code === "ECONNREFUSED" ? "refused" : code === "ECONNRESET" ? "closed" : "unknown"),
    );
    // Without a reader the end of the stream would not be noticed.
    socket.on("data", () => {});
    socket.on("end", () => end("closed"));
    wait(ANSWER_TIMEOUT_MS, "unknown");
  });
}
