/**
 * Routing traces: what is written comes back, and whatever else a file holds is refused with a typed error. Method for
 * the latter: valid traces, damaged at random places in ways that files get damaged or edited.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateRouting, parseTrace, type Routing, readTrace, TraceWriter } from "@pccl/moe-ep";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const invalid = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "moe-ep-trace-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const HEADER = '{"format":"moe-ep-trace","version":1,"ranks":2,"layerExperts":[3,4]}';
const COUNTS = '{"step":0,"layer":0,"counts":[[1,2,3],[4,5,6]]}';
/** One token with experts 1 and 2, gates 0.75 and 0.25. */
const ROUTING = '{"step":0,"layer":1,"rank":0,"slots":"AgA=","experts":"AQACAA==","gates":"AABAPwAAgD4="}';
const parse = (...lines: readonly string[]): ReturnType<typeof parseTrace> =>
  parseTrace([{ name: "trace", text: lines.join("\n") }]);

/** Routings with any number of slots per token, also none. */
const routings = (ranks: number, experts: number): fc.Arbitrary<Routing[]> =>
  fc.array(
    fc
      .array(
        fc.array(fc.tuple(fc.nat({ max: experts - 1 }), fc.float({ min: 0, max: 1, noNaN: true })), {
          maxLength: 4,
        }),
      )
      .map((tokens) => {
        const slots = tokens.flat();
        const firstSlot = new Int32Array(tokens.length + 1);
        for (const [token, own] of tokens.entries())
          firstSlot[token + 1] = (firstSlot[token] as number) + own.length;
        return {
          firstSlot,
          experts: Int32Array.from(slots, ([expert]) => expert),
          gates: Float32Array.from(slots, ([, gate]) => gate),
        };
      }),
    { minLength: ranks, maxLength: ranks },
  );

