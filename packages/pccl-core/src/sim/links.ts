/**
 * The links between engines, modelled at their contract (docs/protocol.md, section 2): a link carries frames in
 * order and exactly once. While its lanes are broken or its path is blocked it stalls and then goes on; an end that
 * hears nothing for the detection time gives the link up, and the other end learns that when it dials again.
 */
import type { SimEngine } from "./engine.js";
import { type Network, Pipe } from "./network.js";
import type { Random } from "./random.js";

/** Pauses between attempts to dial. */
const DIAL_MS_MIN = 20;
const DIAL_MS_MAX = 600;

interface LinkEnd {
  readonly engine: SimEngine;
  readonly pipe: Pipe;
  up: boolean;
  /** Names the present silence of the other end, if there is one. */
  silence: object | undefined;
}

interface Link {
  readonly via: SimEngine | undefined;
  readonly ends: readonly [LinkEnd, LinkEnd];
  lanesUp: boolean;
  dialling: boolean;
}

export class DataPlane {
  readonly network: Network;
  readonly silenceMs: number;
  readonly #random: Random;
  readonly #engines = new Map<string, SimEngine>();
  /** By hostPair(). */
  readonly #links = new Map<string, Link>();
  /** How many firewalls keep the first host from dialling the second. */
  readonly #refusals = new Map<string, number>();

  constructor(network: Network, silenceMs: number) {
    this.network = network;
    this.silenceMs = silenceMs;
    this.#random = network.random("data plane");
  }

  /** An engine is found by its name, a peer id and a world's key. */
  register(name: string, engine: SimEngine): void {
    this.#engines.set(name, engine);
  }

  /** Whether `engine` has this link already and needn't build it. */
  isUp(engine: SimEngine, other: SimEngine | undefined, via: SimEngine | undefined): boolean {
    const link = other && this.#links.get(hostPair(engine.host, other.host));
    return link !== undefined && link.via === via && endOf(link, engine).up;
  }

  engine(name: string): SimEngine | undefined {
    return this.#engines.get(name);
  }

