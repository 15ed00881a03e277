/** Makes a scenario's faults happen: at their time, or in the moment for which they wait. */
import { COORDINATOR_HOST, type SimCoordinator } from "./coordinator.js";
import type { DataPlane } from "./links.js";
import type { Network } from "./network.js";
import type { SimPeer } from "./peer.js";
import type { Fault, Moment, PlannedFault } from "./scenario.js";
import { describeFields, type Trace } from "./trace.js";

export interface FaultSurroundings {
  readonly network: Network;
  readonly plane: DataPlane;
  readonly coordinator: SimCoordinator;
  readonly trace: Trace | undefined;
  peerAt(host: string): SimPeer | undefined;
  /** Something keeps these hosts and the coordinator, or the coordinator and everybody, from hearing each other. */
  onDisturbed(hosts: readonly string[]): void;
}

export class Faults {
  /** Faults that had an effect, by kind. */
  readonly counts: Record<string, number> = {};
  readonly #planned: readonly PlannedFault[];
  readonly #troubleMs: number;
  readonly #around: FaultSurroundings;
  /** Those that wait for a moment; after the time of troubles they don't come any more. */
  #waiting: PlannedFault[];
  readonly #taken = new Map<string, number>();
  /** Faults that go on. */
  #active = 0;
  /** Faults whose time is still to come. */
  #coming = 0;
  /** When a fault last began or ended. */
  #changedAtMs = 0;
  /** Pairs of hosts that couldn't link directly. */
  readonly #severed: { readonly pair: readonly [string, string]; readonly untilMs: number }[] = [];

  /** Dials that firewalls refused, from the first host to the second. */
  readonly #refusals: { readonly way: readonly [string, string]; readonly untilMs: number }[] = [];

  /** Hosts that a fault concerned. */
  readonly #touched: { readonly host: string; readonly untilMs: number }[] = [];

  constructor(planned: readonly PlannedFault[], troubleMs: number, around: FaultSurroundings) {
    this.#troubleMs = troubleMs;
    this.#planned = planned;
    this.#around = around;
    this.#waiting = planned.filter(({ when }) => "takes" in when);
  }

  /** Nothing goes wrong any more, and nothing will. */
  get areOver(): boolean {
    return this.#active + this.#coming === 0 && this.#around.network.clock.nowMs >= this.#troubleMs;
  }

  /** For how long nothing has been wrong. */
  get calmMs(): number {
    return this.#active === 0 ? this.#around.network.clock.nowMs - this.#changedAtMs : 0;
  }