describe("a routing trace", () => {
  it("comes back as it was written, from one file or one per rank, in order of steps and layers", () => {
    fc.assert(
      fc.property(routings(2, 5), routings(2, 9), fc.boolean(), (first, second, hasTwoFiles) => {
        const layout = { ranks: 2, layerExperts: [5, 9] };
        const files = [join(folder, "0.jsonl"), join(folder, "1.jsonl")].slice(0, hasTwoFiles ? 2 : 1);
        const writers = files.map((file) => new TraceWriter(file, layout));
        for (const rank of [0, 1]) {
          const writer = writers[rank % writers.length] as TraceWriter;
          writer.routing(7, 1, rank, second[rank] as Routing);
          writer.routing(7, 0, rank, first[rank] as Routing);
        }
        const counts = [[1, 0, 0, 0, 2 ** 40], Float64Array.of(0, 1, 2, 3, 4)];
        writers[0]?.counts(3, 0, counts);
        for (const writer of writers) writer.close();
        const trace = readTrace(...files);
        expect(trace).toMatchObject(layout);
        expect(trace.batches.map(({ step, layer }) => [step, layer])).toEqual([
          [3, 0],
          [7, 0],
          [7, 1],
        ]);
        expect(trace.batches[0]?.counts.map((row) => [...row])).toEqual(counts.map((row) => [...row]));
        expect(trace.batches[0]?.routings).toBeUndefined();
        expect(trace.batches[1]?.routings).toEqual(first);
        expect(trace.batches[2]?.routings).toEqual(second);
        for (const [rank, row] of (trace.batches[2]?.counts ?? []).entries()) {
          const { experts } = second[rank] as Routing;
          expect([...row]).toEqual(
            Array.from(row, (_, expert) => experts.filter((own) => own === expert).length),
          );
        }
      }),
      { numRuns: 50 },
    );
  });

  it("keeps generated routings", () => {
    const file = join(folder, "generated.jsonl");
    const writer = new TraceWriter(file, { ranks: 1, layerExperts: [64] });
    const routing = generateRouting({
      scenario: "zipf:1.1",
      experts: 64,
      topK: 4,
      tokens: 500,
      ranks: 1,
      rank: 0,
    });
    writer.routing(0, 0, 0, routing);
    writer.close();
    expect(readTrace(file).batches[0]?.routings).toEqual([routing]);
  });

  it.each<[string, string[], string]>([
    ["nothing", [], "empty"],
    ["no JSON", ["{"], "line 1: is no JSON"],
    ["another format", ['{"format":"gguf"}'], "moe-ep-trace"],
    ["another version", [HEADER.replace("1", "2")], "version 2"],
    ["no ranks", [HEADER.replace('"ranks":2', '"ranks":0')], "ranks"],
    ["no layers", [HEADER.replace("[3,4]", "[]")], "layerExperts"],
    ["a layer without experts", [HEADER.replace("[3,4]", "[3,0]")], "layerExperts[1]"],
    ["a record that is a number", [HEADER, "3"], "line 2"],
    ["a broken last line", [HEADER, COUNTS, COUNTS.slice(0, 20)], "line 3: is no JSON"],
    ["a layer that the header lacks", [HEADER, COUNTS.replace('"layer":0', '"layer":2')], "layer"],
    ["a step below 0", [HEADER, COUNTS.replace('"step":0', '"step":-1')], "step"],
    ["too few counts", [HEADER, COUNTS.replace(",6", "")], "2 rows of 3"],
    ["a count that is no integer", [HEADER, COUNTS.replace("6", "6.5")], "counts[1][2]"],
    ["counts twice", [HEADER, COUNTS, COUNTS], "twice"],
    ["a routing twice", [HEADER, ROUTING, ROUTING], "twice"],
    ["a routing beside counts", [HEADER, COUNTS, ROUTING.replace('"layer":1', '"layer":0')], "twice"],
    ["one rank's routing only", [HEADER, ROUTING], "rank 1's routing is missing"],
    ["a rank that the header lacks", [HEADER, ROUTING.replace('"rank":0', '"rank":2')], "rank"],
    ["an expert that the layer lacks", [HEADER, ROUTING.replace("AQACAA==", "AQAEAA==")], "expert 4"],
    ["a gate that is no number", [HEADER, ROUTING.replace("AABAPwAAgD4=", "AADAfwAAgD4=")], "gate"],
    ["too few gates", [HEADER, ROUTING.replace("AABAPwAAgD4=", "AABAPw==")], "gates"],
    ["more slots than experts", [HEADER, ROUTING.replace("AgA=", "AwA=")], "firstSlot"],
    ["half a number", [HEADER, ROUTING.replace("AgA=", "Ag==")], "slots"],
    ["no base64", [HEADER, ROUTING.replace("AgA=", "A?A=")], "slots"],
    ["no slots", [HEADER, ROUTING.replace('"slots":"AgA=",', "")], "slots"],
  ])("refuses %s, and says where", (_, lines, message) => {
    expect(() => parse(...lines)).toThrow(invalid);
    expect(() => parse(...lines)).toThrow(message);
  });

  it("refuses files that don't belong together, that can't be read, and none at all", () => {
    const other = HEADER.replace("[3,4]", "[3,5]");
    const sources = [HEADER, other].map((text, index) => ({ name: `rank ${index}`, text }));
    expect(() => parseTrace(sources)).toThrow("rank 1: has other ranks or layers than rank 0");
    expect(() => readTrace(join(folder, "none.jsonl"))).toThrow(invalid);
    expect(() => readTrace(folder)).toThrow(invalid);
    expect(() => readTrace()).toThrow(invalid);
  });

  it("is refused or read when damaged, and nothing else happens", () => {
    const valid = [HEADER, COUNTS, ROUTING, ROUTING.replace('"rank":0', '"rank":1')].join("\n");
    expect(parse(valid).batches.length).toBe(2);
    const damages = fc.oneof(
      fc.record({ kind: fc.constant("replace"), text: fc.string({ maxLength: 3 }) }),
      fc.record({
        kind: fc.constant("insert"),
        text: fc.constantFrom("-", "9", '"', "\n", "null", "1e999", "\0", "[["),
      }),
      fc.record({ kind: fc.constant("cut"), text: fc.constant("") }),
    );
    const places = fc.array(fc.tuple(fc.nat({ max: valid.length }), damages), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(places, (edits) => {
        let text = valid;
        for (const [at, { kind, text: piece }] of edits) {
          if (kind === "cut") text = text.slice(0, at);
          else text = text.slice(0, at) + piece + text.slice(kind === "insert" ? at : at + piece.length + 1);
        }
        try {
          for (const { step, layer, counts } of parse(text).batches) {
            expect([Number.isSafeInteger(step), layer === 0 || layer === 1]).toEqual([true, true]);
            expect(counts.flatMap((row) => [...row]).every((copies) => copies >= 0)).toBe(true);
          }
        } catch (error) {
          expect(error).toEqual(invalid);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("TraceWriter", () => {
  it("refuses what doesn't fit its layout, and writes nothing of it", () => {
    const file = join(folder, "refused.jsonl");
    const writer = new TraceWriter(file, { ranks: 1, layerExperts: [2] });
    const routing = { firstSlot: Int32Array.of(0, 1), experts: Int32Array.of(1), gates: Float32Array.of(1) };
    expect(() => writer.counts(0, 0, [[1, 2, 3]])).toThrow(invalid);
    expect(() => writer.counts(0, 1, [[1, 2]])).toThrow(invalid);
    expect(() => writer.counts(-1, 0, [[1, 2]])).toThrow(invalid);
    expect(() => writer.counts(0, 0, [[1, -2]])).toThrow(invalid);
    expect(() => writer.routing(0, 0, 1, routing)).toThrow(invalid);
    expect(() => writer.routing(0, 0, 0, { ...routing, experts: Int32Array.of(2) })).toThrow(invalid);
    expect(() => writer.routing(0, 0, 0, { ...routing, gates: Float32Array.of(Number.NaN) })).toThrow(
      invalid,
    );
    expect(() => writer.routing(0, 0, 0, { ...routing, firstSlot: Int32Array.of(0, 2) })).toThrow(invalid);
    expect(() => writer.routing(0, 0, 0, { ...routing, firstSlot: Int32Array.of(0, 2, 1) })).toThrow(invalid);
    writer.counts(0, 0, [[1, 2]]);
    writer.close();
    writer.close();
    expect(readTrace(file).batches.length).toBe(1);
    expect(() => writer.counts(1, 0, [[1, 2]])).toThrow("closed");
  });

  it("refuses a place where it can't write", () => {
    expect(() => new TraceWriter(join(folder, "no", "such"), { ranks: 1, layerExperts: [2] })).toThrow(
      invalid,
    );
  });
});
