/** What users may rely on in an error: its class, its code, and what it tells beside the message. */
import * as core from "@pccl/core";
import { describe, expect, it } from "vitest";
import { ERROR_CATALOGUE, ERROR_CLASSES, isPcclErrorCode, pcclError } from "../../src/base/errors.js";

const codes = Object.keys(ERROR_CATALOGUE).filter(isPcclErrorCode);

describe("errors", () => {
  it.each(codes)("gives %s a class of its own that @pccl/core exports", (code) => {
    const error = pcclError(code, "allReduce: it went wrong");
    expect(error.name).toBe(ERROR_CLASSES[code].name);
    expect((core as Record<string, unknown>)[error.name]).toBeTypeOf("function");
    const others = codes.filter((other) => other !== code);
    for (const other of others) expect(error).not.toBeInstanceOf(ERROR_CLASSES[other]);
  });

  it("tells code, reason, peer, epoch and cause, and puts the advice behind the message", () => {
    const cause = new Error("connection reset");
    const error = pcclError("ERR_PCCL_PEER_LOST", "allReduce(tag 3): peer 2 is gone", {
      peerId: 2,
      epoch: 7,
      cause,
    });
    expect(error).toMatchObject({
      name: "PeerLostError",
      code: "ERR_PCCL_PEER_LOST",
      retryable: true,
      reason: "allReduce(tag 3): peer 2 is gone.",
      message: `allReduce(tag 3): peer 2 is gone. ${ERROR_CATALOGUE.ERR_PCCL_PEER_LOST.remedy}`,
      peerId: 2,
      epoch: 7,
      cause,
    });
  });

  it("knows its own codes and nothing that every object has", () => {
    expect(isPcclErrorCode("ERR_PCCL_TIMEOUT")).toBe(true);
    for (const other of ["toString", "ERR_PCCL_NONE", undefined, 7])
      expect(isPcclErrorCode(other)).toBe(false);
  });
});
