/**
 * What must always hold (docs/simulator.md lists the rules), checked at each event that could break one. A broken
 * rule throws. The simulator knows more than any of its processes: who lives, who could reach whom, what was sent.
 */
import type { CoordinatorMessage } from "../membership/messages.js";
import type { SessionError } from "../membership/session-protocol.js";
import type { EngineView } from "../membership/session.js";
import type { SimOp } from "./engine.js";
import type { SimPeer } from "./peer.js";
import type { Outcome } from "./program.js";
import { describeMessage, opName } from "./trace.js";

export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.rule = rule;
  }
}

/** A sync that the coordinator has completed. */
interface SyncRound {
  readonly revision: number;
  readonly holders: ReadonlySet<number>;
  /** What its members hold, once the first of them has said so. */
  content: number | undefined;
  /** What they make of it in the step that follows. */
  next: number | undefined;
}

interface KnownOp {
  readonly descriptors: Set<number>;
  /** When the latest of its members called it. */
  calledAtMs: number;
  settled: { readonly state: SimOp["state"]; readonly by: SimPeer; readonly sum: number } | undefined;
}

const COUNTED = [
  "commits",
  "sends",
  "aborts",
  "installs",
  "growths",
  "reorders",
  "syncs",
  "restarts",
  "resends",
  "mismatches",
  "cancellations",
  "relayed",
] as const;

export type Counts = Record<(typeof COUNTED)[number], number>;

export function noCounts(): Counts {
  return Object.fromEntries(COUNTED.map((name) => [name, 0])) as Counts;
}

/** What the world outside of its processes says. */
export interface Facts {
  /** Whether something was scripted to make peers call different things, ops of different shape, or withdraw. */
  readonly deviates: boolean;
  readonly misfits: boolean;
  readonly withdraws: boolean;
  /** A peer that can be heard and isn't: since when nothing has kept it and the coordinator from hearing each other. */
  readonly undisturbedMs: (peer: SimPeer) => number;
  /** There is a member of its group that it couldn't be linked with lately, not even by a relay. */
  readonly isCutOff: (peer: SimPeer) => boolean;
  /** No coordinator could be reached for the time that a peer tries, or none that knows it. */
  readonly lostCoordinator: (peer: SimPeer) => boolean;
  readonly nowMs: () => number;
  /** Whether a fault concerned a member of this group since then. */
  readonly wasTouched: (group: number, sinceMs: number) => boolean;
  /** Whether one of these peers of its world is gone. */
  readonly hasLost: (peer: SimPeer, peerIds: readonly number[]) => boolean;
  /** The longest that it may take to find out who is gone, and to link the others. */
  readonly waitMsMax: number;
  /** The longest that a peer may be kept from hearing by delays alone. */
  readonly patienceMs: number;
}

export class Invariants {
  readonly counts: Counts = noCounts();
  readonly #facts: Facts;
  readonly #ops = new Map<string, KnownOp>();
  readonly #views = new Map<string, string>();
  readonly #rounds = new Map<string, SyncRound[]>();
  /** A sync has failed for somebody alone: he calls it again, while the others go on. */
  #apart = false;
  readonly #roundOf = new Map<SimPeer, SyncRound>();
  readonly #epochs = new Map<SimPeer, number>();
  readonly #sent = new Map<string, CoordinatorMessage>();
  readonly #removed = new Set<SimPeer>();

  constructor(facts: Facts) {
    this.#facts = facts;
  }

  /** I4: what members have called differently is never combined. */
  onOpCalled(peer: SimPeer, op: SimOp): void {
    const known = this.#op(peer, op);
    known.descriptors.add(op.descriptor);
    known.calledAtMs = this.#facts.nowMs();
  }

