/** Messages of proto/ as bytes and back, where it isn't gRPC that carries them. */
import protobuf from "protobufjs";
import { PROTO_OPTIONS, protoFile } from "./service.js";

const root = new protobuf.Root();
root.resolvePath = (_origin, target) => protoFile(target);
root.loadSync("pccl/v1/journal.proto");

/** Reads and writes one message type of the contract with the same choices as the control plane. */
export interface MessageType<Input, Output> {
  /** With the length before it, so that messages can follow each other. */
  encode(message: Input): Uint8Array;
  /** All messages in `bytes`. Throws on what encode() didn't write. */
  decode(bytes: Uint8Array): Output[];
}

export function messageType<Input extends object, Output>(name: string): MessageType<Input, Output> {
  const type = root.lookupType(name);
  return {
    encode: (message) => type.encodeDelimited(type.fromObject(message)).finish(),
    decode(bytes) {
      const reader = protobuf.Reader.create(bytes);
      const messages: Output[] = [];
      while (reader.pos < reader.len) {
        messages.push(type.toObject(type.decodeDelimited(reader), PROTO_OPTIONS) as Output);
      }
      return messages;
    },
  };
}
