/** Elections of shared state: which content wins, who fetches what from whom, and who is refused alone. */
import { describe, expect, it } from "vitest";
import { elect, type Election, type Offer, type SyncRecord } from "../../src/membership/election.js";
import type { StateEntry, SyncStrategy } from "../../src/membership/messages.js";

/** Tensors by name, each with a letter for its content; a name with ~ may differ. */
function entries(contents: Record<string, string>, count = 4, dtype = "f32"): StateEntry[] {
  return Object.entries(contents).map(([name, letter]) => ({
    name,
    dtype,
    count,
    hash: letter.repeat(32),
    allowInequality: name.startsWith("~"),
  }));
}

function offer(
  peerId: number,
  revision: number,
  contents: Record<string, string>,
  strategy: SyncStrategy = "enforce-popular",
): Offer {
  return { peerId, revision, strategy, entries: entries(contents) };
}

/** Who fetches what from whom, in short. */
function plansOf({ plans }: Election): Record<number, string> {
  return Object.fromEntries(
    plans.map(({ peerId, sources, fetches }) => [
      peerId,
      fetches.length === 0
        ? ""
        : `${fetches.map(({ name, hash }) => name + hash[0]).join()} from ${sources.join()}`,
    ]),
  );
}

function refusalsOf({ refusals }: Election): Record<number, string> {
  return Object.fromEntries(
    refusals.map(({ peerId, code }) => [peerId, code.replace("ERR_PCCL_STATE_", "")]),
  );
}

const held = (...ids: number[]): SyncRecord => ({ revision: 5, holders: new Set(ids) });

describe("content", () => {
  it("is the most frequent one, ties by ring order", () => {
    const popular = elect(
      [offer(1, 0, { w: "a" }), offer(2, 0, { w: "b" }), offer(3, 0, { w: "b" })],
      undefined,
    );
    expect(plansOf(popular)).toEqual({ 1: "wb from 2,3", 2: "", 3: "" });
    const tie = elect([offer(3, 0, { w: "c" }), offer(1, 0, { w: "a" })], undefined);
    expect(plansOf(tie)).toEqual({ 3: "", 1: "wc from 3" });
  });

  it("is of the highest revision before it is frequent", () => {
    const offers = [offer(1, 3, { w: "a" }), offer(2, 3, { w: "a" }), offer(3, 4, { w: "b" })];
    const election = elect(offers, undefined);
    expect(election).toMatchObject({ revision: 4, refusals: [] });
    expect(plansOf(election)).toEqual({ 1: "wb from 3", 2: "wb from 3", 3: "" });
  });

  it("is a holder's while one lives, however many newcomers agree", () => {
    const newcomers = [2, 3, 4].map((id) => offer(id, 6, { w: "n" }));
    const election = elect([...newcomers, offer(1, 6, { w: "a" })], held(1, 99));
    expect(plansOf(election)).toEqual({ 1: "", 2: "wa from 1", 3: "wa from 1", 4: "wa from 1" });
  });

  it("doesn't depend on the order of the tensors", () => {
    const offers = [offer(1, 0, { v: "1", w: "a" }), offer(2, 0, { w: "a", v: "1" })];
    expect(plansOf(elect(offers, undefined))).toEqual({ 1: "", 2: "" });
  });

  it("may differ where all say so, and is given to who comes from an older revision or holds none", () => {
    const apart = [offer(1, 5, { w: "a", "~m": "1" }), offer(2, 5, { w: "a", "~m": "2" })];
    expect(plansOf(elect(apart, held(1, 2)))).toEqual({ 1: "", 2: "" });
    expect(plansOf(elect([...apart, offer(3, 5, { w: "a", "~m": "3" })], held(1, 2)))).toEqual({
      1: "",
      2: "",
      3: "~m1 from 1,2",
    });
    const behind = [offer(1, 6, { w: "b", "~m": "1" }), offer(2, 5, { w: "a", "~m": "2" })];
    expect(plansOf(elect(behind, held(1, 2)))).toEqual({ 1: "", 2: "wb,~m1 from 1" });
  });
});

