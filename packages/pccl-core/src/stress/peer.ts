/**
 * One peer of a stress run, a process of its own: joins, and then votes, syncs and reduces until it is told to leave.
 * Whatever it does is told to the run, which may kill, stop or cut it at any moment.
 */
import { PcclError } from "../base/errors.js";
import type { Communicator } from "../peer/communicator.js";
import { connect } from "../peer/connect.js";
import { SharedState } from "../peer/shared-state.js";
import { Exchange, EXCHANGE_OPS_MAX } from "./exchange.js";
import type { PeerConfig, PeerMessage, Phase } from "./messages.js";
import { Workload } from "./workload.js";

const config = JSON.parse(process.argv[2] as string) as PeerConfig;
const leaving = new AbortController();

function tell(message: PeerMessage): void {
  if (process.connected) process.send?.(message, undefined, {}, () => undefined);
}

function enter(phase: Phase): void {
  tell({ kind: "phase", phase });
}

async function step(comm: Communicator, load: Workload, state: SharedState): Promise<void> {
  enter("exchange");
  const exchanged = await new Exchange(comm, load.steps[0] as number).run();
  enter("allReduceAll");
  const startMs = performance.now();
  const { results, retriedOps } = await comm.allReduceAll(load.calls(comm.peerId), { maxInFlight: 8 });
  const reduceMs = performance.now() - startMs;
  const wrong = exchanged.wrong ?? load.wrong(results.map(({ worldSize }) => worldSize));
  load.fold();
  tell({
    kind: "step",
    step: load.steps[0] as number,
    revision: state.revision,
    epoch: comm.epoch,
    groupWorldSize: comm.groupWorldSize,
    hash: load.hash(),
    wrong,
    reduces: results.length,
    retriedOps: retriedOps + exchanged.retriedOps,
    reduceMs,
  });
}

async function sync(comm: Communicator, state: SharedState): Promise<void> {
  for (;;) {
    enter("syncSharedState");
    try {
      await comm.syncSharedState(state);
      return;
    } catch (error) {
      if (!(error instanceof PcclError && error.retryable)) throw error;
    }
  }
}

async function work(comm: Communicator): Promise<void> {
  const load = new Workload();
  const state = new SharedState({ weights: load.weights, steps: load.steps }, { revision: 0 });
  // Whether to sync must be the same decision on all peers: it follows from answers that all of them get.
  let syncDue = true;
  let syncedSteps = 0;
  while (!leaving.signal.aborted) {
    if (syncDue) {
      // A revision is the content between two syncs, and a newcomer has none of the group's.
      if (load.steps[0] !== syncedSteps) state.revision++;
      await sync(comm, state);
      syncedSteps = load.steps[0] as number;
    }
    await step(comm, load, state);
    enter("hasPendingPeers");
    syncDue = await comm.hasPendingPeers();
    if (syncDue) {
      enter("updateTopology");
      syncDue = await comm.updateTopology();
    }
  }
}

// Ctrl-C in a terminal reaches this process too; what it means is for the run to say.
process.on("SIGINT", () => undefined);
process.on("message", () => leaving.abort(new Error("told to leave")));
let over = false;
process.on("disconnect", () => {
  if (!over) process.exit(1);
});
// The run may be gone already: that was told while this program was loaded.
if (!process.connected) process.emit("disconnect");
try {
  enter("connect");
  const comm = await connect(config.coordinator, {
    group: config.group,
    connectionsPerPeer: config.connectionsPerPeer,
    maxOpsInFlight: EXCHANGE_OPS_MAX,
    connectTimeoutMs: 60_000,
    signal: leaving.signal,
    onPending: () => enter("admission"),
  });
  try {
    tell({ kind: "admitted", peerId: comm.peerId });
    await work(comm);
  } finally {
    enter("close");
    await comm.close();
  }
} catch (error) {
  if (error !== leaving.signal.reason) {
    const code = error instanceof PcclError ? error.code : "";
    tell({ kind: "ended", code, message: error instanceof Error ? error.message : String(error) });
  }
}
// From here on the process has to end by itself: if it doesn't, something was left open.
over = true;
process.disconnect();
