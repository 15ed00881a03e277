/**
 * A run as data, drawn from its seed before it begins: who is there, and everything that goes wrong, when. So a run
 * can be made smaller by taking things out of it (shrink.ts). Only delays are drawn on the way.
 */
import { FULLY_LINKED_MAX } from "../base/limits.js";
import { COORDINATOR_HOST } from "./coordinator.js";
import type { Latency } from "./network.js";
import type { ClockError } from "./process.js";
import type { Deviation } from "./program.js";
import { Random } from "./random.js";

/** A time, or one some time after a process took a message of a kind, or committed an op, for the nth time. */
export type Moment =
  | { readonly atMs: number }
  | { readonly host: string; readonly takes: string; readonly nth: number; readonly afterMs: number };

/** Which ends of a stream hear that it was cut: the peer's, the coordinator's. */
type Noticing = readonly [peer: boolean, coordinator: boolean];

export type Fault =
  /** kill -9: the host closes the connections. */
  | { readonly kind: "crash"; readonly host: string }
  /** Power loss: nobody hears from the host again. */
  | { readonly kind: "vanish"; readonly host: string }
  | { readonly kind: "leave"; readonly host: string }
  | { readonly kind: "stop"; readonly host: string; readonly forMs: number }
  | { readonly kind: "slow"; readonly host: string; readonly forMs: number; readonly eachMs: number }
  /** User code keeps the main thread; the others go on. */
  | { readonly kind: "busy"; readonly host: string; readonly forMs: number }
  | { readonly kind: "cut-control"; readonly host: string; readonly noticing: Noticing }
  | { readonly kind: "reset-lanes"; readonly pair: readonly [string, string] }
  /** Dials from the first to the second come to nothing; with `bothWays` the other ones too. */
  | {
      readonly kind: "firewall";
      readonly pair: readonly [string, string];
      readonly bothWays: boolean;
      readonly forMs: number;
    }
  /** Nothing gets from these hosts to those ones; with `bothWays` nothing back either. */
  | {
      readonly kind: "partition";
      readonly from: readonly string[];
      readonly to: readonly string[];
      readonly bothWays: boolean;
      readonly forMs: number;
    }
  | { readonly kind: "restart-coordinator"; readonly downMs: number };

export interface PlannedFault {
  readonly when: Moment;
  readonly fault: Fault;
}

export interface PlannedPeer {
  readonly host: string;
  readonly group: number;
  /** What it says of the machine that it is on; faults take each host by itself all the same. */
  readonly machine: string;
  readonly joinsAtMs: number;
  readonly clock: ClockError;
}

/** What a user does at the nth call, or the nth place in the program. */
export type Quirk =
  | { readonly kind: "deviate"; readonly host: string; readonly nth: number; readonly to: Deviation }
  | { readonly kind: "withdraw"; readonly host: string; readonly nth: number; readonly afterMs: number }
  | { readonly kind: "misfit"; readonly host: string; readonly nth: number };

export interface Scenario {
  readonly seed: number;
  readonly leaseMs: number;
  readonly coordinatorTimeoutMs: number;
  readonly minPeers: number;
  readonly steps: number;
  /** Faults begin and newcomers come in this time. */
  readonly troubleMs: number;
  readonly latency: Latency;
  readonly coordinatorClock: ClockError;
  /** How long a write takes to be on the coordinator's disk; undefined: it keeps no state. */
  readonly syncMsMax: number | undefined;
  readonly peers: readonly PlannedPeer[];
  readonly faults: readonly PlannedFault[];
  readonly quirks: readonly Quirk[];
}

/** About what a step takes when nothing goes wrong, without the time of its messages. */
const STEP_MS = 500;

/** A kind for each fault that is drawn, as often as it is worth it. */
const FAULT_KINDS: readonly Fault["kind"][] = [
  "crash",
  "crash",
  "vanish",
  "leave",
  "leave",
  "stop",
  "stop",
  "stop",
  "stop",
  "slow",
  "busy",
  "cut-control",
  "cut-control",
  "reset-lanes",
  "reset-lanes",
  "firewall",
  "partition",
  "partition",
  "restart-coordinator",
  "restart-coordinator",
];

export function drawScenario(seed: number): Scenario {
  const random = new Random(seed, "scenario");
  const leaseMs = random.chance(0.7) ? 5_000 : random.between(2_000, 10_000);
  const groups = random.chance(0.3) ? 2 : 1;
  const steps = 3 + random.below(random.chance(0.8) ? 6 : 20);
  const usualMsMax = random.pick([2, 20, 20, 150]) as number;
  const troubleMs = steps * (STEP_MS + 10 * usualMsMax);
  const clock = (): ClockError =>
    random.chance(0.5)
      ? { offsetMs: 0, rate: 1 }
      : { offsetMs: random.between(-1e6, 1e9), rate: 1 + random.between(-0.01, 0.01) };
  // Now and then a world so large that its rings don't link everybody with everybody.
  const first = random.chance(0.02)
    ? FULLY_LINKED_MAX - 1 + random.below(6)
    : 2 + random.below(random.chance(0.3) ? 9 : 5);
  const later = random.below(4);
  const peers = Array.from(
    { length: first + later },
    (_, index): PlannedPeer => ({
      host: `h${index}`,
      group: random.below(groups),
      machine: random.pick(["", "a", "b"]) as string,
      joinsAtMs: index < first ? random.between(0, 500) : random.between(500, troubleMs),
      clock: clock(),
    }),
  );
  const hosts = peers.map((peer) => peer.host);
  // Many faults of one or two kinds find other things than a few of all kinds.
  const isSwarm = random.chance(0.4);
  const kinds = isSwarm ? [random.pick(FAULT_KINDS), random.pick(FAULT_KINDS)] : FAULT_KINDS;
  const faults: PlannedFault[] = [];
  for (let left = random.below(isSwarm ? 14 : 7); left > 0; left--) {
    const fault = drawFault(random, random.pick(kinds) as Fault["kind"], hosts, leaseMs);
    const previous = faults.at(-1)?.when;
    // Troubles like company.
    const when =
      previous !== undefined && random.chance(0.5)
        ? soonAfter(random, previous)
        : drawMoment(random, fault, troubleMs);
    faults.push({ when, fault });
  }
  return {
    seed,
    leaseMs,
    coordinatorTimeoutMs: random.between(10_000, 60_000),
    minPeers: 1 + random.below(3),
    steps,
    troubleMs,
    latency: {
      usualMsMax,
      slowShare: random.pick([0, 0.02, 0.05]) as number,
      slowMsMax: random.between(50, leaseMs / 4),
    },
    coordinatorClock: clock(),
    syncMsMax: random.chance(0.7) ? (random.pick([1, 20, 400]) as number) : undefined,
    peers,
    faults,
    quirks: drawQuirks(random, hosts),
  };
}

