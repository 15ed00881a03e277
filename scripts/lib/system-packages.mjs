/** The system's part of the set-up: a compiler, CMake and three C++ libraries, from Debian's own packages. */
import { existsSync } from "node:fs";
import { onPath, run } from "./command.mjs";

const INCLUDE_FOLDERS = ["/usr/include", "/usr/local/include"];

/** @param {string} header */
export function hasHeader(header) {
  return INCLUDE_FOLDERS.some((folder) => existsSync(`${folder}/${header}`));
}

const REQUIRED = [
  { name: "cmake", present: () => onPath("cmake") },
  { name: "ninja-build", present: () => onPath("ninja") },
  { name: "g++", present: () => onPath("g++") || onPath("c++") },
  { name: "libgtest-dev", present: () => hasHeader("gtest/gtest.h") },
  { name: "libhwy-dev", present: () => hasHeader("hwy/highway.h") },
  { name: "libxxhash-dev", present: () => hasHeader("xxhash.h") },
];

/** Makes rebuilds quick and nothing else, so the set-up goes on without it. */
const OPTIONAL = ["ccache"];

/** @returns {string[]} */
export function missingPackages() {
  return REQUIRED.filter(({ present }) => !present()).map(({ name }) => name);
}

/** @param {readonly string[]} packages */
function aptGet(...packages) {
  return run(["apt-get", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3", ...packages], {
    env: { DEBIAN_FRONTEND: "noninteractive" },
  });
}

/**
 * Installs the named packages where this process may, and otherwise says how to.
 * @param {readonly string[]} packages
 */
export async function installPackages(packages) {
  const line = `apt-get update && apt-get install --yes --no-install-recommends ${packages.join(" ")}`;
  if (!onPath("apt-get")) {
    throw new Error(
      `These tools are missing (by their Debian names): ${packages.join(", ")}. ` +
        "Install them with this system's package manager and run again.",
    );
  }
  if (process.getuid?.() !== 0) {
    throw new Error(
      `Debian packages are missing. Run this line, then run again:\n\n    sudo sh -c '${line}'\n`,
    );
  }
  const install = ["install", "--yes", "--no-install-recommends"];
  // The lists may be absent or out of date: fetch them only when an install fails.
  let result = await aptGet(...install, ...packages, ...OPTIONAL);
  if (result.code !== 0) {
    await aptGet("update");
    result = await aptGet(...install, ...packages, ...OPTIONAL);
  }
  if (result.code !== 0) result = await aptGet(...install, ...packages);
  if (result.code !== 0)
    throw new Error(`Debian packages couldn't be installed with: ${line}\n\n${result.output}`);
}
