/** States that random worlds come into, through the real protobuf encoding and back. */
import { describe, expect, it } from "vitest";
import { decodeEntries, encodeEntry, type JournaledEvent } from "../../src/control/journal-entry.js";
import { decodeSnapshot, encodeSnapshot } from "../../src/control/snapshot.js";
import type { CoordinatorState } from "../../src/membership/state.js";
import { RandomWorld, textOf } from "./random-world.js";

/** What a state can hold; a test that never sees one of these shows nothing about it. */
const PARTS: Readonly<Record<string, (state: CoordinatorState) => boolean>> = {
  "a stranger": ({ strangers }) => strangers.size > 0,
  "two rings": ({ rings }) => rings.length > 1,
  "a removal": ({ removals }) => removals.size > 0,
  "a departure": ({ departed }) => departed.length > 0,
  "a change with answers": ({ change }) => (change?.ready.size ?? 0) > 0,
  "a failed link in an answer": ({ change }) => [...(change?.ready.values() ?? [])].flat().length > 0,
  "a change with voters": ({ change }) => (change?.voters.size ?? 0) > 0,
  "a pair that can't be linked": ({ unlinkable }) => unlinkable.size > 0,
  "a report": ({ reports }) => [...reports.values()].some((ops) => ops.size > 0),
  "a stall": ({ stalls }) => stalls.size > 0,
  "a sync under way": ({ syncs }) => syncs.size > 0,
  "a revision": ({ records }) => records.size > 0,
  "a path": ({ paths }) => paths.size > 0,
  "a measurement under way": ({ measurements }) => measurements.size > 0,
  "pairs that are to be measured": ({ optimizing }) => (optimizing?.queue.length ?? 0) > 0,
  "an order on its way": ({ orders }) => orders.size > 0,
  "a detached peer": ({ peers }) => [...peers.values()].some((peer) => peer.connection === undefined),
  "an outbox": ({ peers }) => [...peers.values()].some((peer) => peer.channel.unacknowledged.length > 1),
  "each kind of call": ({ peers }) => new Set([...peers.values()].map((peer) => peer.call?.kind)).size > 3,
};

describe("a snapshot", () => {
  it("holds the whole state, whatever the state is", () => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 60; seed++) {
      let number = 0;
      const world: RandomWorld = new RandomWorld(seed, (_, nowMs) => {
        const snapshot = { number: ++number, nowMs, state: world.state };
        for (const [part, isThere] of Object.entries(PARTS)) if (isThere(world.state)) seen.add(part);
        // Every state would take minutes; neighbours are alike.
        if (number % 5 === 0) expect(textOf(decodeSnapshot(encodeSnapshot(snapshot)))).toBe(textOf(snapshot));
      });
      world.run(150);
    }
    expect([...seen].sort()).toEqual(Object.keys(PARTS).sort());
  });
});

describe("an entry", () => {
  it("holds the whole event", () => {
    const kinds = new Set<string>();
    for (let seed = 1; seed <= 20; seed++) {
      let number = 0;
      new RandomWorld(seed, (event, nowMs) => {
        const entry = { number: ++number, nowMs, event: event as JournaledEvent };
        kinds.add(event.kind === "message" ? event.message.kind : event.kind);
        expect(textOf(decodeEntries(encodeEntry(entry)))).toBe(textOf([entry]));
      }).run(150);
    }
    expect(kinds.size).toBe(21);
  });
});
