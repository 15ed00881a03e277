/**
 * The rule that arrows point down, as data, and the scanners that hold source files against it.
 * Sources come in as a map from path (relative to the root) to text, so that the rule itself can be tested.
 */
import { posix } from "node:path";

export type Sources = ReadonlyMap<string, string>;

/** A folder, and what its files may use besides each other: other layers and packages, by exact name. */
interface Layer {
  readonly folder: string;
  readonly mayUse: readonly string[];
}

const CORE = "packages/pccl-core/src";
const MOE = "packages/moe-ep/src";
/** Stands for every module of Node's own. */
const NODE = "node:*";
const PUBLIC_CORE = ["@pccl/core", "@pccl/core/coordinator", "@pccl/core/diloco"];
/** For programs that test a coordinator. */
const CORE_TESTING = "@pccl/core/testing";

export const TYPESCRIPT_LAYERS: readonly Layer[] = [
  { folder: "packages/bindings/src", mayUse: [NODE] },
  { folder: `${CORE}/base`, mayUse: [] },
  { folder: `${CORE}/topology`, mayUse: [`${CORE}/base`] },
  { folder: `${CORE}/membership`, mayUse: [`${CORE}/topology`, `${CORE}/base`] },
  { folder: `${CORE}/sim`, mayUse: [`${CORE}/membership`, `${CORE}/base`] },
  { folder: `${CORE}/control/generated`, mayUse: ["@grpc/grpc-js", "@grpc/proto-loader", "long"] },
  {
    folder: `${CORE}/control`,
    mayUse: [
      `${CORE}/control/generated`,
      `${CORE}/membership`,
      `${CORE}/base`,
      "@grpc/grpc-js",
      "@grpc/proto-loader",
      "protobufjs",
      NODE,
    ],
  },
  {
    folder: `${CORE}/peer`,
    mayUse: [
      `${CORE}/control`,
      `${CORE}/membership`,
      `${CORE}/topology`,
      `${CORE}/base`,
      "@pccl/bindings",
      NODE,
    ],
  },
  { folder: `${CORE}/diloco`, mayUse: [`${CORE}/peer`, `${CORE}/base`, "@pccl/bindings", NODE] },
  { folder: `${CORE}/adapters`, mayUse: [`${CORE}/diloco`, `${CORE}/base`] },
  { folder: `${CORE}/testing`, mayUse: [`${CORE}/control`, `${CORE}/membership`, `${CORE}/base`, NODE] },
  { folder: `${CORE}/process`, mayUse: [NODE] },
  {
    folder: `${CORE}/bench`,
    mayUse: [
      `${CORE}/peer`,
      `${CORE}/control`,
      `${CORE}/process`,
      `${CORE}/base`,
      "@pccl/bindings",
      "echarts",
      NODE,
    ],
  },
  {
    folder: `${CORE}/stress`,
    mayUse: [`${CORE}/peer`, `${CORE}/sim`, `${CORE}/process`, `${CORE}/base`, NODE],
  },
  {
    folder: `${CORE}/cli`,
    mayUse: [`${CORE}/bench`, `${CORE}/stress`, `${CORE}/sim`, `${CORE}/control`, `${CORE}/base`, NODE],
  },
  { folder: CORE, mayUse: [`${CORE}/peer`, `${CORE}/base`] },
  { folder: `${MOE}/base`, mayUse: ["@pccl/core/base", "@pccl/bindings", NODE] },
  { folder: `${MOE}/planner`, mayUse: [`${MOE}/base`, "@pccl/core/base", "@pccl/bindings"] },
  { folder: `${MOE}/routing`, mayUse: [`${MOE}/base`, "@pccl/core/base", "@pccl/bindings", NODE] },
  { folder: `${MOE}/experts`, mayUse: [`${MOE}/base`, "@pccl/core/base", "@pccl/bindings"] },
  { folder: `${MOE}/group`, mayUse: [`${MOE}/base`, "@pccl/core", "@pccl/core/base", NODE] },
  {
    folder: `${MOE}/layer`,
    mayUse: [
      `${MOE}/group`,
      `${MOE}/planner`,
      `${MOE}/routing`,
      `${MOE}/experts`,
      `${MOE}/base`,
      "@pccl/core",
      "@pccl/core/base",
      "@pccl/bindings",
      NODE,
    ],
  },
  { folder: `${MOE}/launch`, mayUse: ["@pccl/core/coordinator", "@pccl/core/base", NODE] },
  {
    folder: `${MOE}/verify`,
    mayUse: [
      `${MOE}/launch`,
      `${MOE}/layer`,
      `${MOE}/group`,
      `${MOE}/planner`,
      `${MOE}/routing`,
      `${MOE}/experts`,
      "@pccl/core/base",
      NODE,
    ],
  },
  {
    folder: `${MOE}/bench`,
    mayUse: [
      `${MOE}/launch`,
      `${MOE}/layer`,
      `${MOE}/group`,
      `${MOE}/planner`,
      `${MOE}/routing`,
      `${MOE}/experts`,
      NODE,
    ],
  },
  {
    folder: `${MOE}/tuner`,
    mayUse: [
      `${MOE}/simulator`,
      `${MOE}/planner`,
      `${MOE}/routing`,
      `${MOE}/experts`,
      "@pccl/core",
      "@pccl/core/coordinator",
      "@pccl/core/base",
      NODE,
    ],
  },
  { folder: `${MOE}/simulator`, mayUse: [`${MOE}/planner`, "@pccl/core/base"] },
  {
    folder: `${MOE}/cli`,
    mayUse: [
      `${MOE}/tuner`,
      `${MOE}/simulator`,
      `${MOE}/bench`,
      `${MOE}/verify`,
      `${MOE}/launch`,
      `${MOE}/planner`,
      `${MOE}/routing`,
      `${MOE}/experts`,
      `${MOE}/base`,
      "@pccl/core/base",
      NODE,
    ],
  },
  {
    folder: MOE,
    mayUse: [
      `${MOE}/tuner`,
      `${MOE}/simulator`,
      `${MOE}/group`,
      `${MOE}/layer`,
      `${MOE}/planner`,
      `${MOE}/routing`,
      `${MOE}/experts`,
      `${MOE}/base`,
    ],
  },
  { folder: "examples/diloco-language-model/src", mayUse: [...PUBLIC_CORE, "@jax-js/jax", NODE] },
  {
    folder: "examples/diloco-mnist/src",
    mayUse: [
      ...PUBLIC_CORE,
      ...["chart", "child", "gate", "progress", "random", "worker-process"].map(
        (part) => `@pccl/example-diloco-language-model/${part}`,
      ),
      NODE,
    ],
  },
  { folder: "bench/src", mayUse: [...PUBLIC_CORE, "@pccl/moe-ep", CORE_TESTING, "tinybench", NODE] },
];

