/** Finds and loads the native addon, or says in full why it can't. */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { Addon, Engine, EngineEvent } from "./addon.js";
import { GuardedEngine } from "./guarded-engine.js";
import { guardedExperts } from "./guarded-experts.js";
import { guardedKernels } from "./guarded-kernels.js";
import { keepInPlace } from "./untransferable.js";

/** native/src/node/addon.cc has the same number. */
const ABI_VERSION = 5;

/** Where `build:native` puts the addon, seen from dist/. */
const ADDON_PATH = fileURLToPath(new URL("../../../build/native/Release/pccl.node", import.meta.url));

function loadError(reason: string, cause?: unknown): Error {
  return Object.assign(
    new Error(
      `The native addon ${ADDON_PATH} can't be used on ${process.platform}-${process.arch}, Node ` +
        `${process.versions.node}: ${reason} Run \`npm run bootstrap\` in the repository to build it.`,
      { cause },
    ),
    { code: "ERR_PCCL_NATIVE_LOAD" },
  );
}

/**
 * The addon as it was built, without the guards on buffers that transfers and WebAssembly need: for tests of the
 * raw surface. Throws an Error with code ERR_PCCL_NATIVE_LOAD.
 */
export function loadRawAddon(): Addon {
  let addon: Partial<Addon>;
  try {
    addon = createRequire(import.meta.url)(ADDON_PATH) as Partial<Addon>;
  } catch (error) {
    throw loadError(`${error instanceof Error ? error.message : String(error)}.`, error);
  }
  if (addon.abiVersion !== ABI_VERSION) {
    throw loadError(`it was built for surface ${addon.abiVersion}, this package needs ${ABI_VERSION}.`);
  }
  return addon as Addon;
}

let loaded: Addon | undefined;

function inPlace(buffer: ArrayBuffer): ArrayBuffer {
  keepInPlace(buffer);
  return buffer;
}

/** Loads the addon on the first call. Throws an Error with code ERR_PCCL_NATIVE_LOAD that says what to do. */
export function loadAddon(): Addon {
  if (loaded === undefined) {
    const raw = loadRawAddon();
    loaded = {
      ...raw,
      createEngine: (options, onEvents: (events: EngineEvent[]) => void): Engine =>
        new GuardedEngine(raw.createEngine(options, onEvents)),
      attachEngine: (id, onEvents: (events: EngineEvent[]) => void): Engine =>
        new GuardedEngine(raw.attachEngine(id, onEvents)),
      // Node doesn't transfer what native code allocated, which would make it look like WebAssembly memory.
      allocate: (bytes): ArrayBuffer => inPlace(raw.allocate(bytes)),
      allocateShared: (bytes): ReturnType<Addon["allocateShared"]> => {
        const { buffer, file } = raw.allocateShared(bytes);
        return { buffer: inPlace(buffer), file };
      },
      mapShared: (process, file, bytes): ArrayBuffer | undefined => {
        const buffer = raw.mapShared(process, file, bytes);
        return buffer && inPlace(buffer);
      },
      ...guardedExperts(raw),
      ...guardedKernels(raw),
    };
  }
  return loaded;
}
