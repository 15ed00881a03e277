/** The rules of docs/protocol.md, checked at each event that could break one. A broken rule throws. */
import type { EngineView } from "../membership/session.js";
import type { SimOp } from "./engine.js";
import type { SimPeer } from "./peer.js";

/** A sync that the coordinator has completed. */
interface SyncRound {
  readonly revision: number;
  readonly holders: ReadonlySet<number>;
  /** What its members hold, once the first of them has said so. */
  content: number | undefined;
}

export class Invariants {
  readonly #verdicts = new Map<string, { readonly state: SimOp["state"]; readonly by: string }>();
  readonly #views = new Map<string, string>();
  readonly #rounds = new Map<number, SyncRound[]>();
  readonly #epochs = new Map<SimPeer, number>();
  /** What was seen, so that a test can tell that its seeds reach what they should. */
  readonly counts: Record<"commits" | "aborts" | "installs" | "syncs" | "restarts", number> = {
    commits: 0,
    aborts: 0,
    installs: 0,
    syncs: 0,
    restarts: 0,
  };

  /** I1 and I3: one verdict for each op, and a result of exactly its epoch's ring. */
  onSettled(peer: SimPeer, op: SimOp, view: EngineView): void {
    const name = `group ${peer.group}, op ${op.epoch}:${op.tag}/${op.seq}`;
    const known = this.#verdicts.get(name);
    if (known === undefined) this.#verdicts.set(name, { state: op.state, by: peer.host });
    else if (known.state !== op.state) {
      throw new Error(`I1: ${name}: ${known.by} ${known.state} it, ${peer.host} ${op.state} it`);
    }
    if (op.state === "committed") {
      this.counts.commits++;
      const ring = view.ring.map((member) => member.peerId);
      const missing = ring.filter((id) => !op.contributions.has(id));
      if (op.epoch !== view.epoch || missing.length > 0 || op.contributions.size !== ring.length) {
        throw new Error(`I3: ${name}: ${[...op.contributions]} is not the ring ${ring}`);
      }
    } else this.counts.aborts++;
  }

  /** Epochs only rise. */
  onInstall(peer: SimPeer, epoch: number): void {
    const last = this.#epochs.get(peer) ?? 0;
    if (epoch <= last) throw new Error(`epochs: ${peer.host} installs ${epoch} after ${last}`);
    this.#epochs.set(peer, epoch);
  }

  /** One epoch has one view on all peers. */
  onInstalled(peer: SimPeer, { epoch, ring, worldSize }: EngineView): void {
    this.counts.installs++;
    const name = `group ${peer.group} in epoch ${epoch}`;
    const text = `${ring.map((member) => member.peerId).join()} of ${worldSize}`;
    const known = this.#views.get(name);
    if (known !== undefined && known !== text) throw new Error(`views: ${name} is ${known} and ${text}`);
    this.#views.set(name, text);
  }

  /** I6: newcomers come in by a call of every admitted peer, or into an empty world. */
  onAdmission(admitted: readonly SimPeer[]): void {
    for (const peer of admitted) {
      if (peer.alive && peer.call?.kind !== "update-topology") {
        throw new Error(`I6: newcomers are admitted while ${peer.host} is in ${peer.call?.kind}`);
      }
    }
  }

  /** I7: while a holder of the last revision is a member, revisions stay or advance by one. */
  onSync(group: number, revision: number, members: ReadonlySet<number>): void {
    this.counts.syncs++;
    const rounds = this.#rounds.get(group) ?? [];
    const last = rounds.at(-1);
    if (last !== undefined && [...last.holders].some((id) => members.has(id))) {
      if (revision !== last.revision && revision !== last.revision + 1) {
        throw new Error(`I7: group ${group} goes from revision ${last.revision} to ${revision}`);
      }
    } else if (last !== undefined) this.counts.restarts++;
    this.#rounds.set(group, [...rounds, { revision, holders: members, content: undefined }]);
  }

  /** I2: all who took part in a sync hold the same content. */
  onSynced(peer: SimPeer, revision: number, content: number): void {
    const round = this.#rounds
      .get(peer.group)
      ?.findLast((candidate) => candidate.revision === revision && candidate.holders.has(peer.peerId));
    if (round === undefined)
      throw new Error(`I7: ${peer.host} has revision ${revision}, which nobody synced`);
    round.content ??= content;
    if (round.content !== content) {
      throw new Error(`I2: revision ${revision} is ${round.content}, but ${content} on ${peer.host}`);
    }
  }
}
