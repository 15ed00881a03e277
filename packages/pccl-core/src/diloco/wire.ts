/** How contributions travel: what is sent of them, and how they are added up. */
import { checkOneOf } from "../base/check.js";
import type { CallOptions } from "../peer/call-limits.js";
import type { CollectiveResult } from "../peer/collective-call.js";
import type { Communicator } from "../peer/communicator.js";

export type WireOptions = "f32";

export interface Wire {
  readonly description: string;
  /** recv = the sum of all members' `send`. Collective; rejects as allReduce does, and `send` stays as it is. */
  sum(
    communicator: Communicator,
    send: Float32Array,
    recv: Float32Array,
    options: CallOptions & { readonly tag: bigint },
  ): Promise<CollectiveResult>;
}

export function createWire(options: WireOptions): Wire {
  checkOneOf("Diloco", "wire", options, ["f32"]);
  return {
    description: "f32",
    sum: async (communicator, send, recv, limits) =>
      await communicator.allReduce(send, recv, { op: "sum", ...limits }),
  };
}
