/** Starts the built command as a user would and looks at what it prints. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { VERSION } from "@pccl/moe-ep";
import { describe, expect, it } from "vitest";

const program = fileURLToPath(new URL("../bin/moe-ep.js", import.meta.url));
const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
};

function moeEp(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
}

describe("moe-ep", () => {
  it("prints the package's version", () => {
    expect(VERSION).toBe(manifest.version);
    expect(moeEp("--version")).toMatchObject({ status: 0, stdout: `${manifest.version}\n`, stderr: "" });
  });

  it("says in its help that there is nothing to run yet", () => {
    const { status, stdout } = moeEp("--help");
    expect(status).toBe(0);
    expect(stdout).toContain("nothing to run yet");
    expect(moeEp().stdout).toBe(stdout);
  });

  it.each(["--verbose", "train"])("refuses %s with status 2 and its help", (argument) => {
    const { status, stdout, stderr } = moeEp(argument);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(argument);
    expect(stderr).toContain("Usage:");
  });
});
