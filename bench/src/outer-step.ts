/**
 * One outer step without a network, of a model with many parameters: how long it takes, and how much of that is the time
 * that the memory takes to move the bytes that it must touch. `npm run bench -- outer-step [--parameters N]`
 *
 * The bytes are counted from what the algorithm has to read and write: 12 per parameter for the pseudo-gradient (two
 * arrays read, one written), 8 for the sum of one peer's contribution, 20 for Nesterov (three read, two written), 8 for
 * the model's copy, 8 to hash parameters and momentum. What the memory can do is measured with the same number of
 * threads, one, as a copy of the same size, in turn with the steps.
 */
import { parseArgs } from "node:util";
import { connect } from "@pccl/core";
import { Coordinator } from "@pccl/core/coordinator";
import { Diloco, ParameterArena } from "@pccl/core/diloco";

const BYTES_PER_PARAMETER = 12 + 8 + 20 + 8 + 8;

const { values } = parseArgs({
  options: { parameters: { type: "string", default: "100000000" }, steps: { type: "string", default: "5" } },
});
const parameters = Number(values.parameters);
const steps = Number(values.steps);

const coordinator = await Coordinator.start({ listen: "127.0.0.1:0" });
const communicator = await connect(coordinator.address);
const arena = new ParameterArena({ w: [parameters] });
const diloco = new Diloco({ communicator, parameters: arena, innerSteps: 1 });
await diloco.join();

const target = new Float32Array(parameters);
const seconds: number[] = [];
const copies: number[] = [];
const parts: { waiting: number; updating: number }[] = [];
for (let step = 0; step <= steps; step++) {
  const before = performance.now();
  target.set(diloco.parameters);
  const copied = performance.now();
  await diloco.beginStep();
  for (let i = 0; i < parameters; i += 4096) arena.data[i] = step + i;
  const start = performance.now();
  const result = await diloco.endStep();
  // The first one also makes the pages.
  if (step === 0 || result === undefined) continue;
  seconds.push((performance.now() - start) / 1000);
  copies.push((copied - before) / 1000);
  parts.push(result.seconds);
}
await communicator.close();
await coordinator.close();

const best = Math.min(...seconds);
const bytesPerSecond = (8 * parameters) / Math.min(...copies);
const bound = (BYTES_PER_PARAMETER * parameters) / bytesPerSecond;
process.stdout.write(
  `${JSON.stringify({
    parameters,
    outerStepSeconds: best,
    allSeconds: seconds,
    updatingSeconds: Math.min(...parts.map(({ updating }) => updating)),
    waitingSeconds: Math.min(...parts.map(({ waiting }) => waiting)),
    copyGigabytesPerSecond: bytesPerSecond / 1e9,
    boundSeconds: bound,
    ratio: best / bound,
  })}\n`,
);
