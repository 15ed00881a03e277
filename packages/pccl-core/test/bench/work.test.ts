/**
 * Goal: what a benchmark expects is what the library gives, exactly, for every element type and reduction and for every
 * collective; and a result that isn't is found on every peer that has it. Method: peers in this process, of which one
 * contributes something else where an error is to be found.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { COLLECTIVE_NAMES, COLLECTIVES, type CollectiveName } from "../../src/bench/collectives.js";
import { REDUCE_OPS } from "../../src/bench/contributions.js";
import type { BenchJob } from "../../src/bench/job.js";
import { DTYPES } from "../../src/bench/pattern.js";
import { makeWork, usableBytes, type Work } from "../../src/bench/work.js";
import { LocalWorld } from "../e2e/local-world.js";

const PEERS = 3;
const BYTES = 200_000;

let world: LocalWorld;
beforeAll(async () => {
  world = await LocalWorld.start(PEERS);
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

const MOVING = COLLECTIVE_NAMES.filter((name) => name !== "barrier");

function jobOf(collective: CollectiveName, further: Partial<BenchJob> = {}): BenchJob {
  return {
    collective,
    world: PEERS,
    sizesBytes: [BYTES],
    dtype: "f32",
    op: "sum",
    quantize: undefined,
    place: COLLECTIVES[collective].places[0] as BenchJob["place"],
    transport: "auto",
    connectionsPerPeer: undefined,
    congestionControl: undefined,
    warmUpSeconds: 0,
    iterations: undefined,
    skew: undefined,
    memory: "array",
    concurrency: 1,
    ...further,
  };
}

function worksOf(job: BenchJob): Work[] {
  return world.peers.map((peer) => makeWork(peer, job, usableBytes(job, BYTES), 0));
}

/** What each peer finds wrong after one run of what those at `filled` have filled in. */
async function runOnce(
  works: readonly Work[],
  filled: (rank: number) => boolean,
): Promise<(string | undefined)[]> {
  for (const [index, work] of works.entries()) {
    if (filled((world.peers[index] as { rank: number }).rank)) work.fill();
  }
  await Promise.all(works.map((work) => work.run()));
  return works.map((work) => work.check());
}

const RIGHT = Array.from({ length: PEERS }, () => undefined);

describe.each(DTYPES)("all-reduce of %s", (dtype) => {
  it.each(REDUCE_OPS)("gives what %s is expected to, in place and out of place", async (op) => {
    for (const place of ["in", "out"] as const) {
      const works = worksOf(jobOf("all-reduce", { dtype, op, place }));
      expect(await runOnce(works, () => true)).toEqual(RIGHT);
    }
  });

  it.each(REDUCE_OPS)("can be applied in place as often as one likes, with %s", async (op) => {
    const works = worksOf(jobOf("all-reduce", { dtype, op }));
    for (const work of works) work.rest?.();
    const difference = works.map((work) => work.check());
    for (let i = 0; i < 3; i++) await Promise.all(works.map((work) => work.run()));
    expect(works.map((work) => work.check())).toEqual(difference);
  });
});

describe.each(MOVING)("%s", (collective) => {
  it("gives what is expected", async () => {
    for (const place of COLLECTIVES[collective].places) {
      expect(await runOnce(worksOf(jobOf(collective, { place })), () => true)).toEqual(RIGHT);
    }
  });

  it("is found wrong when a rank's data isn't what it should be", async () => {
    for (let silent = 0; silent < PEERS; silent++) {
      const found = await runOnce(worksOf(jobOf(collective)), (rank) => rank !== silent);
      // Of a broadcast and a scatter only rank 0's data counts.
      const counts = silent === 0 || (collective !== "broadcast" && collective !== "scatter");
      expect(found.some((wrong) => wrong !== undefined)).toBe(counts);
    }
  });
});

describe.each(["u8", "i8", "i4", "fp8", "bf16", "f16"] as const)("an all-reduce sent as %s", (quantize) => {
  it("gives what is expected, with the same bits on all", async () => {
    for (const op of ["sum", "avg", "max", "min"] as const) {
      const works = worksOf(jobOf("all-reduce", { quantize, op }));
      expect(await runOnce(works, () => true)).toEqual(RIGHT);
      expect(new Set(works.map((work) => work.digest?.())).size).toBe(1);
    }
    expect(await runOnce(worksOf(jobOf("reduce-scatter", { quantize })), () => true)).toEqual(RIGHT);
  });

  it("is found wrong when a rank's data isn't what it should be", async () => {
    const found = await runOnce(worksOf(jobOf("all-reduce", { quantize })), (rank) => rank !== 1);
    expect(found.every((wrong) => wrong?.includes("further than"))).toBe(true);
  });
});

describe("all-to-all with counts", () => {
  it.each([1 / PEERS, 0.8, 1])("gives what is expected with a share of %d for rank 0", async (skew) => {
    expect(await runOnce(worksOf(jobOf("all-to-all", { skew })), () => true)).toEqual(RIGHT);
  });
});

describe("usableBytes", () => {
  it.each([
    [jobOf("all-reduce"), 4_099, 4_096],
    [jobOf("all-reduce", { dtype: "f64", concurrency: 3 }), 4_099, 4_080],
    [jobOf("all-gather"), 4_099, 4_092],
    [jobOf("all-to-all", { dtype: "u8", world: 7 }), 4_099, 4_095],
    [jobOf("gather"), 11, 0],
  ])("rounds down to whole blocks of whole elements (%#)", (job, bytes, usable) => {
    expect(usableBytes(job, bytes)).toBe(usable);
  });
});
