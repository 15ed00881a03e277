// Copies the wire contract into the package, so that it is found the same way in the repository and when packed,
// and generates the TypeScript types of its messages. Runs before tsc; writes only when something changed, so
// that an incremental build stays one.
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const packageFolder = dirname(dirname(fileURLToPath(import.meta.url)));
const contract = join(packageFolder, "../../proto");

function files(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)));
}

/** Makes `target` hold the same files as `source`, leaving equal files untouched. */
function mirror(source, target) {
  mkdirSync(target, { recursive: true });
  const wanted = files(source);
  for (const file of files(target)) if (!wanted.includes(file)) rmSync(join(target, file));
  for (const file of wanted) {
    const [from, to] = [join(source, file), join(target, file)];
    if (!existsSync(to) || !readFileSync(to).equals(readFileSync(from))) cpSync(from, to);
  }
}

const copy = join(packageFolder, "proto");
// In a packed package there is no ../../proto, and the copy is already there.
if (existsSync(contract)) mirror(contract, copy);

const loaderFolder = dirname(createRequire(import.meta.url).resolve("@grpc/proto-loader/package.json"));
const scratch = mkdtempSync(join(tmpdir(), "pccl-generate-"));
try {
  execFileSync(
    process.execPath,
    [
      join(loaderFolder, "build/bin/proto-loader-gen-types.js"),
      // The same choices as PROTO_OPTIONS in src/control/service.ts.
      ...["--longs=String", "--enums=String", "--defaults", "--oneofs"],
      ...["--grpcLib=@grpc/grpc-js", "--importFileExtension=.js", "-O", scratch, "-I", copy, "--"],
      "pccl/v1/membership.proto",
      "pccl/v1/journal.proto",
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  // The generator notes where this machine keeps the .proto; that is nobody's business in a package.
  for (const file of files(scratch)) {
    const path = join(scratch, file);
    writeFileSync(path, readFileSync(path, "utf8").replace(/^\/\/ Original file: .*\n/gm, ""));
  }
  mirror(scratch, join(packageFolder, "src/control/generated"));
} finally {
  rmSync(scratch, { recursive: true });
}
