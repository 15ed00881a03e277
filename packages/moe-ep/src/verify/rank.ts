/** One rank of `moe-ep verify`. */
import { ExpertGroup } from "../group/expert-group.js";
import { runJob } from "../launch/rank-program.js";
import { readGoldenLayer } from "./golden-layer.js";
import { runGoldenLayer } from "./golden-run.js";
import type { VerifyJob, VerifyMessage } from "./messages.js";

await runJob<VerifyJob, VerifyMessage>(async ({ files, planners }, tell) => {
  await using group = await ExpertGroup.fromEnvironment();
  for (const file of files) {
    const golden = readGoldenLayer(file);
    for (const planner of planners) {
      await tell({ kind: "results", file, planner, results: await runGoldenLayer(group, golden, planner) });
    }
  }
});
