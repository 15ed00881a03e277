/** A network that the emulator `wanem` makes: hosts are network namespaces of this machine. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { pcclError } from "../../base/errors.js";

const run = promisify(execFile);
let made = 0;

export class EmulatedNetwork {
  readonly #program: string;
  readonly #name: string;

  private constructor(program: string, name: string) {
    this.#program = program;
    this.#name = name;
  }

  /** `matrix` is what wanem reads as one. Throws ERR_PCCL_INVALID_ARGUMENT when wanem can't make it. */
  static async create(program: string, matrix: object): Promise<EmulatedNetwork> {
    const network = new EmulatedNetwork(program, `pw${process.pid}x${made++}`);
    const folder = await mkdtemp(join(tmpdir(), "pccl-wan-"));
    try {
      const file = join(folder, "matrix.json");
      await writeFile(file, JSON.stringify(matrix));
      await network.#run("up", "--matrix", file);
      return network;
    } catch (error) {
      await network.close().catch(() => undefined);
      const { stderr, message } = error as Error & { stderr?: string };
      const reason = (stderr?.trim() || message).replace(/\.$/, "");
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `bench wan: --wanem ${program}: ${reason} (it needs root).`,
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  namespaceOf(host: number): string {
    return `${this.#name}-${host}`;
  }

  addressOf(host: number): string {
    return `10.77.0.${host + 1}`;
  }

  /** Nothing passes between the two hosts, and nobody is told; what is on its way is lost. */
  async cut(a: number, b: number): Promise<void> {
    await this.#run("cut", String(a), String(b));
  }

  async heal(a: number, b: number): Promise<void> {
    await this.#run("heal", String(a), String(b));
  }

  /** Removes the network; what still runs in it is killed. */
  async close(): Promise<void> {
    await this.#run("down");
  }

  async #run(...args: string[]): Promise<void> {
    await run(this.#program, ["--name", this.#name, ...args]);
  }
}