describe("plans", () => {
  it("name all who have it and all who fetch it, each from another place on", () => {
    const same = { v: "1", w: "a" };
    const offers = [
      offer(1, 5, same),
      offer(2, 5, same),
      ...[3, 4, 5].map((id) => offer(id, 0, { w: "x", v: "1" })),
    ];
    const { plans } = elect(offers, held(1, 2));
    expect(plans.map(({ sources, helpers, share, shares }) => [sources, helpers, share, shares])).toEqual([
      [[], [], 0, 1],
      [[], [], 0, 1],
      [[1, 2], [4, 5], 0, 3],
      [[2, 1], [5, 3], 1, 3],
      [[1, 2], [3, 4], 2, 3],
    ]);
    expect(plans[2]?.fetches).toEqual([{ name: "w", hash: "a".repeat(32) }]);
  });

  it("are bounded in large groups", () => {
    const offers = Array.from({ length: 100 }, (_, i) => offer(i + 1, 0, { w: i % 2 === 0 ? "a" : "b" }));
    for (const { fetches, sources, helpers } of elect(offers, undefined).plans) {
      if (fetches.length === 0) continue;
      expect(new Set(sources).size).toBe(16);
      expect(new Set(helpers).size).toBe(16);
    }
  });
});

describe("faults", () => {
  it.each<[string, StateEntry[], RegExp]>([
    ["a missing tensor", entries({ v: "1" }), /peer 1 has tensor "w", peer 3 doesn't/],
    ["a tensor too many", entries({ v: "1", w: "a", x: "2" }), /peer 3 has tensor "x", peer 1 doesn't/],
    ["another length", entries({ v: "1", w: "a" }, 5), /"v" has 5 × f32 on peer 3, 4 × f32 on peer 1/],
    ["another type", entries({ v: "1", w: "a" }, 4, "f64"), /"v" has 4 × f64 on peer 3, 4 × f32 on peer 1/],
    [
      "other tensors that may differ",
      entries({ v: "1", w: "a" }).map((entry) => ({ ...entry, allowInequality: true })),
      /"v" has 4 × f32, may differ on peer 3/,
    ],
  ])("refuse %s alone, by name", (_, other, reason) => {
    const offers = [1, 2].map((id) => offer(id, 0, { v: "1", w: "a" }));
    const election = elect([...offers, { ...offer(3, 0, {}), entries: other }], undefined);
    expect(election.refusals).toMatchObject([
      { peerId: 3, code: "ERR_PCCL_STATE_MISMATCH", reason: expect.stringMatching(reason) },
    ]);
    expect(plansOf(election)).toEqual({ 1: "", 2: "" });
  });

  it("refuse both of two layouts if nothing tells which one is right, but not a holder's", () => {
    const offers = [offer(1, 5, { v: "1" }), offer(2, 5, { w: "1" })];
    expect(refusalsOf(elect(offers, undefined))).toEqual({ 1: "MISMATCH", 2: "MISMATCH" });
    expect(refusalsOf(elect(offers, held(2)))).toEqual({ 1: "MISMATCH" });
    expect(plansOf(elect(offers, held(2)))).toEqual({ 2: "" });
  });

  it("names four tensors and counts the others", () => {
    const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`t${i}`, "1"]));
    const election = elect([offer(1, 0, many), offer(2, 0, many), offer(3, 0, { t0: "1" })], undefined);
    expect(election.refusals[0]?.reason).toMatch(/"t1".*"t4".*and 25 more\.$/);
  });

  it.each([
    ["a holder that skips", 1, 7],
    ["a holder that goes back", 1, 4],
    ["a newcomer that is ahead", 3, 7],
  ])("refuse %s alone, by name", (_, offender, revision) => {
    const offers = [1, 2, 3].map((id) => offer(id, id === offender ? revision : 6, { w: "a" }));
    const election = elect(offers, held(1, 2));
    expect(election.refusals).toMatchObject([
      {
        peerId: offender,
        code: "ERR_PCCL_STATE_REVISION",
        reason: expect.stringMatching(`peer ${offender} offers revision ${revision}.*5 or 6`),
      },
    ]);
    expect(election).toMatchObject({ revision: 6, plans: { length: 2 } });
  });

  it("refuse all when the only holder is at fault, and say that it is", () => {
    const election = elect([offer(1, 7, { w: "a" }), offer(2, 5, { w: "a" })], held(1));
    expect(refusalsOf(election)).toEqual({ 1: "REVISION", 2: "REVISION" });
    expect(election.refusals[1]?.reason).toMatch(/only they could give it: peer 1 offers revision 7/);
    expect(election.plans).toEqual([]);
  });

  it("refuse every other strategy beside enforce-popular", () => {
    const offers = [
      offer(1, 0, { w: "a" }, "receive-only"),
      offer(2, 0, { w: "b" }),
      offer(3, 0, { w: "c" }, "send-only"),
    ];
    expect(refusalsOf(elect(offers, undefined))).toEqual({ 1: "STRATEGY", 3: "STRATEGY" });
    expect(plansOf(elect(offers, undefined))).toEqual({ 2: "" });
  });

  it("refuse those who all only receive", () => {
    for (const record of [undefined, held(1)]) {
      const offers = [1, 2].map((id) => offer(id, 5, { w: "a" }, "receive-only"));
      expect(refusalsOf(elect(offers, record))).toEqual({ 1: "STRATEGY", 2: "STRATEGY" });
    }
  });

  it("let those who only receive take what others only send", () => {
    const offers = [
      offer(1, 0, { w: "a" }, "receive-only"),
      offer(2, 0, { w: "b" }, "send-only"),
      offer(3, 0, { w: "b" }, "send-only"),
      offer(4, 0, { w: "c" }, "send-only"),
    ];
    expect(refusalsOf(elect(offers, undefined))).toEqual({ 4: "MISMATCH" });
    expect(plansOf(elect(offers, undefined))).toEqual({ 1: "wb from 2,3", 2: "", 3: "" });
  });

  it("refuse both of two who insist on different contents, and who waits for one of them", () => {
    const offers = [
      offer(1, 0, { v: "1", w: "a" }, "send-only"),
      offer(2, 0, { v: "1", w: "b" }, "send-only"),
      offer(3, 0, { v: "1", w: "c" }, "receive-only"),
    ];
    const election = elect(offers, undefined);
    expect(refusalsOf(election)).toEqual({ 1: "MISMATCH", 2: "MISMATCH", 3: "MISMATCH" });
    expect(election.refusals[0]?.reason).toMatch(/peers 1 and 2 insist on different contents of tensor "w"/);
  });
});

