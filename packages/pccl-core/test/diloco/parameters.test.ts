/** Arena and views: where the elements lie, and that bad layouts are refused before anything is written. */
import { describe, expect, it } from "vitest";
import { fromViews, ParameterArena } from "../../src/diloco/parameters.js";

const invalid: unknown = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });

describe("ParameterArena", () => {
  it("lays the parameters out one after the other in the order given", () => {
    const arena = new ParameterArena({ w: [2, 3], b: [3], scale: [] });
    expect(arena.layout).toEqual([
      { name: "w", length: 6 },
      { name: "b", length: 3 },
      { name: "scale", length: 1 },
    ]);
    arena.view("b").fill(7);
    arena.view("scale")[0] = 9;
    expect([...arena.data]).toEqual([0, 0, 0, 0, 0, 0, 7, 7, 7, 9]);
    expect(arena.shape("w")).toEqual([2, 3]);
  });

  it("reads into and writes from a flat buffer of the caller", () => {
    const arena = new ParameterArena({ a: [2], b: [1] });
    arena.write(Float32Array.of(1, 2, 3));
    expect([...arena.view("b")]).toEqual([3]);
    const copy = new Float32Array(3);
    arena.read(copy);
    arena.data.fill(0);
    expect([...copy]).toEqual([1, 2, 3]);
  });

  it.each([
    ["no parameter", {}],
    ["a size of 0", { w: [3, 0] }],
    ["a fraction", { w: [1.5] }],
    ["NaN", { w: [Number.NaN] }],
    ["a shape that is no array", { w: 3 }],
    ["an empty name", { "": [1] }],
    ["a name too long for the wire", { ["n".repeat(600)]: [1] }],
    ["an array", [[1]]],
    ["nothing", undefined],
  ])("refuses %s", (_what, shapes) => {
    expect(() => new ParameterArena(shapes as never)).toThrow(invalid);
  });

  it("names the parameters it has when asked for another", () => {
    const arena = new ParameterArena({ w1: [1], b1: [1] });
    expect(() => arena.view("w2")).toThrow(/"w2".*w1, b1/);
    expect(() => arena.shape("toString")).toThrow(invalid);
  });
});

describe("fromViews", () => {
  it("gathers and scatters arrays that lie anywhere", () => {
    const memory = new Float32Array(10);
    const views = { b: memory.subarray(6, 8), a: memory.subarray(1, 4), c: new Float32Array(1) };
    const source = fromViews(views);
    expect(source.layout.map(({ name }) => name)).toEqual(["b", "a", "c"]);
    void source.write(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect([...memory]).toEqual([0, 3, 4, 5, 0, 0, 1, 2, 0, 0]);
    expect(views.c[0]).toBe(6);
    const flat = new Float32Array(6);
    void source.read(flat);
    expect([...flat]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("refuses views that share memory, and takes neighbours", () => {
    const memory = new Float32Array(8);
    expect(() => fromViews({ a: memory.subarray(0, 5), b: memory.subarray(4) })).toThrow(
      /"a" and "b" overlap/,
    );
    expect(() => fromViews({ b: memory, a: memory })).toThrow(invalid);
    expect(fromViews({ a: memory.subarray(0, 4), b: memory.subarray(4) }).layout).toHaveLength(2);
  });

  it.each([
    ["float64", { w: new Float64Array(2) }],
    ["a plain array", { w: [1, 2] }],
    ["an empty view", { w: new Float32Array(0) }],
    ["no view", {}],
  ])("refuses %s", (_what, views) => {
    expect(() => fromViews(views as never)).toThrow(invalid);
  });

  it("says so when an array was transferred away, and writes none of the others", () => {
    const kept = Float32Array.of(1, 1);
    const moved = new Float32Array(2);
    const source = fromViews({ kept, moved });
    structuredClone(moved.buffer, { transfer: [moved.buffer] });
    const mismatch: unknown = expect.objectContaining({ code: "ERR_PCCL_LAYOUT_MISMATCH" });
    expect(() => source.write(new Float32Array(4))).toThrow(mismatch);
    expect(() => source.read(new Float32Array(4))).toThrow(mismatch);
    expect([...kept]).toEqual([1, 1]);
  });
});