function drawMoment(random: Random, fault: Fault, troubleMs: number): Moment {
  if (random.chance(0.4)) return { atMs: random.between(100, troubleMs) };
  const victim = "host" in fault ? fault.host : "pair" in fault ? fault.pair[0] : COORDINATOR_HOST;
  const host = random.chance(0.4) ? COORDINATOR_HOST : victim;
  const takes = random.pick(host === COORDINATOR_HOST ? COORDINATOR_TAKES : PEER_TAKES) as string;
  // What one peer takes twice the coordinator takes from all of them.
  const nth = 1 + random.below(host === COORDINATOR_HOST ? 20 : 5);
  return { host, takes, nth, afterMs: random.chance(0.4) ? 0 : random.between(0, 50) };
}

function soonAfter(random: Random, moment: Moment): Moment {
  const laterMs = random.between(0, random.chance(0.7) ? 60 : 400);
  return "atMs" in moment
    ? { atMs: moment.atMs + laterMs }
    : { ...moment, afterMs: moment.afterMs + laterMs };
}

const PEER_TAKES = [
  "commit",
  "commit",
  "registered",
  "attached",
  "prepare",
  "prepare",
  "prepare",
  "install",
  "sync-plan",
  "sync-complete",
  "topology-answer",
  "measure",
];
const COORDINATOR_TAKES = [
  "register",
  "attach",
  "ready",
  "ready",
  "ready",
  "topology-vote",
  "optimize-vote",
  "measured",
  "pending-vote",
  "sync-offer",
  "sync-done",
];

function drawFault(random: Random, kind: Fault["kind"], hosts: readonly string[], leaseMs: number): Fault {
  const host = random.pick(hosts) as string;
  const pair = [host, random.pick(hosts.filter((candidate) => candidate !== host)) as string] as const;
  const anybody = random.chance(0.2) ? COORDINATOR_HOST : host;
  const forMs = random.chance(0.5)
    ? random.between(50, leaseMs / 2)
    : random.between(leaseMs / 2, 3 * leaseMs);
  switch (kind) {
    case "crash":
    case "vanish":
    case "leave":
      return { kind, host };
    case "stop":
      return { kind, host: anybody, forMs };
    case "slow":
      return { kind, host: anybody, forMs, eachMs: random.between(5, 200) };
    case "busy":
      return { kind, host, forMs: 2 * forMs };
    case "cut-control": {
      const isSeen = random.chance(0.5);
      return { kind, host, noticing: [isSeen || random.chance(0.5), isSeen || random.chance(0.5)] };
    }
    case "reset-lanes":
      return { kind, pair };
    case "firewall":
      return { kind, pair, bothWays: random.chance(0.7), forMs: 2 * forMs };
    case "partition":
      return { ...drawPartition(random, hosts), forMs };
    case "restart-coordinator":
      return { kind, downMs: random.between(0, random.chance(0.9) ? 2_000 : 30_000) };
  }
}

/** Some hosts against the rest, or one path alone; the coordinator is on either side, or on both. */
function drawPartition(
  random: Random,
  hosts: readonly string[],
): Omit<Fault & { kind: "partition" }, "forMs"> {
  const from = random.chance(0.5) ? [random.pick(hosts) as string] : hosts.filter(() => random.chance(0.3));
  const others = hosts.filter((host) => !from.includes(host));
  const to = random.pick([
    [COORDINATOR_HOST],
    [...others, COORDINATOR_HOST],
    others,
    others.slice(0, 1),
  ]) as readonly string[];
  return { kind: "partition", from, to, bothWays: random.chance(0.7) };
}

function drawQuirks(random: Random, hosts: readonly string[]): Quirk[] {
  const some = (share: number, draw: (host: string) => Quirk): Quirk[] =>
    random.chance(share)
      ? Array.from({ length: 1 + random.below(3) }, () => draw(random.pick(hosts) as string))
      : [];
  return [
    ...some(0.2, (host) => ({
      kind: "deviate",
      host,
      nth: random.below(10),
      to: random.pick(["update-topology", "optimize-topology", "sync"] as const) as Deviation,
    })),
    ...some(0.3, (host) => ({
      kind: "withdraw",
      host,
      nth: random.below(25),
      afterMs: random.chance(0.3) ? random.between(0, 10) : random.between(0, 1_500),
    })),
    ...some(0.15, (host) => ({ kind: "misfit", host, nth: random.below(25) })),
  ];
}
