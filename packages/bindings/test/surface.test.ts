/** Goal: the addon and its TypeScript description can't drift apart. Method: compare the built addon with the sources. */
import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { loadRawAddon } from "../dist/load.js";

const readSource = async (path: string): Promise<string> =>
  await readFile(new URL(path, import.meta.url), "utf8");

/** Names of an interface's members: properties and methods at the first level of indentation. */
async function membersOf(name: string): Promise<string[]> {
  const body = new RegExp(`^export interface ${name} \\{\\n(.*?)^\\}`, "ms").exec(
    await readSource("../src/addon.ts"),
  )?.[1];
  return [...(body ?? "").matchAll(/^ {2}(?:readonly )?(\w+)[(:]/gm)]
    .map(([, member]) => member as string)
    .sort();
}

describe("the addon", () => {
  it("exports what interface Addon describes", async () => {
    expect(Object.keys(loadRawAddon()).sort()).toEqual(await membersOf("Addon"));
  });

  it("gives engines the members that interface Engine describes", async () => {
    const engine = loadRawAddon().createEngine({ host: "127.0.0.1", port: 0 }, () => {});
    const members = Object.getOwnPropertyNames(Object.getPrototypeOf(engine)).filter(
      (name) => name !== "constructor",
    );
    expect(members.sort()).toEqual(await membersOf("Engine"));
    const { constructor } = engine as unknown as { constructor: new () => unknown };
    expect(() => new constructor()).toThrow(expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" }));
    engine.close();
  });

  it("uses codes of the error catalogue only", async () => {
    const catalogue = await readSource("../../pccl-core/src/base/error-catalogue.ts");
    const { errorCodes } = loadRawAddon();
    expect(errorCodes.length).toBeGreaterThan(10);
    expect(new Set(errorCodes).size).toBe(errorCodes.length);
    for (const code of errorCodes) expect(catalogue).toContain(`  ${code}: {`);
  });
});

describe("the loader", () => {
  it("can be imported without a built addon, and says what to do when it is used", async () => {
    const root = await mkdtemp(join(tmpdir(), "pccl-bindings-"));
    try {
      const dist = join(root, "packages", "bindings", "dist");
      await cp(new URL("../dist/", import.meta.url), dist, { recursive: true });
      await cp(new URL("../package.json", import.meta.url), join(dist, "..", "package.json"));
      const program = `
        const { loadAddon } = await import(${JSON.stringify(pathToFileURL(join(dist, "index.js")).href)});
        try { loadAddon(); } catch ({ code, message }) { console.log(JSON.stringify({ code, message })); }`;
      const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program]);
      const { code, message } = JSON.parse(stdout) as { code: string; message: string };
      expect(code).toBe("ERR_PCCL_NATIVE_LOAD");
      expect(message).toContain("pccl.node");
      expect(message).toContain("npm run bootstrap");
    } finally {
      await rm(root, { recursive: true });
    }
  });
});