describe("without a holder", () => {
  it("refuses all until somebody seeds the group, at any revision", () => {
    const offers = [offer(1, 0, { w: "a" }), offer(2, 3, { w: "b" })];
    const lost = elect(offers, held(99));
    expect(refusalsOf(lost)).toEqual({ 1: "LOST", 2: "LOST" });
    expect(lost.refusals[0]?.reason).toMatch(/revision 5/);
    const seeded = elect([offer(1, 0, { w: "a" }, "seed"), offer(2, 3, { w: "b" })], held(99));
    expect(seeded).toMatchObject({ revision: 0, refusals: [] });
    expect(plansOf(seeded)).toEqual({ 1: "", 2: "wa from 1" });
  });

  it("takes no side between two seeds", () => {
    const offers = [
      offer(1, 0, { w: "a" }, "seed"),
      offer(2, 0, { w: "b" }, "seed"),
      offer(3, 0, { w: "c" }),
    ];
    expect(refusalsOf(elect(offers, held(99)))).toEqual({ 1: "MISMATCH", 2: "MISMATCH", 3: "MISMATCH" });
  });

  it("refuses a seed while a holder lives, and the others go on", () => {
    const election = elect([offer(1, 5, { w: "a" }), offer(2, 9, { w: "b" }, "seed")], held(1));
    expect(refusalsOf(election)).toEqual({ 2: "STRATEGY" });
    expect(election.refusals[0]?.reason).toMatch(/peer 1 holds revision 5/);
    expect(plansOf(election)).toEqual({ 1: "" });
  });
});
