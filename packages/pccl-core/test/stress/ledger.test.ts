/** Goal: the verdict of a stress run rests on its ledger; reports that differ must not pass. Method: reports by hand. */
import { describe, expect, it } from "vitest";
import { Ledger } from "../../src/stress/ledger.js";
import type { StepReport } from "../../src/stress/messages.js";
import { type Fault, Schedule } from "../../src/stress/schedule.js";
import { durationsByFault, durationsOf } from "../../src/stress/summary.js";

function report(step: number, fields: Partial<StepReport> = {}): StepReport {
  return {
    kind: "step",
    step,
    revision: 1,
    epoch: 1,
    groupWorldSize: 2,
    hash: `hash of ${step}`,
    wrong: undefined,
    reduces: 11,
    retriedOps: 0,
    reduceMs: 10,
    ...fields,
  };
}

describe("Ledger", () => {
  it("counts each step of a group once", () => {
    const ledger = new Ledger();
    for (const step of [1, 2]) {
      for (const name of ["a", "b"]) ledger.onStep(name, 0, report(step, { retriedOps: 1 }), 100 * step);
      ledger.onStep("c", 7, report(step, { hash: "another group's" }), 100 * step);
    }
    ledger.checkComplete();
    expect(ledger).toMatchObject({ divergences: [], committedReduces: 44, retriedOps: 4 });
    expect(ledger.lastStep(7)).toBe(2);
  });

  it.each<[string, Partial<StepReport>, RegExp]>([
    ["another hash", { hash: "x" }, /^b, group 0, step 2: hash x, .*another peer had hash hash of 2/],
    ["another revision", { revision: 2 }, /^b, group 0, step 2: .*revision 2, .*revision 1/],
    ["a wrong element", { wrong: "op 3: element 5" }, /^b, step 2, epoch 1: op 3: element 5/],
  ])("calls %s a divergence", (_, fields, message) => {
    const ledger = new Ledger();
    ledger.onStep("a", 0, report(1), 1);
    ledger.onStep("a", 0, report(2), 2);
    ledger.onStep("b", 0, report(1), 2);
    ledger.onStep("b", 0, report(2, fields), 3);
    expect(ledger.divergences).toHaveLength(1);
    expect(ledger.divergences[0]).toMatch(message);
  });

  it("calls lost steps and a state that began again a divergence", () => {
    const skipping = new Ledger();
    for (const step of [1, 2, 5]) skipping.onStep("a", 0, report(step), step);
    skipping.checkComplete();
    expect(skipping.divergences).toEqual(["group 0: is at step 5, but only 3 were reported"]);
    const again = new Ledger();
    for (let step = 1; step <= 3_000; step++) again.onStep("a", 0, report(step), step);
    again.onStep("b", 0, report(1), 3_001);
    expect(again.divergences[0]).toMatch(/^b, group 0: is at step 1, the group at 3000/);
  });

  it("measures gaps by group, the one that isn't over included", () => {
    const ledger = new Ledger();
    for (const [step, atMs] of [
      [1, 100],
      [2, 150],
      [3, 900],
      [4, 950],
    ] as const) {
      ledger.onStep("a", 0, report(step), atMs);
    }
    ledger.onStep("b", 1, report(1), 950);
    expect([...ledger.gapsMs(1_000)]).toEqual([
      [0, 750],
      [1, 50],
    ]);
    expect(ledger.gapsMs(2_000).get(0)).toBe(1_050);
  });

  it("takes a loss for recovered from in the next epoch, another fault with the next step that begins", () => {
    const ledger = new Ledger();
    ledger.onStep("a", 0, report(1, { epoch: 4 }), 100);
    ledger.onStep("b", 1, report(1, { epoch: 4 }), 100);
    ledger.onFault("kill", [0], true, 110);
    ledger.onFault("stop", [0], false, 110);
    // Was under way when both happened, and didn't need the victims any more.
    ledger.onStep("a", 0, report(2, { epoch: 4 }), 115);
    ledger.onStep("b", 1, report(2, { epoch: 6 }), 120);
    expect(ledger.recoveries).toEqual([]);
    ledger.onStep("a", 0, report(3, { epoch: 5, reduceMs: 60 }), 180);
    ledger.onStep("a", 0, report(4, { epoch: 5 }), 200);
    expect(ledger.recoveries).toEqual(
      [
        { fault: "stop", ms: 70 },
        { fault: "kill", ms: 70 },
      ].sort((x, y) => x.fault.localeCompare(y.fault)),
    );
  });
});

describe("durations", () => {
  it("are given by nearest rank", () => {
    const values = Array.from({ length: 200 }, (_, i) => 200 - i);
    expect(durationsOf(values)).toEqual({ count: 200, medianMs: 100, p99Ms: 198, maxMs: 200 });
    expect(durationsOf([7])).toEqual({ count: 1, medianMs: 7, p99Ms: 7, maxMs: 7 });
    expect(durationsOf([])).toBeUndefined();
    const byFault = durationsByFault([
      { fault: "stop", ms: 5 },
      { fault: "kill", ms: 1 },
      { fault: "kill", ms: 3 },
    ]);
    expect(byFault).toMatchObject({ kill: { count: 2, maxMs: 3 }, stop: { count: 1, maxMs: 5 } });
  });
});

describe("Schedule", () => {
  const turns = (seed: number, faults: readonly Fault[]): unknown[] => {
    const schedule = new Schedule(seed, faults);
    return Array.from({ length: 200 }, () => schedule.next());
  };

  it("is the same for the same seed, and another one for another", () => {
    expect(turns(5, ["kill", "stop"])).toEqual(turns(5, ["kill", "stop"]));
    expect(turns(5, ["kill", "stop"])).not.toEqual(turns(6, ["kill", "stop"]));
  });

  it("does what it was told to, and nothing else, every half to two seconds", () => {
    const schedule = new Schedule(1, ["kill", "reset"]);
    const drawn = Array.from({ length: 500 }, () => schedule.next());
    expect([...new Set(drawn.map(({ fault }) => fault))].sort()).toEqual(["kill", "leave", "reset"]);
    expect(drawn.every(({ afterMs }) => afterMs >= 500 && afterMs < 2_000)).toBe(true);
    expect(new Schedule(1, []).next().fault).toBe("leave");
  });
});
