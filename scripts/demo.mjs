/** `npm run demo [-- options]`: sets up what is missing, then several peers train one model. */
import { bootstrapOrExit } from "./bootstrap.mjs";
import { runProgram } from "./lib/run-program.mjs";

await bootstrapOrExit();
await runProgram("examples/diloco-language-model/dist/main.js", process.argv.slice(2));