  begin(): void {
    for (const { when, fault } of this.#planned) if ("atMs" in when) this.#come(when.atMs, fault);
    this.#around.network.clock.at(this.#troubleMs, () => {
      this.#waiting = [];
    });
  }

  /** Whether something kept these two from linking directly in the time since `sinceMs`. */
  wereSevered(a: string, b: string, sinceMs: number): boolean {
    return this.#severed.some(
      ({ pair, untilMs }) => untilMs >= sinceMs && pair.includes(a) && pair.includes(b),
    );
  }

  /** Whether something kept the first from dialling the second in the time since `sinceMs`. */
  wereRefused(from: string, to: string, sinceMs: number): boolean {
    const refused = this.#refusals.some(
      ({ way, untilMs }) => untilMs >= sinceMs && way[0] === from && way[1] === to,
    );
    return refused || this.wereSevered(from, to, sinceMs);
  }

  /** Whether a fault kept one of these hosts from its work, or from the others, at some time since `sinceMs`. */
  wereTouched(hosts: readonly string[], sinceMs: number): boolean {
    return this.#touched.some(({ host, untilMs }) => untilMs >= sinceMs && hosts.includes(host));
  }

  onTaken(host: string, kind: string): void {
    if (this.#waiting.length === 0) return;
    const key = `${host} ${kind}`;
    const nth = (this.#taken.get(key) ?? 0) + 1;
    this.#taken.set(key, nth);
    const isNow = ({ when }: { when: Moment }): boolean =>
      "takes" in when && when.host === host && when.takes === kind && when.nth === nth;
    const now = this.#waiting.filter(isNow);
    if (now.length === 0) return;
    this.#waiting = this.#waiting.filter((planned) => !isNow(planned));
    for (const { when, fault } of now) {
      const afterMs = "afterMs" in when ? when.afterMs : 0;
      if (afterMs === 0) this.#happen(fault);
      else this.#come(this.#around.network.clock.nowMs + afterMs, fault);
    }
  }

  #come(atMs: number, fault: Fault): void {
    this.#coming++;
    this.#around.network.clock.at(atMs, () => {
      this.#coming--;
      this.#happen(fault);
    });
  }

  #happen(fault: Fault): void {
    const { kind, ...fields } = fault;
    const { trace, network } = this.#around;
    trace?.add(network.clock.nowMs, "FAULT", `${kind} ${describeFields(fields)}`.trimEnd());
    if (this.#apply(fault)) this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    const untilMs = network.clock.nowMs + ("forMs" in fault ? fault.forMs : 0);
    for (const host of hostsOf(fault)) this.#touched.push({ host, untilMs });
    this.#changedAtMs = network.clock.nowMs;
  }

  /** Returns whether there was anything to break. */
  #apply(fault: Fault): boolean {
    const { network, plane, coordinator } = this.#around;
    const peer = "host" in fault ? this.#around.peerAt(fault.host) : undefined;
    const process = peer?.process ?? coordinator.process;
    const hostLives =
      "host" in fault && (fault.host === COORDINATOR_HOST ? coordinator.isRunning : peer?.alive === true);
    switch (fault.kind) {
      case "crash":
      case "leave":
      case "vanish":
        if (peer?.alive !== true) return false;
        if (fault.kind !== "leave") peer.die(fault.kind === "crash");
        else if (peer.user.result === undefined) peer.leave();
        else return false;
        if (fault.kind === "vanish") network.isolate(fault.host);
        return true;
      case "stop":
        if (!hostLives || process.state !== "running") return false;
        process.stop();
        this.#after(fault.forMs, () => process.resume());
        return true;
      case "slow":
        if (!hostLives) return false;
        process.slowMs = fault.eachMs;
        this.#disturb(fault.forMs, [fault.host], () => {
          process.slowMs = 0;
        });
        return true;
      case "busy":
        if (peer?.alive !== true) return false;
        peer.main.block();
        this.#after(fault.forMs, () => peer.main.unblock());
        return true;
      case "cut-control":
        // A peer that doesn't notice finds out by its lease, which the coordinator's may precede.
        if (!fault.noticing[0]) this.#around.onDisturbed([fault.host]);
        return peer?.alive === true && peer.cutControl(fault.noticing);
      case "reset-lanes":
        return plane.resetLanes(...fault.pair);
      case "firewall": {
        const [a, b] = fault.pair;
        const ways = fault.bothWays ? [[a, b] as const, [b, a] as const] : [[a, b] as const];
        for (const way of ways) plane.refuseDials(...way);
        plane.resetLanes(a, b);
        for (const way of ways) this.#severIfRefusedBothWays(way, fault.forMs);
        this.#after(fault.forMs, () => {
          for (const way of ways) plane.acceptDials(...way);
        });
        return true;
      }
      case "partition": {
        const paths = fault.from.flatMap((from) =>
          fault.to.flatMap((to) =>
            fault.bothWays ? [[from, to] as const, [to, from] as const] : [[from, to] as const],
          ),
        );
        for (const path of paths) network.block(...path);
        this.#sever(paths, fault.forMs);
        const hosts = fault.to.includes(COORDINATOR_HOST) ? fault.from : [];
        this.#disturb(fault.forMs, hosts, () => {
          for (const path of paths) network.unblock(...path);
        });
        return true;
      }
      case "restart-coordinator":
        if (!coordinator.isRunning) return false;
        coordinator.crash();
        this.#disturb(fault.downMs, [COORDINATOR_HOST], () => coordinator.restart());
        return true;
    }
  }

  /** Dials from the other side are enough, unless that is refused too. */
  #severIfRefusedBothWays([from, to]: readonly [string, string], forMs: number): void {
    const { nowMs } = this.#around.network.clock;
    const untilMs = nowMs + forMs;
    for (const { way, untilMs: otherUntilMs } of this.#refusals) {
      if (way[0] !== to || way[1] !== from || otherUntilMs <= nowMs) continue;
      this.#sever([way], Math.min(untilMs, otherUntilMs) - nowMs);
    }
    this.#refusals.push({ way: [from, to], untilMs });
  }

  #sever(pairs: readonly (readonly [string, string])[], forMs: number): void {
    const { nowMs } = this.#around.network.clock;
    for (const pair of pairs) this.#severed.push({ pair, untilMs: nowMs + forMs });
  }

  /** A fault that keeps hosts from hearing each other until it ends. */
  #disturb(forMs: number, hosts: readonly string[], end: () => void): void {
    this.#around.onDisturbed(hosts);
    this.#after(forMs, () => {
      end();
      this.#around.onDisturbed(hosts);
    });
  }

  /** The fault goes on for this long. */
  #after(forMs: number, end: () => void): void {
    const { clock } = this.#around.network;
    this.#active++;
    clock.after(forMs, () => {
      this.#active--;
      this.#changedAtMs = clock.nowMs;
      end();
    });
  }
}

/** Those who can't work as before while the fault goes on; ops don't need the main thread. */
function hostsOf(fault: Fault): readonly string[] {
  if (fault.kind === "busy" || fault.kind === "restart-coordinator") return [];
  if (fault.kind === "partition") return [...fault.from, ...fault.to];
  return "pair" in fault ? fault.pair : [fault.host];
}
