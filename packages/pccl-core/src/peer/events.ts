/** What a Communicator tells without being asked. */
import { EventEmitter } from "node:events";
import { checkOneOf, describe } from "../base/check.js";
import { type PcclError, pcclError } from "../base/errors.js";
import type { InstalledNotice } from "./session-protocol.js";

/** A view that this peer has installed; `rank` and `groupWorldSize` are those of its own group. */
export interface EpochEvent {
  readonly epoch: number;
  readonly rank: number;
  readonly worldSize: number;
  readonly groupWorldSize: number;
}

export interface PeerJoinedEvent {
  readonly peerId: number;
  readonly group: number;
}

export interface PeerLostEvent extends PeerJoinedEvent {
  /** Why it is gone: it left, it died, it was silent for too long. */
  readonly reason: string;
}

export interface CommunicatorEvents {
  /** A view after the one that connect() resolved with is installed. */
  epoch: [EpochEvent];
  /** For each peer that this view has and the one before hadn't, of any group; after its `epoch`. */
  peerJoined: [PeerJoinedEvent];
  /** For each peer that this view hasn't and the one before had, of any group; after its `epoch`. */
  peerLost: [PeerLostEvent];
  /** The communicator has ended other than by close(): removed, or the coordinator lost. Once. */
  removed: [PcclError];
}

const EVENT_NAMES = ["epoch", "peerJoined", "peerLost", "removed"] as const;

/** Of `on`, `once` and `off`. */
export function checkListener(call: string, name: unknown, listener: unknown): void {
  checkOneOf(call, "the event", name, EVENT_NAMES);
  if (typeof listener !== "function") {
    const message = `${call}: the listener must be a function, got ${describe(listener)}.`;
    throw pcclError("ERR_PCCL_INVALID_ARGUMENT", message);
  }
}

/**
 * Calls listeners as an EventEmitter does, at once and in order. What a listener throws is thrown again when the
 * communicator's own work is done: it reaches the process as an uncaught exception, and nothing else.
 */
export class Events extends EventEmitter<CommunicatorEvents> {
  tellView(peerId: number, { epoch, worldSize, ring, joined, lost }: InstalledNotice): void {
    this.#tell("epoch", { epoch, rank: ring.indexOf(peerId), worldSize, groupWorldSize: ring.length });
    for (const peer of lost) this.#tell("peerLost", peer);
    for (const peer of joined) this.#tell("peerJoined", peer);
  }

  tellRemoved(error: PcclError): void {
    this.#tell("removed", error);
  }

  #tell<K extends keyof CommunicatorEvents>(name: K, event: CommunicatorEvents[K][0]): void {
    try {
      (this as EventEmitter).emit(name, event);
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  }
}
