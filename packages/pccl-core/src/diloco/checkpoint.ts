/**
 * Checkpoints of one peer: a folder per round, `round-000000120`, with `state.safetensors` and `manifest.json`. A folder
 * gets its name when all that is in it is on disk, so that what has a name is whole.
 */
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { checkInteger, checkOptions, describe } from "../base/check.js";
import { pcclError } from "../base/errors.js";
import { digestOf } from "./kernels.js";
import type { OuterState } from "./outer-state.js";
import { readSafetensors, type StoredTensor, unreadable, writeSafetensors } from "./safetensors.js";

export interface CheckpointOptions {
  /** Made if it isn't there; each peer needs one of its own. */
  readonly directory: string;
  /** Rounds from one checkpoint to the next; 1 unless told. */
  readonly everyRounds?: number;
  /** Older ones are deleted; 3 unless told. */
  readonly keepLast?: number;
  /**
   * What else a peer needs to go on: the inner optimizer's arrays, the place in the data. Called when a checkpoint is
   * made, between two inner steps; the arrays are copied. `extra` is kept as JSON.
   */
  readonly save?: () => {
    readonly tensors?: Readonly<Record<string, StoredTensor>>;
    readonly extra?: unknown;
  };
}

/** What a checkpoint held besides the outer state. */
export interface Restored {
  readonly round: number;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly extra: unknown;
}

/** Everything of one checkpoint. */
interface Snapshot {
  readonly round: number;
  /** Of the settings that it was trained with. */
  readonly settings: string;
  readonly digest: string;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly extra: unknown;
}

interface Manifest {
  readonly format: 1;
  readonly round: number;
  readonly settings: string;
  readonly digest: string;
  /** XXH3-128 of each tensor. */
  readonly hashes: Readonly<Record<string, string>>;
  readonly extra: unknown;
}

const CALL = "Diloco: checkpoint";
/** Before the names of the caller's own tensors. */
const LOCAL = "local/";
const NAME = /^round-(\d{9})$/;
const STATE = "state.safetensors";
const MANIFEST = "manifest.json";

export class Checkpoints {
  readonly #directory: string;
  readonly #everyRounds: number;
  readonly #keepLast: number;
  readonly #save: CheckpointOptions["save"];
  /** One is written at a time. */
  #writing: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  constructor(options: CheckpointOptions) {
    checkOptions(CALL, options, ["directory", "everyRounds", "keepLast", "save"]);
    const { directory, everyRounds = 1, keepLast = 3, save } = options;
    if (typeof directory !== "string" || directory === "") {
      const message = `${CALL}: directory must be a path, got ${describe(directory)}.`;
      throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
    }
    if (save !== undefined && typeof save !== "function") {
      throw pcclError(
        "ERR_PCCL_INVALID_ARGUMENT",
        `${CALL}: save must be a function, got ${describe(save)}.`,
      );
    }
    this.#directory = directory;
    this.#everyRounds = checkInteger(CALL, "everyRounds", everyRounds, 1, Number.MAX_SAFE_INTEGER);
    this.#keepLast = checkInteger(CALL, "keepLast", keepLast, 1, 1_000_000);
    this.#save = save;
  }

  /**
   * After a round: if one is due, copies what belongs to it and begins to write it, once the one before is written.
   * Rejects with what went wrong with an earlier one, once.
   */
  async roundEnded(state: OuterState, settings: string): Promise<void> {
    const { round, digest } = state;
    if (round % this.#everyRounds !== 0) return;
    await this.flush();
    const { tensors = {}, extra = null } = this.#save?.() ?? {};
    const all = new Map<string, StoredTensor>(state.snapshot());
    for (const [name, tensor] of Object.entries(tensors)) {
      if (
        !(tensor instanceof Float32Array || tensor instanceof Float64Array || tensor instanceof Uint8Array)
      ) {
        const what = `${CALL}: save's tensor "${name}" must be a Float32Array, Float64Array or Uint8Array`;
        throw pcclError("ERR_PCCL_INVALID_ARGUMENT", `${what}, got ${describe(tensor)}.`);
      }
      all.set(`${LOCAL}${name}`, tensor.slice());
    }
    this.#writing = this.#write({ round, settings, digest, tensors: all, extra }).catch((error: unknown) => {
      this.#failure = { error };
    });
  }

  /** Takes the outer state of the newest checkpoint that is whole; gives the rest, or undefined if there is none. */
  async restore(state: OuterState): Promise<Restored | undefined> {
    const snapshot = await this.#latest();
    if (snapshot === undefined) return undefined;
    const { round, tensors, extra } = snapshot;
    await state.restore(tensors);
    const own = [...tensors].filter(([name]) => name.startsWith(LOCAL));
    return {
      round,
      tensors: new Map(own.map(([name, tensor]) => [name.slice(LOCAL.length), tensor])),
      extra,
    };
  }

  /** Until everything is on disk; rejects with what went wrong, once. */
  async flush(): Promise<void> {
    await this.#writing;
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
  }

  async #latest(): Promise<Snapshot | undefined> {
    let damaged: { readonly error: unknown } | undefined;
    for (const name of (await this.#names()).toReversed()) {
      try {
        return await read(join(this.#directory, name));
      } catch (error) {
        damaged = { error };
      }
    }
    if (damaged !== undefined) throw damaged.error;
    return undefined;
  }

  async #write({ round, settings, digest, tensors, extra }: Snapshot): Promise<void> {
    const name = `round-${String(round).padStart(9, "0")}`;
    const target = join(this.#directory, name);
    const temporary = join(this.#directory, `.${name}.${process.pid}`);
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    const manifest: Manifest = { format: 1, round, settings, digest, hashes: await hashesOf(tensors), extra };
    await writeSafetensors(join(temporary, STATE), tensors, { settings });
    await writeFile(join(temporary, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`, {
      flush: true,
    });
    await rm(target, { recursive: true, force: true });
    await rename(temporary, target);
    await syncDirectory(this.#directory);
    for (const old of (await this.#names()).slice(0, -this.#keepLast)) {
      await rm(join(this.#directory, old), { recursive: true, force: true });
    }
  }

  /** In the order of rounds. */
  async #names(): Promise<string[]> {
    const all = await readdir(this.#directory).catch(() => []);
    return all.filter((name) => NAME.test(name)).sort();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function hashesOf(tensors: ReadonlyMap<string, StoredTensor>): Promise<Record<string, string>> {
  const names = [...tensors.keys()];
  const hashes = Buffer.from(await digestOf([...tensors.values()]));
  return Object.fromEntries(names.map((name, i) => [name, hashes.toString("hex", 16 * i, 16 * (i + 1))]));
}

async function read(folder: string): Promise<Snapshot> {
  const path = join(folder, STATE);
  const manifest = JSON.parse(await readFile(join(folder, MANIFEST), "utf8")) as Manifest;
  if (manifest.format !== 1)
    throw unreadable(folder, `its manifest has the format ${describe(manifest.format)}`);
  const { tensors } = await readSafetensors(path);
  const hashes = await hashesOf(tensors);
  for (const [name, hash] of Object.entries(manifest.hashes)) {
    if (hashes[name] !== hash) throw unreadable(path, `"${name}" doesn't have the manifest's hash`);
  }
  const { round, settings, digest, extra } = manifest;
  return { round, settings, digest, tensors, extra };
}
