/** Which content a group's members agree on, who is at fault, and who fetches what from whom. Pure. */
import type { PcclErrorCode } from "../base/errors.js";
import { SYNC_SOURCES_MAX } from "../base/limits.js";
import type { StateEntry, SyncFetch, SyncStrategy } from "./messages.js";
import type { PeerId } from "./state.js";

/** The last sync that a group completed. */
export interface SyncRecord {
  readonly revision: number;
  /** Those who have it since; the dead among them don't count. */
  readonly holders: ReadonlySet<PeerId>;
}

export interface Offer {
  readonly peerId: PeerId;
  readonly revision: number;
  readonly strategy: SyncStrategy;
  readonly entries: readonly StateEntry[];
}

export interface Plan {
  readonly peerId: PeerId;
  readonly fetches: readonly SyncFetch[];
  /** Who has all of it. */
  readonly sources: readonly PeerId[];
  /** Who fetches as well, and gives what it has got by then. */
  readonly helpers: readonly PeerId[];
  /** Of the `shares` members that fetch, this one is number `share`. */
  readonly share: number;
  readonly shares: number;
}

export interface Refusal {
  readonly peerId: PeerId;
  readonly code: PcclErrorCode;
  readonly reason: string;
}

export interface Election {
  readonly revision: number;
  /** Of those who go on, in ring order; empty if nobody can. */
  readonly plans: readonly Plan[];
  /** Of those who are at fault, or of all when none of them can go on without. */
  readonly refusals: readonly Refusal[];
}

/** `offers` are in ring order, one for each member. docs/protocol.md has the rules. */
export function elect(offers: readonly Offer[], record: SyncRecord | undefined): Election {
  return new Ballot(offers, record).run();
}

/** The offers that are still in it, and why the others aren't. */
class Ballot {
  readonly #record: SyncRecord | undefined;
  readonly #refusals: Refusal[] = [];
  #offers: readonly Offer[];

  constructor(offers: readonly Offer[], record: SyncRecord | undefined) {
    this.#offers = offers;
    // Without a living holder any revision may follow.
    this.#record = record;
  }

  run(): Election {
    this.#judgeStrategies();
    this.#judgeLayouts();
    this.#judgeRevisions();
    const candidates = this.#candidates();
    if (candidates.length === 0) {
      this.#refuseRest(...this.#whyNoCandidate());
      return this.#election(0, []);
    }
    const revision = candidates.reduce((highest, offer) => Math.max(highest, offer.revision), 0);
    const winner = this.#electContent(candidates.filter((offer) => offer.revision === revision));
    return this.#election(revision, winner === undefined ? [] : this.#plans(winner, revision));
  }

  #election(revision: number, plans: readonly Plan[]): Election {
    return { revision, plans, refusals: this.#refusals };
  }