const NATIVE = "native/src";
/** The engine's face to its users: types only, so every layer may know them. */
const NATIVE_FACE = "native/include/pccl";
const JAVASCRIPT_HEADERS = ["napi.h", "node_api.h", "node.h", "uv.h", "v8.h"];

function nativeLayer(name: string, below: readonly string[], others: readonly string[] = []): Layer {
  return {
    folder: `${NATIVE}/${name}`,
    mayUse: [NATIVE_FACE, ...below.map((layer) => `${NATIVE}/${layer}`), ...others],
  };
}

export const NATIVE_LAYERS: readonly Layer[] = [
  { folder: NATIVE_FACE, mayUse: [] },
  nativeLayer("base", []),
  nativeLayer("reduce", ["base"]),
  nativeLayer("quantize", ["base"]),
  nativeLayer("hash", ["base"]),
  nativeLayer("transport", ["base"]),
  nativeLayer("collective", ["reduce", "quantize", "hash", "transport", "base"]),
  nativeLayer("state", ["hash", "transport", "base"]),
  nativeLayer("probe", ["transport", "base"]),
  nativeLayer("diloco", ["quantize", "base"]),
  nativeLayer("gemm", ["base"]),
  nativeLayer("moe", ["gemm", "base"]),
  nativeLayer("engine", ["collective", "state", "probe", "reduce", "hash", "transport", "base"]),
  nativeLayer("node", ["engine", "quantize", "moe", "diloco", "hash", "base"], JAVASCRIPT_HEADERS),
];

