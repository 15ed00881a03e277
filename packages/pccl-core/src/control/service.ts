/** The gRPC service of proto/pccl/v1/membership.proto, loaded once per thread. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadPackageDefinition } from "@grpc/grpc-js";
import type { ChannelOptions } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { Options } from "@grpc/proto-loader";
import { CONTROL_MESSAGE_BYTES_MAX } from "../base/limits.js";
import type { ProtoGrpcType } from "./generated/membership.js";

/**
 * 64-bit fields come as decimal strings, since tags use all 64 bits; scripts/generate.mjs makes the types with
 * the same choices.
 */
export const PROTO_OPTIONS: Options = {
  keepCase: false,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
};

const protoFolder = fileURLToPath(new URL("../../proto/", import.meta.url));

/** Where a file of proto/ is, named as imports in .proto files name it. */
export function protoFile(name: string): string {
  return join(protoFolder, name);
}

export const membershipService: ProtoGrpcType["pccl"]["v1"]["Membership"] = (
  loadPackageDefinition(
    loadSync("pccl/v1/membership.proto", { ...PROTO_OPTIONS, includeDirs: [protoFolder] }),
  ) as unknown as ProtoGrpcType
).pccl.v1.Membership;

/** Options of both ends of the channel. */
export const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.max_receive_message_length": CONTROL_MESSAGE_BYTES_MAX,
  "grpc.max_send_message_length": CONTROL_MESSAGE_BYTES_MAX,
  // A proxy named in the environment is meant for the web, not for peers of a training run.
  "grpc.enable_http_proxy": 0,
  // Each client has a connection of its own, so that its stream's end is the peer's end.
  "grpc.use_local_subchannel_pool": 1,
};

/** A coordinator's first header: what answers without it is something else. Its value is the protocol version. */
export const PROTOCOL_HEADER = "pccl-protocol";