  get #holders(): readonly Offer[] {
    return this.#offers.filter(({ peerId }) => this.#record?.holders.has(peerId));
  }

  #refuse(offer: Offer, code: PcclErrorCode, reason: string): void {
    this.#refusals.push({ peerId: offer.peerId, code, reason });
    this.#offers = this.#offers.filter((other) => other !== offer);
  }

  #refuseRest(code: PcclErrorCode, reason: string): void {
    for (const offer of this.#offers) this.#refuse(offer, code, reason);
  }

  /** Whose content may be elected: of those who seed, or of the holders, or of all. */
  #candidates(): readonly Offer[] {
    const seeds = this.#offers.filter(({ strategy }) => strategy === "seed");
    if (seeds.length > 0) return seeds;
    const giving = this.#offers.filter(({ strategy }) => strategy !== "receive-only");
    if (this.#record === undefined) return giving;
    return giving.filter(({ peerId }) => this.#record?.holders.has(peerId));
  }

  #judgeStrategies(): void {
    const [holder] = this.#holders;
    for (const offer of this.#offers) {
      if (offer.strategy !== "seed" || holder === undefined) continue;
      const lives = `peer ${holder.peerId} holds revision ${this.#record?.revision} of the group's state`;
      this.#refuse(
        offer,
        "ERR_PCCL_STATE_STRATEGY",
        `a group is seeded when no holder is left, and ${lives}.`,
      );
    }
    const [seed] = this.#offers.filter(({ strategy }) => strategy === "seed");
    const [popular] = this.#offers.filter(({ strategy }) => strategy === "enforce-popular");
    for (const offer of this.#offers) {
      const { peerId, strategy } = offer;
      if (seed !== undefined && strategy === "send-only") {
        const reason = `peer ${peerId} only sends, while peer ${seed.peerId} seeds the group.`;
        this.#refuse(offer, "ERR_PCCL_STATE_STRATEGY", reason);
      } else if (seed === undefined && popular !== undefined && strategy !== "enforce-popular") {
        const reason = `peer ${peerId} offers ${strategy}, and peer ${popular.peerId} enforce-popular.`;
        this.#refuse(offer, "ERR_PCCL_STATE_STRATEGY", `strategies don't mix: ${reason}`);
      }
    }
  }

  #whyNoCandidate(): readonly [PcclErrorCode, string] {
    const revision = this.#record?.revision;
    const [holder] = this.#holders;
    if (this.#record === undefined || holder !== undefined) {
      const who = holder === undefined ? "every peer" : `every holder of revision ${revision}`;
      return ["ERR_PCCL_STATE_STRATEGY", `${who} offers its state receive-only, so that nobody gives any.`];
    }
    const refused = this.#refusals.find(({ peerId }) => this.#record?.holders.has(peerId));
    if (refused === undefined) {
      return ["ERR_PCCL_STATE_LOST", `no holder of the group's last revision ${revision} is left.`];
    }
    return [
      refused.code,
      `the holders of revision ${revision} are refused, and only they could give it: ${refused.reason}`,
    ];
  }

  /** Names, types and lengths are as most candidates have them. */
  #judgeLayouts(): void {
    const candidates = this.#candidates();
    const [first] = candidates;
    if (first === undefined) return;
    const layouts = new Map(this.#offers.map((offer) => [offer, layoutOf(offer)]));
    const common = mostFrequent(candidates.map((offer) => layouts.get(offer) ?? ""));
    if (common === undefined) {
      const other = candidates.find((offer) => layouts.get(offer) !== layouts.get(first)) ?? first;
      const tie = `none of their layouts is more frequent than the others: ${differences(first, other)}`;
      return this.#refuseRest("ERR_PCCL_STATE_MISMATCH", tie);
    }
    const model = candidates.find((offer) => layouts.get(offer) === common) ?? first;
    for (const offer of this.#offers) {
      if (layouts.get(offer) === common) continue;
      this.#refuse(offer, "ERR_PCCL_STATE_MISMATCH", differences(model, offer));
    }
  }

  /** I7: while a holder lives its revision stays or advances by one. */
  #judgeRevisions(): void {
    if (this.#record === undefined || this.#holders.length === 0) return;
    const { revision: last, holders } = this.#record;
    for (const offer of this.#offers) {
      const { peerId, revision } = offer;
      if (revision === last || revision === last + 1 || (revision < last && !holders.has(peerId))) continue;
      const reason =
        `peer ${peerId} offers revision ${revision}, but the group's last one is ${last}, so that only ` +
        `${last} or ${last + 1} can follow.`;
      this.#refuse(offer, "ERR_PCCL_STATE_REVISION", reason);
    }
  }

  /**
   * The most frequent content wins, ties by ring order. But among those who insist on theirs, by sending only or as
   * seeds, a tie is nobody's to decide.
   */
  #electContent(candidates: readonly Offer[]): Offer | undefined {
    const contents = new Map(this.#offers.map((offer) => [offer, contentOf(offer)]));
    const votes = candidates.map((offer) => contents.get(offer) ?? "");
    const insist = candidates.some(({ strategy }) => strategy === "send-only" || strategy === "seed");
    const elected = mostFrequent(votes) ?? (insist ? undefined : firstMostFrequent(votes));
    const winner = candidates.find((offer) => contents.get(offer) === elected);
    if (winner === undefined) {
      const [a, b] = candidates as [Offer, Offer];
      const other = candidates.find((offer) => contents.get(offer) !== contents.get(a)) ?? b;
      const tie = `peers ${a.peerId} and ${other.peerId} insist on different contents of tensor ${changed(a, other)}.`;
      this.#refuseRest("ERR_PCCL_STATE_MISMATCH", tie);
      return undefined;
    }
    for (const offer of this.#offers) {
      const insists = offer.strategy === "send-only" || offer.strategy === "seed";
      if (!insists || contents.get(offer) === elected) continue;
      const reason =
        `peer ${offer.peerId} insists on its content, but that of peer ${winner.peerId} is elected: ` +
        `tensor ${changed(offer, winner)} differs.`;
      this.#refuse(offer, "ERR_PCCL_STATE_MISMATCH", reason);
    }
    return winner;
  }

  #plans(winner: Offer, revision: number): Plan[] {
    const content = contentOf(winner);
    const sources = this.#offers.filter((offer) => contentOf(offer) === content).map(({ peerId }) => peerId);
    const held = this.#holders.length > 0;
    const fetches = this.#offers.map((offer) => {
      const behind = offer.revision < revision || (held && !this.#record?.holders.has(offer.peerId));
      return fetchesOf(offer, winner, behind);
    });
    const receivers = this.#offers.filter((_, i) => (fetches[i] as SyncFetch[]).length > 0);
    const shares = receivers.length;
    return this.#offers.map((offer, i): Plan => {
      const { peerId } = offer;
      const share = receivers.indexOf(offer);
      if (share < 0) return { peerId, fetches: [], sources: [], helpers: [], share: 0, shares: 1 };
      const others = receivers.filter((other) => other !== offer).map((other) => other.peerId);
      const givers = sources.filter((id) => id !== peerId);
      return {
        peerId,
        fetches: fetches[i] as SyncFetch[],
        // From different places on, so that none of many serves everybody.
        sources: rotated(givers, share).slice(0, SYNC_SOURCES_MAX),
        helpers: rotated(others, share).slice(0, SYNC_SOURCES_MAX),
        share,
        shares,
      };
    });
  }
}

