/**
 * Holds every source file of the repository against the layers, and first shows on small samples that each
 * rule catches what it is there for.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import {
  importsOf,
  indexProblems,
  nativeProblems,
  type Sources,
  TYPESCRIPT_LAYERS,
  typescriptProblems,
  unreachable,
} from "./layering.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const core = "packages/pccl-core/src";

function read(folder: string, suffix: RegExp): Sources {
  const files = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => suffix.test(file) && !/(^|\/)(node_modules|dist|build|generated)\//.test(file))
    .map((file) => posix.join(folder, file));
  return new Map(files.map((file) => [file, readFileSync(join(root, file), "utf8")]));
}

function merge(...sources: readonly Sources[]): Sources {
  return new Map(sources.flatMap((part) => [...part]));
}

/** Source files that a package's package.json makes public, as modules or as programs. */
function entriesOf(folder: string): string[] {
  const manifest = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8")) as {
    exports?: Record<string, { default: string }>;
    bin?: Record<string, string>;
  };
  const built = [
    ...Object.values(manifest.exports ?? {}).map((target) => target.default),
    ...Object.values(manifest.bin ?? {}).flatMap((program) =>
      importsOf(readFileSync(join(root, folder, program), "utf8")).map((specifier) =>
        posix.join("bin", specifier),
      ),
    ),
  ];
  return built.map((file) => posix.join(folder, file.replace("dist/", "src/").replace(/\.js$/, ".ts")));
}

const PACKAGES = ["packages/bindings", "packages/pccl-core", "packages/moe-ep"];
const PROGRAMS = ["examples/diloco-language-model", "examples/diloco-mnist", "bench"];

describe("the repository", () => {
  const typescript = merge(...[...PACKAGES, ...PROGRAMS].map((folder) => read(`${folder}/src`, /\.ts$/)));
  const native = merge(read("native/src", /\.(h|cc)$/), read("native/include", /\.h$/));

  it("has files in every layer of TypeScript, so that no rule has lost its folder", () => {
    const empty = TYPESCRIPT_LAYERS.map(({ folder }) => folder).filter(
      (folder) =>
        !folder.endsWith("/generated") &&
        ![...typescript.keys()].some((file) => file.startsWith(`${folder}/`)),
    );
    expect(empty).toEqual([]);
  });

  it("keeps TypeScript's arrows pointing down", () => {
    expect(typescriptProblems(typescript)).toEqual([]);
  });

  it("keeps C++'s arrows pointing down", () => {
    expect(native.size).toBeGreaterThan(0);
    expect(nativeProblems(native)).toEqual([]);
  });

  it("holds only re-exports in index.ts files", () => {
    expect(indexProblems(typescript)).toEqual([]);
  });

  it.each(PACKAGES)("has no file in %s that nobody imports", (folder) => {
    // The simulator is a program for tests: they are its entry points.
    const simulator = [...read(`${folder}/test`, /\.ts$/)]
      .flatMap(([file, source]) =>
        importsOf(source).map((specifier) => posix.join(posix.dirname(file), specifier)),
      )
      .filter((file) => file.startsWith(`${core}/sim/`))
      .map((file) => file.replace(/\.js$/, ".ts"));
    expect(unreachable(read(`${folder}/src`, /\.ts$/), [...entriesOf(folder), ...simulator])).toEqual([]);
  });

  it.each([
    ["examples/diloco-language-model/src", ["main.ts"]],
    ["examples/diloco-mnist/src", ["main.ts", "compare.ts"]],
  ])("has no file in %s that nobody imports", (folder, programs) => {
    const entries = programs.map((program) => `${folder}/${program}`);
    expect(unreachable(read(folder, /\.ts$/), entries)).toEqual([]);
  });

  it("compiles every C++ file", () => {
    const lists = merge(read("native", /CMakeLists\.txt$/));
    const listed = new Set(
      [...lists].flatMap(([file, text]) =>
        [...text.matchAll(/[\w/.]+\.cc\b/g)].map(([name]) => posix.join(posix.dirname(file), name)),
      ),
    );
    expect([...read("native", /\.cc$/).keys()].filter((file) => !listed.has(file))).toEqual([]);
  });
});

