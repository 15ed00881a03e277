/**
 * `npm run bench:peers [-- options]`: our collectives beside those of Open MPI, MPICH, Gloo and a bare ring of sockets,
 * by turns. What isn't installed is installed if this process may, and else left out with the reason.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { bootstrapOrExit } from "./bootstrap.mjs";
import { ROOT } from "./lib/command.mjs";
import { withLock } from "./lib/lock.mjs";
import { buildPeerPrograms } from "./lib/peer-programs.mjs";
import { runProgram } from "./lib/run-program.mjs";

await bootstrapOrExit();
const programs = join(ROOT, "build", "peers.json");
await withLock("peers", async () => {
  writeFileSync(programs, JSON.stringify(await buildPeerPrograms()));
});
await runProgram("bench/dist/peers.js", ["--programs", programs, ...process.argv.slice(2)]);
