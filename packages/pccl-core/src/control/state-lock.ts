/**
 * Keeps a second coordinator out of a state directory. The lock is a listening socket in Linux's abstract
 * namespace, named after the directory's inode: the kernel gives it to one process at a time and takes it back
 * when that process ends, however it ends, so that no stale lock can be left.
 */
import { stat } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { pcclError } from "../base/errors.js";
import { journalFailed } from "./journal-file.js";

export class StateLock {
  readonly #server: Server;

  /** Throws ERR_PCCL_JOURNAL_IN_USE when another coordinator of this machine has the directory. */
  static async take(directory: string): Promise<StateLock> {
    const server = createServer((socket) => socket.destroy());
    try {
      const { dev, ino } = await stat(directory, { bigint: true });
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ path: `\0pccl-coordinator-state-${dev}-${ino}` }, resolve);
      });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") {
        throw pcclError("ERR_PCCL_JOURNAL_IN_USE", `Another coordinator uses the directory ${directory}.`);
      }
      throw journalFailed(directory, "lock", error);
    }
    server.unref();
    return new StateLock(server);
  }

  private constructor(server: Server) {
    this.#server = server;
  }

  async release(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