  /** Dials until the link is there or `engine` doesn't wait for it any longer. */
  build(engine: SimEngine, name: string, viaName: string | undefined, epoch: number): void {
    if (!engine.awaits(name, epoch)) return;
    const other = this.#engines.get(name);
    const via = viaName === undefined ? undefined : this.#engines.get(viaName);
    const relayed = viaName === undefined || via !== undefined;
    const ready =
      other !== undefined && relayed && other.prepares(epoch) && this.#canDial(engine, other, via);
    const again = ready ? this.#handshakeMs() : this.#random.between(DIAL_MS_MIN, DIAL_MS_MAX);
    this.network.clock.after(again, () => {
      if (!ready || !engine.awaits(name, epoch)) return this.build(engine, name, viaName, epoch);
      if (other.prepares(epoch) && this.#canDial(engine, other, via)) this.#join(engine, other, via);
      else this.build(engine, name, viaName, epoch);
    });
  }

  send(from: SimEngine, to: SimEngine, frame: Parameters<SimEngine["onFrame"]>[0]): void {
    const link = this.#links.get(hostPair(from.host, to.host));
    if (link === undefined || !endOf(link, from).up) return;
    const end = endOf(link, to);
    end.pipe.push(() => {
      if (end.up) to.onFrame(frame);
    });
  }

  /** Whether `from` can dial `to`, over the relay if there is one. */
  reaches(from: SimEngine, to: SimEngine, via: SimEngine | undefined): boolean {
    const accepts = (a: SimEngine, b: SimEngine): boolean =>
      !this.#refusals.has(`${a.host}>${b.host}`) && this.network.isOpenBothWays(a.host, b.host);
    if (from.process.state !== "running" || to.process.state !== "running") return false;
    if (via === undefined) return accepts(from, to);
    return via.process.state === "running" && via.relays(from, to) && accepts(from, via) && accepts(via, to);
  }

  /** Resets all lanes of the pair's link; they are dialled again. */
  resetLanes(a: string, b: string): boolean {
    const link = this.#links.get(hostPair(a, b));
    if (link?.lanesUp !== true) return false;
    link.lanesUp = false;
    this.look();
    return true;
  }

  refuseDials(from: string, to: string): void {
    const key = `${from}>${to}`;
    this.#refusals.set(key, (this.#refusals.get(key) ?? 0) + 1);
  }

  acceptDials(from: string, to: string): void {
    const key = `${from}>${to}`;
    const left = (this.#refusals.get(key) ?? 1) - 1;
    if (left > 0) this.#refusals.set(key, left);
    else this.#refusals.delete(key);
  }

  /** The engine is gone: its host resets whatever still comes. */
  close(engine: SimEngine): void {
    for (const [name, known] of this.#engines) if (known === engine) this.#engines.delete(name);
    for (const link of this.#links.values()) {
      if (!hasEnd(link, engine)) continue;
      endOf(link, engine).up = false;
      link.lanesUp = false;
    }
    this.look();
  }

  /** To be called when a path or a process changed: finds the ends that hear nothing from now on. */
  look(): void {
    for (const link of this.#links.values()) {
      for (const [index, end] of link.ends.entries()) {
        if (!end.up) continue;
        const other = link.ends[1 - index] as LinkEnd;
        const quiet =
          !other.up || other.engine.process.state !== "running" || !this.#carries(link, other, end);
        if (!quiet) end.silence = undefined;
        else if (end.silence === undefined) this.#watch(link, end);
      }
      if (!link.lanesUp || link.ends.some((end) => !end.up)) this.#redial(link);
    }
  }

  linkedHosts(): [string, string][] {
    return [...this.#links.keys()].map((key) => key.split("~") as [string, string]);
  }

  #watch(link: Link, end: LinkEnd): void {
    const silence = {};
    end.silence = silence;
    // Pings are as regular as the detection time's fraction that they come in.
    end.engine.thread.after(this.silenceMs * this.#random.between(1, 1.2), () => {
      if (end.silence === silence && end.up) this.#giveUp(link, end, "nothing came for too long");
    });
  }

  #giveUp(link: Link, end: LinkEnd, reason: string): void {
    end.up = false;
    link.lanesUp = false;
    const other = link.ends.find((candidate) => candidate !== end) as LinkEnd;
    if (!other.up) this.#forget(link);
    end.engine.onLinkLost(other.engine, reason);
    this.look();
  }

  #forget(link: Link): void {
    const key = hostPair(link.ends[0].engine.host, link.ends[1].engine.host);
    if (this.#links.get(key) === link) this.#links.delete(key);
  }

  #redial(link: Link): void {
    if (link.dialling) return;
    link.dialling = true;
    this.network.clock.after(this.#random.between(DIAL_MS_MIN, DIAL_MS_MAX), () => {
      link.dialling = false;
      const [first, second] = link.ends;
      const waiting = link.ends.filter((end) => end.up && end.engine.process.state !== "dead");
      if (waiting.length === 0) return this.#forget(link);
      const bothRun = link.ends.every((end) => end.engine.process.state === "running");
      if (!bothRun || !this.#canDial(first.engine, second.engine, link.via)) return this.#redial(link);
      if (waiting.length === 2) {
        link.lanesUp = true;
        this.network.wakePipes();
        this.look();
        return;
      }
      for (const end of waiting) {
        // A closed engine's port doesn't answer at all, so that end waits its time out.
        const other = link.ends.find((candidate) => candidate !== end) as LinkEnd;
        if (other.engine.closed) this.#redial(link);
        else end.engine.thread.deliver(() => end.up && this.#giveUp(link, end, "the other end gave it up"));
      }
    });
  }

  /** TCP's handshake, and a Hello and its answer. */
  #handshakeMs(): number {
    return [1, 2, 3, 4].reduce((sum) => sum + this.network.delayMs(this.#random), 0);
  }

  #join(a: SimEngine, b: SimEngine, via: SimEngine | undefined): void {
    const key = hostPair(a.host, b.host);
    const known = this.#links.get(key);
    // Both dialled at the same time, or the acceptor has kept its end of a link that the dialler has given up.
    if (known?.via === via && known?.ends.every((end) => end.up)) return;
    if (known !== undefined) for (const end of known.ends) end.up = false;
    const end = (engine: SimEngine, from: SimEngine): LinkEnd => ({
      engine,
      up: true,
      silence: undefined,
      pipe: new Pipe(this.network, this.network.random(`${from.host}>${engine.host}`), engine.thread, () =>
        this.#carries(link, endOf(link, from), endOf(link, engine)),
      ),
    });
    const link: Link = { via, ends: [end(a, b), end(b, a)], lanesUp: true, dialling: false };
    this.#links.set(key, link);
    for (const [engine, other] of [
      [a, b],
      [b, a],
    ] as const) {
      this.network.clock.after(this.network.delayMs(this.#random), () =>
        engine.thread.deliver(() => engine.onLinkUp(other)),
      );
    }
    this.look();
  }

  /** Whether bytes get from one end to the other. */
  #carries(link: Link, from: LinkEnd, to: LinkEnd): boolean {
    if (!link.lanesUp) return false;
    const [source, target] = [from.engine.host, to.engine.host];
    if (link.via === undefined) return this.network.isOpen(source, target);
    const { host, process } = link.via;
    return (
      process.state === "running" && this.network.isOpen(source, host) && this.network.isOpen(host, target)
    );
  }

  /** One side that can dial is enough; a handshake needs both directions of the path. */
  #canDial(a: SimEngine, b: SimEngine, via: SimEngine | undefined): boolean {
    return this.reaches(a, b, via) || this.reaches(b, a, via);
  }
}

function hasEnd(link: Link, engine: SimEngine): boolean {
  return link.ends.some((end) => end.engine === engine);
}

function endOf(link: Link, engine: SimEngine): LinkEnd {
  return link.ends[0].engine === engine ? link.ends[0] : link.ends[1];
}

function hostPair(a: string, b: string): string {
  return a < b ? `${a}~${b}` : `${b}~${a}`;
}
