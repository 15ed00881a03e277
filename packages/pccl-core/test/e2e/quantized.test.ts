/**
 * Goal: quantized all-reduces give the same bits on all peers, off by what docs/quantization.md says, in as few bytes as
 * it says; and their errors reach everybody. Method: real processes, each of which knows what the others contribute, and
 * data of kinds that are hard for one format or another.
 */
import { describe, expect, it } from "vitest";
import { Cluster } from "./cluster.js";

interface Reduced {
  readonly digest: string;
  readonly errorRms: number;
  readonly errorMax: number;
  readonly txBytes: number;
  readonly algorithm: string;
  readonly error?: { readonly code: string; readonly message: string; readonly peerId?: number };
  readonly inputKept?: boolean;
}

const COUNT = 30_001;
const KINDS = ["gaussian", "heavy-tailed", "all-negative", "constant", "tiny", "huge"] as const;
type Kind = (typeof KINDS)[number];
type Bounds = Readonly<Record<Kind, number>>;

/** The table of docs/quantization.md: the root mean square error of a sum, as a share of the sums' own, at most. */
const ERROR_RMS_MAX: Readonly<Record<"u8" | "i4" | "fp8" | "bf16" | "f16", Partial<Bounds>>> = {
  u8: { gaussian: 0.01, "heavy-tailed": 0.04, "all-negative": 0.003, constant: 1e-6, tiny: 0.01, huge: 0.01 },
  i4: { gaussian: 0.17, "heavy-tailed": 0.5, "all-negative": 0.05, constant: 1e-6, tiny: 0.17, huge: 0.17 },
  fp8: {
    gaussian: 0.04,
    "heavy-tailed": 0.035,
    "all-negative": 0.035,
    constant: 1e-6,
    tiny: 0.04,
    huge: 0.04,
  },
  bf16: {
    gaussian: 0.003,
    "heavy-tailed": 0.003,
    "all-negative": 0.003,
    constant: 0,
    tiny: 0.035,
    huge: 0.003,
  },
  f16: { gaussian: 4e-4, "heavy-tailed": 4e-4, "all-negative": 4e-4, constant: 0 },
};
/** Of f32's bytes, which are 2(N-1)/N arrays. */
const BYTES_MAX = { u8: 0.265, i4: 0.14, fp8: 0.265, bf16: 0.505, f16: 0.505 };

describe.each([2, 3, 5])("a quantized allReduce between %d processes", (peers) => {
  it("is off by what is documented, in as many bytes, with the same bits on all", async () => {
    await using cluster = await Cluster.start(peers);
    const salts = (await cluster.all<{ peerId: number }>("view")).map(({ peerId }) => peerId);
    for (const [format, bounds] of Object.entries(ERROR_RMS_MAX)) {
      for (const [kind, errorMax] of Object.entries(bounds)) {
        const args = { kind, count: COUNT, salts, quantize: format };
        const results = await cluster.all<Reduced>("reduceQuantized", args);
        expect(results[0]?.error).toBeUndefined();
        expect(new Set(results.map(({ digest }) => digest)).size, `${format} of ${kind}`).toBe(1);
        expect(results[0]?.errorRms, `${format} of ${kind}`).toBeLessThanOrEqual(errorMax);
        const bytes = results.reduce((sum, { txBytes }) => sum + txBytes, 0);
        expect(bytes).toBeLessThanOrEqual(
          BYTES_MAX[format as keyof typeof BYTES_MAX] * 2 * (peers - 1) * 4 * COUNT,
        );
      }
    }
  });
});

describe("a quantized allReduce", () => {
  it("tells every peer whose input has NaN, and leaves all of them as they were", async () => {
    await using cluster = await Cluster.start(3);
    const salts = (await cluster.all<{ peerId: number }>("view")).map(({ peerId }) => peerId);
    const args = { kind: "gaussian", count: COUNT, salts, quantize: "u8" };
    const culprit = salts[1];
    const results = await Promise.all(
      cluster.peers.map((peer, i) =>
        peer.call<Reduced>("reduceQuantized", { ...args, ...(i === 1 && { spoilAt: COUNT - 1 }) }),
      ),
    );
    for (const { error, inputKept } of results) {
      expect(error).toMatchObject({ code: "ERR_PCCL_NON_FINITE_INPUT", peerId: culprit });
      expect(inputKept).toBe(true);
    }
    expect(results[0]?.error?.message).toContain(`peer ${culprit}'s input has NaN`);
    const [after] = await cluster.all<Reduced>("reduceQuantized", args);
    expect(after?.error).toBeUndefined();
  });

  it("tells every peer whose calls differ", async () => {
    await using cluster = await Cluster.start(3);
    const salts = (await cluster.all<{ peerId: number }>("view")).map(({ peerId }) => peerId);
    const formats = ["u8", "u8", undefined];
    const results = await Promise.all(
      cluster.peers.map((peer, i) =>
        peer.call<Reduced>("reduceQuantized", {
          kind: "gaussian",
          count: COUNT,
          salts,
          quantize: formats[i],
        }),
      ),
    );
    for (const { error, inputKept } of results) {
      expect(error?.code).toBe("ERR_PCCL_DESCRIPTOR_MISMATCH");
      expect(error?.message).toContain("as u8 (blocks of 256)");
      expect(inputKept).toBe(true);
    }
  });

  it("ends alike on the survivors of a killed peer, which can call it again", async () => {
    await using cluster = await Cluster.start(3, { leaseMs: 1_000 });
    const salts = (await cluster.all<{ peerId: number }>("view")).map(({ peerId }) => peerId);
    const survivors = cluster.peers.slice(0, 2);
    const args = { kind: "gaussian", count: COUNT, quantize: "u8", salts: salts.slice(0, 2) };
    const running = cluster.all<Reduced>("reduceQuantized", args, survivors);
    await cluster.peers[2]?.kill();
    const [first, second] = await running;
    // Who calls it only when the other one is gone already reduces without it.
    if (first?.error === undefined) expect(second?.digest).toBe(first?.digest);
    for (const { error, inputKept } of [first, second] as Reduced[]) {
      if (error === undefined) continue;
      expect(error.code).toBe("ERR_PCCL_PEER_LOST");
      expect(inputKept).toBe(true);
    }
    const results = await cluster.all<Reduced>("reduceQuantized", args, survivors);
    expect(results[0]).toMatchObject({ digest: results[1]?.digest, algorithm: "quantized" });
  });

  it("is exact for a peer that is alone", async () => {
    await using cluster = await Cluster.start(1);
    const args = { kind: "gaussian", count: 1_000, salts: [1], quantize: "i4", inPlace: false };
    const [result] = await cluster.all<Reduced>("reduceQuantized", args);
    expect(result).toMatchObject({ errorMax: 0, txBytes: 0, algorithm: "alone" });
  });
});
