/**
 * Goal: the comparison with other libraries has something to compare with. Method: builds the one program that needs no
 * other library, which shares its data, its check and its timing with the others, and runs it.
 */
import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { buildPeerPrograms } from "./lib/peer-programs.mjs";

it("builds the ring of sockets, which reduces right and prints median, minimum and maximum", async () => {
  const { "socket-ring": ring } = await buildPeerPrograms(["socket-ring"]);
  expect(ring?.reason).toBeUndefined();
  for (const [peers, bytes] of [
    [2, 4_096],
    [3, 1_000_004],
  ]) {
    const output = execFileSync(ring?.path as string, [String(peers), String(bytes)], { encoding: "utf8" });
    const [median, min, max] = output.trim().split(" ").map(Number) as [number, number, number];
    expect(min).toBeGreaterThan(0);
    expect(median).toBeGreaterThanOrEqual(min);
    expect(max).toBeGreaterThanOrEqual(median);
  }
});