describe("importsOf", () => {
  it("finds every form", () => {
    const source = `
      import a from "./a.js";
      import type { B } from './b.js';
      import {
        c,
        type D,
      } from "./c.js";
      import "./d.js";
      export * from "./e.js";
      export type { F } from "./f.js";
      const g = await import("./g.js");
      type H = import("./h.js").H;
      new Worker(new URL("./i.js", import.meta.url));
    `;
    const names = importsOf(source).map((specifier) => specifier.slice(2, 3));
    expect(names.sort().join("")).toBe("abcdefghi");
  });

  it("isn't fooled by comments, strings, regular expressions and data files", () => {
    const source = `
      // import a from "./a.js";
      /** @example import { b } from "./b.js"; */
      const c = "/*";
      const d = /["'/*]/.test(c) ? 1 / 2 : 3 // 4;
      ;
      const text = \`// \${c}\`;
      Array.from("./e.js");
      new URL("../../proto/", import.meta.url);
      import last from "./z.js";
      const end = "*/";
    `;
    expect(importsOf(source)).toEqual(["./z.js"]);
  });
});

describe("the rules catch", () => {
  const broken: readonly [string, string, string][] = [
    ["a pure folder that reads the clock of Node", `${core}/membership/a.ts`, 'import "node:timers";'],
    ["base that imports upwards", `${core}/base/a.ts`, 'import { b } from "../membership/b.js";'],
    ["a type-only import upwards", `${core}/base/a.ts`, 'import type { B } from "../peer/b.js";'],
    ["control that knows of peers", `${core}/control/a.ts`, 'export * from "../peer/b.js";'],
    ["gRPC outside control", `${core}/peer/a.ts`, 'import { Server } from "@grpc/grpc-js";'],
    [
      "generated files outside control",
      `${core}/peer/a.ts`,
      'import { m } from "../control/generated/m.js";',
    ],
    [
      "the addon where nothing native is needed",
      `${core}/testing/a.ts`,
      'import { loadAddon } from "@pccl/bindings";',
    ],
    [
      "a worker program of a higher layer",
      `${core}/control/a.ts`,
      'new URL("../peer/w.js", import.meta.url);',
    ],
    ["a command that moves tensors", `${core}/cli/a.ts`, 'await import("../peer/communicator.js");'],
    [
      "an example that looks inside a package",
      "bench/src/a.ts",
      'import "../../packages/pccl-core/src/peer/b.js";',
    ],
    ["an inner module of the public package", "bench/src/a.ts", 'import "@pccl/core/dist/peer/b.js";'],
    ["bindings that know of core", "packages/bindings/src/a.ts", 'import "@pccl/core";'],
    ["a folder without a layer", "packages/other/src/a.ts", 'import "node:fs";'],
  ];
  it.each(broken)("%s", (_, file, source) => {
    expect(typescriptProblems(new Map([[file, source]]))).toHaveLength(1);
  });

  it("nothing in a file that keeps them", () => {
    const source = 'import { once } from "node:events"; import "./c.js"; import "../membership/b.js";';
    expect(typescriptProblems(new Map([[`${core}/peer/a.ts`, source]]))).toEqual([]);
  });

  it("code in an index.ts", () => {
    const good = '/** Doc. */\nexport { a } from "./a.js";\nexport type * from "./b.js";\n';
    expect(indexProblems(new Map([["x/index.ts", good]]))).toEqual([]);
    expect(indexProblems(new Map([["x/index.ts", `${good}export const c = 1;`]]))).toHaveLength(1);
  });

  it("files that nobody imports, and entry points that are gone", () => {
    const sources = new Map([
      ["x/index.ts", 'export { a } from "./a.js";'],
      ["x/a.ts", 'new URL("./worker.js", import.meta.url);'],
      ["x/worker.ts", ""],
      ["x/dead.ts", 'import "./a.js";'],
    ]);
    expect(unreachable(sources, ["x/index.ts"])).toEqual(["x/dead.ts: no entry point leads to it"]);
    expect(unreachable(sources, ["x/dead.ts", "x/gone.ts"])).toHaveLength(2);
  });

  it("C++ that includes upwards, and Node's headers outside node/", () => {
    const sources = new Map([
      ["native/include/pccl/engine.h", "#include <vector>"],
      ["native/src/base/check.h", "// #include <napi.h>"],
      ["native/src/transport/link.h", '#include "base/check.h"\n#include "pccl/engine.h"\n#include <vector>'],
      ["native/src/node/addon.cc", '#include <napi.h>\n#include "base/check.h"'],
    ]);
    expect(nativeProblems(sources)).toEqual([]);
    const bad = (file: string, source: string): string[] =>
      nativeProblems(new Map([...sources, [file, source]]));
    expect(bad("native/src/base/a.cc", '#include "transport/link.h"')).toHaveLength(1);
    expect(bad("native/src/transport/b.cc", "  # include <napi.h>")).toHaveLength(1);
    expect(bad("native/src/base/c.cc", '#include "../transport/link.h"')).toHaveLength(1);
    expect(bad("native/include/pccl/d.h", '#include "base/check.h"')).toHaveLength(1);
    expect(bad("native/src/hash/e.cc", '#include "hash/gone.h"')).toHaveLength(1);
  });
});
