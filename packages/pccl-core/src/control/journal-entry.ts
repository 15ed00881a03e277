/** One event of the coordinator's machine as bytes and back: proto/pccl/v1/journal.proto. */
import type { CoordinatorEvent } from "../membership/state.js";
import type {
  _pccl_v1_JournalEntry_ProbeResult as WireProbeResult,
  JournalEntry as WireEntry,
  JournalEntry__Output as WireEntryOutput,
} from "./generated/pccl/v1/JournalEntry.js";
import { messageType } from "./message-type.js";
import { peerMessageFromWire, peerMessageToWire } from "./wire.js";

/** A shutdown ends the world: there is nothing to replay behind it. */
export type JournaledEvent = Exclude<CoordinatorEvent, { readonly kind: "shutdown" }>;

export interface JournalEntry {
  /** Counts events from 1 since the world of this journal began. */
  readonly number: number;
  readonly nowMs: number;
  readonly event: JournaledEvent;
}

const PROBE_RESULTS = {
  refused: "PROBE_RESULT_REFUSED",
  alive: "PROBE_RESULT_ALIVE",
  unknown: "PROBE_RESULT_UNKNOWN",
} as const satisfies Record<string, WireProbeResult>;

const entryType = messageType<WireEntry, WireEntryOutput>("pccl.v1.JournalEntry");

export function encodeEntry({ number, nowMs, event }: JournalEntry): Uint8Array {
  return entryType.encode({ number, nowMs, ...eventToWire(event) });
}

/** The entries of one frame. */
export function decodeEntries(frame: Uint8Array): JournalEntry[] {
  return entryType.decode(frame).map((wire) => ({
    number: Number(wire.number),
    nowMs: wire.nowMs,
    event: eventFromWire(wire),
  }));
}

function eventToWire(event: JournaledEvent): WireEntry {
  switch (event.kind) {
    case "connected": {
      const { connection, address, secret } = event;
      return { connected: { connection, address, secret } };
    }
    case "message":
      return { message: { connection: event.connection, message: peerMessageToWire(event) } };
    case "invalid":
      return { invalid: { connection: event.connection, reason: event.reason } };
    case "disconnected":
      return { disconnected: { connection: event.connection, reason: event.reason } };
    case "probed":
      return { probed: { peerId: event.peerId, result: PROBE_RESULTS[event.result] } };
    case "restarted":
      return { restarted: {} };
    case "tick":
      return { tick: {} };
  }
}

function eventFromWire(wire: WireEntryOutput): JournaledEvent {
  const { connected, message, invalid, disconnected, probed } = wire;
  if (connected) {
    const { address, secret } = connected;
    const connection = Number(connected.connection);
    return { kind: "connected", connection, address, secret: Uint8Array.from(secret) };
  }
  if (message?.message) {
    const connection = Number(message.connection);
    return { kind: "message", connection, ...peerMessageFromWire(message.message) };
  }
  if (invalid) {
    return { kind: "invalid", connection: Number(invalid.connection), reason: invalid.reason };
  }
  if (disconnected) {
    return { kind: "disconnected", connection: Number(disconnected.connection), reason: disconnected.reason };
  }
  if (probed) {
    const result = (["refused", "alive", "unknown"] as const).find((r) => PROBE_RESULTS[r] === probed.result);
    if (result !== undefined) return { kind: "probed", peerId: Number(probed.peerId), result };
  }
  if (wire.restarted) return { kind: "restarted" };
  if (wire.tick) return { kind: "tick" };
  throw new Error("an event of an unknown kind");
}