function rotated<T>(list: readonly T[], by: number): T[] {
  const at = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

function byName(a: StateEntry, b: StateEntry): number {
  return a.name < b.name ? -1 : 1;
}

function kindOf({ dtype, count, allowInequality }: StateEntry): string {
  return `${count} × ${dtype}${allowInequality ? ", may differ" : ""}`;
}

/** Equal for two offers if and only if names, types and lengths are. */
function layoutOf({ entries }: Offer): string {
  return JSON.stringify([...entries].sort(byName).map((entry) => [entry.name, kindOf(entry)]));
}

/** Equal for two offers of the same layout if and only if all hashes are that must be. */
function contentOf({ entries }: Offer): string {
  return [...entries]
    .filter(({ allowInequality }) => !allowInequality)
    .sort(byName)
    .map(({ hash }) => hash)
    .join();
}

/** How many tensors a message names one by one. */
const NAMED_TENSORS_MAX = 4;

/** In what two layouts differ, by name. */
function differences(a: Offer, b: Offer): string {
  const of = new Map(a.entries.map((entry) => [entry.name, kindOf(entry)]));
  const found: string[] = [];
  for (const entry of b.entries) {
    const quoted = JSON.stringify(entry.name);
    const expected = of.get(entry.name);
    of.delete(entry.name);
    if (expected === undefined) found.push(`peer ${b.peerId} has tensor ${quoted}, peer ${a.peerId} doesn't`);
    else if (expected !== kindOf(entry)) {
      found.push(
        `tensor ${quoted} has ${kindOf(entry)} on peer ${b.peerId}, ${expected} on peer ${a.peerId}`,
      );
    }
  }
  for (const name of of.keys()) {
    found.push(`peer ${a.peerId} has tensor ${JSON.stringify(name)}, peer ${b.peerId} doesn't`);
  }
  const more = found.length - NAMED_TENSORS_MAX;
  return `${found.slice(0, NAMED_TENSORS_MAX).join("; ")}${more > 0 ? `; and ${more} more` : ""}.`;
}

/** The name of the first tensor whose content differs, quoted. */
function changed(a: Offer, b: Offer): string {
  return JSON.stringify(fetchesOf(a, b, false)[0]?.name);
}

/** `behind`: the offer gives up its own content, also where it may differ. */
function fetchesOf(offer: Offer, winner: Offer, behind: boolean): SyncFetch[] {
  const own = new Map(offer.entries.map((entry) => [entry.name, entry.hash]));
  return winner.entries
    .filter(({ name, hash, allowInequality }) => own.get(name) !== hash && (behind || !allowInequality))
    .map(({ name, hash }) => ({ name, hash }));
}

function countsOf(values: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/** The value that occurs more often than any other one, if there is one. */
function mostFrequent(values: readonly string[]): string | undefined {
  const [first, second] = [...countsOf(values)].sort(([, a], [, b]) => b - a);
  return second !== undefined && second[1] === first?.[1] ? undefined : first?.[0];
}

/** The first of the values that occur most often. */
function firstMostFrequent(values: readonly string[]): string | undefined {
  const counts = [...countsOf(values)];
  return counts.reduce((best, entry) => (entry[1] > best[1] ? entry : best), counts[0] ?? ["", 0])[0];
}