/** Blanks comments and leaves strings alone, which may hold what looks like one. */
export function withoutComments(source: string): string {
  // After one of these a slash begins a regular expression; after a value it divides.
  const literals =
    /(?<keep>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|(?<=[(,=:[!&|?{};]\s*)\/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/)|\/\/[^\n]*|\/\*.*?\*\//gs;
  return source.replaceAll(literals, (text, keep: string | undefined) => (keep === undefined ? " " : text));
}

const IMPORT_FORMS = [
  /\b(?:import|export)\b[^"';]*?\bfrom\s*["']([^"']+)["']/g,
  /\bimport\s*["']([^"']+)["']/g,
  /\bimport\s*\(\s*["']([^"']+)["']/g,
  // A worker or child process's program. URLs of data files are no imports.
  /\bnew\s+URL\(\s*["']([^"']+\.js)["']\s*,\s*import\.meta\.url/g,
];

/** What a TypeScript file names as modules: imports, re-exports, dynamic imports and programs it starts. */
export function importsOf(source: string): string[] {
  const code = withoutComments(source);
  return IMPORT_FORMS.flatMap((form) => [...code.matchAll(form)].map(([, specifier = ""]) => specifier));
}

/** The most specific layer that holds a file. */
function layerOf(layers: readonly Layer[], file: string): Layer | undefined {
  return layers
    .filter(({ folder }) => file.startsWith(`${folder}/`))
    .sort((a, b) => b.folder.length - a.folder.length)[0];
}

function resolveImport(file: string, specifier: string): string {
  return posix.join(posix.dirname(file), specifier).replace(/\.js$/, ".ts");
}

/** Says which arrow a file breaks, or nothing. `target` is a path for files of the repository, else a name. */
function brokenArrow(layers: readonly Layer[], file: string, target: string): string | undefined {
  const from = layerOf(layers, file);
  if (from === undefined) return `${file}: its folder belongs to no layer; name it in scripts/layering.ts`;
  const to = layerOf(layers, target)?.folder ?? (target.startsWith("node:") ? NODE : target);
  if (to === from.folder || from.mayUse.includes(to)) return undefined;
  return `${file}: must not use ${target}; ${from.folder} may use ${from.mayUse.join(", ") || "nothing"}`;
}

/** Every import against the arrows. */
export function typescriptProblems(sources: Sources): string[] {
  return [...sources].flatMap(([file, source]) =>
    importsOf(source).flatMap((specifier) => {
      const target = specifier.startsWith(".") ? resolveImport(file, specifier) : specifier;
      return brokenArrow(TYPESCRIPT_LAYERS, file, target) ?? [];
    }),
  );
}

/** An index.ts is a list of what is public: code in it would have no name of its own. */
export function indexProblems(sources: Sources): string[] {
  const reExport = /export\s+(?:type\s+)?(?:\{[^}]*\}|\*(?:\s+as\s+\w+)?)\s*from\s*["'][^"']+["'];?/g;
  return [...sources].flatMap(([file, source]) =>
    posix.basename(file) === "index.ts" && withoutComments(source).replaceAll(reExport, "").trim() !== ""
      ? [`${file}: holds more than re-exports`]
      : [],
  );
}

/** Files that can't be reached from the entry points: nobody would miss them. */
export function unreachable(sources: Sources, entries: readonly string[]): string[] {
  const missing = entries
    .filter((entry) => !sources.has(entry))
    .map((entry) => `${entry}: an entry point that doesn't exist`);
  const reached = new Set<string>();
  const open = [...entries];
  for (let file = open.pop(); file !== undefined; file = open.pop()) {
    const source = sources.get(file);
    if (source === undefined || reached.has(file)) continue;
    reached.add(file);
    for (const specifier of importsOf(source)) {
      if (specifier.startsWith(".")) open.push(resolveImport(file, specifier));
    }
  }
  const dead = [...sources.keys()].filter((file) => !reached.has(file));
  return [...missing, ...dead.map((file) => `${file}: no entry point leads to it`)];
}

/** Headers are looked up as the compiler does: beside the file, in native/src, in native/include. */
function resolveInclude(sources: Sources, file: string, name: string): string {
  const places = [posix.dirname(file), NATIVE, "native/include"].map((folder) => posix.join(folder, name));
  return places.find((place) => sources.has(place)) ?? name;
}

/** Every #include against the arrows; Node's headers count as names, the system's don't. */
export function nativeProblems(sources: Sources): string[] {
  return [...sources].flatMap(([file, source]) =>
    [...withoutComments(source).matchAll(/^\s*#\s*include\s*(["<])([^">]+)[">]/gm)].flatMap(
      ([, bracket, name = ""]) => {
        if (bracket === "<" && !JAVASCRIPT_HEADERS.includes(name)) return [];
        return brokenArrow(NATIVE_LAYERS, file, resolveInclude(sources, file, name)) ?? [];
      },
    ),
  );
}