  /** I1 to I4: one verdict for each op, and one result, of exactly its ring. Returns the op's sum. */
  onSettled(peer: SimPeer, op: SimOp, view: EngineView): number {
    const name = nameIn(peer, op);
    const known = this.#op(peer, op);
    const sum = [...op.contributions.values()].reduce((total, { value }) => (total + value) | 0, 0);
    // What a peer gave up that is gone now, or was removed, binds nobody: the verdict is that of the others.
    const { state, by } = known.settled ?? {};
    const isGone = by !== undefined && (this.#removed.has(by) || !by.alive || by.user.result !== undefined);
    if (state === "aborted" && isGone) known.settled = undefined;
    const isVoid = op.state === "aborted" && this.#removed.has(peer);
    if (known.settled !== undefined && known.settled.state !== op.state && !isVoid) {
      throw new Violation(
        "I1",
        `${name}: ${known.settled.by.host} ${known.settled.state} it, ${peer.host} ${op.state} it`,
      );
    }
    if (op.state === "committed") {
      this.counts.commits++;
      if (op.from === peer.peerId) this.counts.sends++;
      this.#checkIndependence(peer, op, name, known.calledAtMs);
      const late = [...op.contributions].filter(([, { epoch }]) => epoch !== op.epoch);
      if (op.epoch !== view.epoch || late.length > 0) {
        throw new Violation("I3", `${name}: ${peer.host} took bytes of ring ${late[0]?.[1].epoch}`);
      }
      const contributors = op.from === undefined ? view.ring.map((member) => member.peerId) : [op.from];
      if (
        op.contributions.size !== contributors.length ||
        contributors.some((id) => !op.contributions.has(id))
      ) {
        throw new Violation(
          "I3",
          `${name}: it has what ${[...op.contributions.keys()].join()} gave, and not ${contributors.join()}`,
        );
      }
      if (known.settled !== undefined && known.settled.sum !== sum) {
        throw new Violation(
          "I2",
          `${name} is ${known.settled.sum} on ${known.settled.by.host}, ${sum} on ${peer.host}`,
        );
      }
      if (known.descriptors.size > 1) {
        throw new Violation("I4", `${name}: its members called it with different descriptors`);
      }
    } else this.counts.aborts++;
    known.settled ??= { state: op.state, by: peer, sum };
    return sum;
  }

  /** Epochs only rise, and one epoch has one view on all peers. */
  onInstalled(peer: SimPeer, { viewEpoch, epoch, ring, hosts, worldSize }: EngineView): void {
    this.counts.installs++;
    if (ring.some(({ via }) => via !== undefined)) this.counts.relayed++;
    const last = this.#epochs.get(peer) ?? 0;
    if (viewEpoch <= last) throw new Violation("epochs", `${peer.host} installs ${viewEpoch} after ${last}`);
    this.#epochs.set(peer, viewEpoch);
    const name = `${peer.generation}, group ${peer.group} in epoch ${viewEpoch}`;
    const members = ring.map(({ peerId }, index) => `${peerId} on ${hosts[index]}`);
    const text = `ring ${epoch} = [${members.join()}] of ${worldSize}`;
    const known = this.#views.get(name);
    if (known !== undefined && known !== text)
      throw new Violation("views", `${name} is ${known} and ${text}`);
    this.#views.set(name, text);
  }

  /** I6: newcomers come in by a call of every admitted peer, or into an empty world. */
  onGrowth(peer: SimPeer): void {
    this.counts.growths++;
    if (!peer.user.consents)
      throw new Violation("I6", `newcomers are admitted without the consent of ${peer.host}`);
    peer.user.consents = false;
  }

  /** A call has given the world's rings another order. */
  onReordered(): void {
    this.counts.reorders++;
  }

  /** I7: while a holder of the last revision is a member, revisions stay or advance by one. */
  onSync(generation: number, group: number, revision: number, members: ReadonlySet<number>): void {
    this.counts.syncs++;
    const name = `${generation}/${group}`;
    const rounds = this.#rounds.get(name) ?? [];
    const last = rounds.at(-1);
    if (last !== undefined && [...last.holders].some((id) => members.has(id))) {
      if (revision !== last.revision && revision !== last.revision + 1) {
        throw new Violation("I7", `group ${group} goes from revision ${last.revision} to ${revision}`);
      }
    } else if (last !== undefined) this.counts.restarts++;
    this.#rounds.set(name, [...rounds, { revision, holders: members, content: undefined, next: undefined }]);
  }

  /** I2: all who took part in a sync hold the same content. */
  onSynced(peer: SimPeer, revision: number, content: number): void {
    const round = this.#rounds
      .get(`${peer.generation}/${peer.group}`)
      ?.findLast((candidate) => candidate.revision === revision && candidate.holders.has(peer.peerId));
    if (round === undefined)
      throw new Violation("I7", `${peer.host} has revision ${revision}, which nobody synced`);
    round.content ??= content;
    if (round.content !== content) {
      throw new Violation("I2", `revision ${revision} is ${round.content}, but ${content} on ${peer.host}`);
    }
    this.#roundOf.set(peer, round);
  }

  /** I2: those who began a step with the same content come out of it with the same. */
  onOffer(peer: SimPeer, revision: number, content: number): void {
    const round = this.#roundOf.get(peer);
    if (round === undefined || revision !== round.revision + 1) return;
    round.next ??= content;
    if (round.next !== content) {
      throw new Violation(
        "I2",
        `the step to revision ${revision} gave ${round.next}, but ${content} on ${peer.host}`,
      );
    }
  }

  /** A message's number names it for ever: one that was sent is sent again the same, also after a restart. */
  onSent(generation: number, peerId: number, seq: number, message: CoordinatorMessage): void {
    if (seq === 0) return;
    const name = `${generation}/${peerId}/${seq}`;
    const known = this.#sent.get(name);
    if (known === undefined) return void this.#sent.set(name, message);
    this.counts.resends++;
    if (known === message) return;
    const [before, now] = [describeMessage(known), describeMessage(message)];
    if (before !== now)
      throw new Violation("messages", `number ${seq} to peer ${peerId} was ${before}, is ${now}`);
  }

  /** I4, and errors come to those alone who gave a reason for them. */
  onOutcome(peer: SimPeer, outcome: Outcome): void {
    const results =
      outcome.kind === "error" ? [outcome.code] : outcome.kind === "ops" ? outcome.results.values() : [];
    for (const code of results) {
      if (code === "ERR_PCCL_STATE_FETCH_FAILED") this.#apart = true;
      const unfounded =
        (code === "ERR_PCCL_CALL_MISMATCH" &&
          !this.#facts.deviates &&
          !this.#facts.withdraws &&
          !this.#apart) ||
        (code === "ERR_PCCL_DESCRIPTOR_MISMATCH" && !this.#facts.misfits) ||
        (code === "ERR_PCCL_CANCELLED" && !this.#facts.withdraws);
      if (unfounded) throw new Violation("I4", `${peer.host} gets ${code}, and nobody gave a reason`);
      if (code === "ERR_PCCL_CALL_MISMATCH") this.counts.mismatches++;
      if (code === "ERR_PCCL_CANCELLED") this.counts.cancellations++;
    }
  }

  /** I8: nobody is removed who lives and could be heard. */
  onRemoved(peer: SimPeer, reason: string): void {
    this.#removed.add(peer);
    const { undisturbedMs, patienceMs, isCutOff } = this.#facts;
    if (peer.alive && peer.user.result === undefined && undisturbedMs(peer) > patienceMs && !isCutOff(peer)) {
      throw new Violation("I8", `${peer.host} lives and can be heard, but is removed: ${reason}`);
    }
  }

  /** A session ends by itself for a reason that the peer's user can understand. */
  onEnded(peer: SimPeer, { code, message }: SessionError): void {
    switch (code) {
      case "ERR_PCCL_REMOVED":
      case "ERR_PCCL_COORDINATOR_UNREACHABLE":
        return;
      case "ERR_PCCL_TIMEOUT":
        // Its registration got stuck on the way.
        if (peer.peerId === 0) return;
        break;
      case "ERR_PCCL_COORDINATOR_LOST":
        if (peer.peerId === 0 || this.#facts.lostCoordinator(peer)) return;
        throw new Violation("I8", `${peer.host} has lost a coordinator that it could reach: ${message}`);
    }
    // No fault of the network or of a process makes either side break the protocol.
    throw new Violation("protocol", `${peer.host} ends with ${code}: ${message}`);
  }

  /** I5: what is wrong with the coordinator, with other groups or with a main thread doesn't hold an op up. */
  #checkIndependence(peer: SimPeer, op: SimOp, name: string, calledAtMs: number): void {
    const { nowMs, waitMsMax, wasTouched, hasLost } = this.#facts;
    const waitedMs = nowMs() - calledAtMs;
    if (waitedMs <= waitMsMax || wasTouched(peer.group, calledAtMs)) return;
    // One that died before the others called is a fault too, until the coordinator has been told.
    if (hasLost(peer, op.participants)) return;
    throw new Violation(
      "I5",
      `${name} took ${Math.round(waitedMs)} ms on ${peer.host}, with no fault in its group`,
    );
  }

  #op(peer: SimPeer, op: SimOp): KnownOp {
    const name = nameIn(peer, op);
    let known = this.#ops.get(name);
    if (known === undefined)
      this.#ops.set(name, (known = { descriptors: new Set(), calledAtMs: 0, settled: undefined }));
    return known;
  }
}

function nameIn(peer: SimPeer, op: SimOp): string {
  return `world ${peer.generation}, group ${peer.group}, ${opName(op)}`;
}
