/**
 * Between proto/pccl/v1/membership.proto and the domain's messages. What comes from the network is checked here,
 * field by field, so that nothing behind this file sees a number out of range; the domain never sees gRPC.
 */
import {
  GROUP_MAX,
  HOST_ID_CHARACTERS_MAX,
  PEERS_MAX,
  STATE_NAME_BYTES_MAX,
  SYNC_SOURCES_MAX,
  STATE_TENSORS_MAX,
} from "../base/limits.js";
import type {
  CoordinatorMessage,
  Endpoint,
  Envelope,
  LinkFailure,
  Member,
  OpReport,
  OpState,
  OpVerdict,
  PathSpeed,
  PeerMessage,
  Ring,
  RingOp,
  StateEntry,
  SyncFetch,
  SyncSource,
  SyncStrategy,
  View,
} from "../membership/messages.js";
import type {
  CoordinatorMessage as WireCoordinatorMessage,
  CoordinatorMessage__Output as WireCoordinatorOutput,
} from "./generated/pccl/v1/CoordinatorMessage.js";
import type { Endpoint as WireEndpoint, Endpoint__Output } from "./generated/pccl/v1/Endpoint.js";
import type { JoinedPeer__Output } from "./generated/pccl/v1/JoinedPeer.js";
import type { LinkFailure__Output } from "./generated/pccl/v1/LinkFailure.js";
import type { LostPeer__Output } from "./generated/pccl/v1/LostPeer.js";
import type { Member as WireMember, Member__Output } from "./generated/pccl/v1/Member.js";
import type { OpReport as WireOpReport, OpReport__Output } from "./generated/pccl/v1/OpReport.js";
import type { OpVerdict__Output } from "./generated/pccl/v1/OpVerdict.js";
import type {
  PeerMessage as WirePeerMessage,
  PeerMessage__Output as WirePeerOutput,
} from "./generated/pccl/v1/PeerMessage.js";
import type { PathInfo__Output } from "./generated/pccl/v1/PathInfo.js";
import type { PathSpeed__Output } from "./generated/pccl/v1/PathSpeed.js";
import type { Relay__Output } from "./generated/pccl/v1/Relay.js";
import type { Ring as WireRing, Ring__Output } from "./generated/pccl/v1/Ring.js";
import type { StateEntry__Output } from "./generated/pccl/v1/StateEntry.js";
import type { SyncFetch__Output } from "./generated/pccl/v1/SyncFetch.js";
import type { View__Output } from "./generated/pccl/v1/View.js";
import { messageType } from "./message-type.js";

/** A message that breaks the contract; the stream that it came on is ended, nobody else is disturbed. */
export class WireError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "WireError";
  }
}

const KEY_BYTES = 16;
const SECRET_BYTES = 16;
const HASH_BYTES = 16;
const HOST_CHARACTERS_MAX = 255;
const UINT32_MAX = 2 ** 32 - 1;
/** Texts that go into messages of errors and logs; longer ones are cut, for they come from other systems. */
const TEXT_CHARACTERS_MAX = 1_000;

const OP_STATES = {
  OP_STATE_NOT_DONE: "not-done",
  OP_STATE_DONE: "done",
  OP_STATE_COMMITTED: "committed",
  OP_STATE_ABORTED: "aborted",
} as const satisfies Record<string, OpState>;

const STRATEGIES = {
  SYNC_STRATEGY_ENFORCE_POPULAR: "enforce-popular",
  SYNC_STRATEGY_RECEIVE_ONLY: "receive-only",
  SYNC_STRATEGY_SEND_ONLY: "send-only",
  SYNC_STRATEGY_SEED: "seed",
} as const satisfies Record<string, SyncStrategy>;

/** The key of `names` that stands for `value`. */
function nameOf<T extends Record<string, string>>(names: T, value: T[keyof T]): keyof T {
  for (const name in names) if (names[name] === value) return name;
  throw new WireError(`no wire name for ${value}`);
}

function enumOf<T extends Record<string, string>>(field: string, names: T, value: unknown): T[keyof T] {
  if (typeof value === "string" && Object.hasOwn(names, value)) return names[value] as T[keyof T];
  throw new WireError(`${field}: unknown value ${String(value)}`);
}

/** An integer that a double holds exactly, in [min, max]. */
function integer(field: string, value: string | number, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < min || number > max) {
    throw new WireError(`${field}: ${value} is not an integer from ${min} to ${max}`);
  }
  return number;
}

function finite(field: string, value: number, min: number): number {
  if (!Number.isFinite(value) || value < min)
    throw new WireError(`${field}: ${value} is no number from ${min} on`);
  return value;
}

/** Protobuf leaves out what has its default, so a message field that must be there is checked here. */
function present<T>(field: string, value: T | null | undefined): T {
  if (value === null || value === undefined) throw new WireError(`${field} is missing`);
  return value;
}

function atMost<T>(field: string, list: readonly T[], max: number): readonly T[] {
  if (list.length > max) throw new WireError(`${field}: ${list.length} entries, at most ${max} are allowed`);
  return list;
}

function shortText(text: string): string {
  return text.length > TEXT_CHARACTERS_MAX ? `${text.slice(0, TEXT_CHARACTERS_MAX)}…` : text;
}

function bytesOf(field: string, value: Uint8Array, length: number): Uint8Array {
  if (value.length !== length) throw new WireError(`${field}: ${value.length} bytes, expected ${length}`);
  // A plain copy: protobuf's Buffer is a window on the whole message, and would keep all of it alive.
  return Uint8Array.from(value);
}

function hashToHex(field: string, value: Uint8Array): string {
  return Buffer.from(bytesOf(field, value, HASH_BYTES)).toString("hex");
}

function hexToHash(hash: string): Buffer {
  return Buffer.from(hash, "hex");
}

function endpointFromWire(field: string, wire: Endpoint__Output | null, hostRequired: boolean): Endpoint {
  const { host, port } = present(field, wire);
  if (host.length > HOST_CHARACTERS_MAX || /[\s/[\]]/.test(host) || (hostRequired && host === "")) {
    throw new WireError(`${field}: ${JSON.stringify(host.slice(0, 80))} is not a host`);
  }
  return { host, port: integer(`${field}.port`, port, 1, 65_535) };
}

function hostIdFromWire(hostId: string): string {
  if (hostId.length <= HOST_ID_CHARACTERS_MAX) return hostId;
  throw new WireError(
    `register.host_id: ${hostId.length} characters, at most ${HOST_ID_CHARACTERS_MAX} are allowed`,
  );
}

function memberFromWire(field: string, wire: Member__Output): Member {
  return {
    peerId: integer(`${field}.peer_id`, wire.peerId, 1),
    group: integer(`${field}.group`, wire.group, 0, GROUP_MAX),
    endpoint: endpointFromWire(`${field}.endpoint`, wire.endpoint, true),
  };
}

function memberToWire({ peerId, group, endpoint }: Member): WireMember {
  return { peerId, group, endpoint: endpoint satisfies WireEndpoint };
}

function peerIds(field: string, wire: readonly string[]): number[] {
  return atMost(field, wire, PEERS_MAX).map((id) => integer(field, id, 1));
}

const ringType = messageType<WireRing, Ring__Output>("pccl.v1.Ring");
/** Each ring is sent to all of its members. */
const encodedRings = new WeakMap<Ring, Uint8Array>();

function ringToWire(ring: Ring): Buffer {
  let bytes = encodedRings.get(ring);
  if (bytes === undefined) {
    bytes = ringType.encode({ ...ring, peerIds: [...ring.peerIds], hosts: [...ring.hosts] });
    encodedRings.set(ring, bytes);
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function ringFromWire(bytes: Uint8Array): Ring {
  let rings: Ring__Output[];
  try {
    rings = ringType.decode(bytes);
  } catch (error) {
    throw new WireError(`view.ring: ${error instanceof Error ? error.message : String(error)}`);
  }
  const [ring] = rings;
  if (ring === undefined || rings.length > 1) throw new WireError(`view.ring: ${rings.length} rings`);
  return {
    group: integer("view.ring.group", ring.group, 0, GROUP_MAX),
    epoch: integer("view.ring.epoch", ring.epoch, 1),
    peerIds: peerIds("view.ring.peer_ids", ring.peerIds),
    hosts: atMost("view.ring.hosts", ring.hosts, PEERS_MAX),
  };
}

function viewFromWire(wire: View__Output): View {
  return {
    epoch: integer("view.epoch", wire.epoch, 1),
    worldSize: integer("view.world_size", wire.worldSize, 1, PEERS_MAX),
    ring: ringFromWire(wire.ring),
    members: atMost("view.members", wire.members, PEERS_MAX).map((member: Member__Output) =>
      memberFromWire("view.members", member),
    ),
    relays: atMost("view.relays", wire.relays, PEERS_MAX).map((relay: Relay__Output) => ({
      a: integer("view.relays.a", relay.a, 1),
      b: integer("view.relays.b", relay.b, 1),
      via: integer("view.relays.via", relay.via, 1),
    })),
    key: bytesOf("view.key", wire.key, KEY_BYTES),
  };
}

/** What names an op in each of the messages about ops. */
interface WireOp {
  readonly epoch: string;
  readonly tag: string;
  readonly seq: number;
  readonly from: string;
  readonly to: string;
}

export function opFromWire(field: string, wire: WireOp): RingOp {
  const from = integer(`${field}.from`, wire.from, 0);
  const to = integer(`${field}.to`, wire.to, 0);
  if ((from === 0) !== (to === 0)) throw new WireError(`${field}: from ${from} to ${to} is no pair of peers`);
  return {
    epoch: integer(`${field}.epoch`, wire.epoch, 1),
    tag: BigInt(wire.tag),
    seq: integer(`${field}.seq`, wire.seq, 0, UINT32_MAX),
    from: from === 0 ? undefined : from,
    to: to === 0 ? undefined : to,
  };
}

export function opToWire({ epoch, tag, seq, from, to }: RingOp): {
  epoch: number;
  tag: string;
  seq: number;
  from: number;
  to: number;
} {
  return { epoch, tag: tag.toString(), seq, from: from ?? 0, to: to ?? 0 };
}

export function reportFromWire(wire: OpReport__Output): OpReport {
  return { ...opFromWire("ops", wire), state: enumOf("ops.state", OP_STATES, wire.state) };
}

export function reportToWire(report: OpReport): WireOpReport {
  return { ...opToWire(report), state: nameOf(OP_STATES, report.state) };
}

function verdictFromWire(wire: OpVerdict__Output): OpVerdict {
  return { ...opFromWire("verdicts", wire), commit: wire.commit };
}

function failureFromWire(wire: LinkFailure__Output): LinkFailure {
  return { peerId: integer("failures.peer_id", wire.peerId, 1), reason: shortText(wire.reason) };
}

function speedFromWire(wire: PathSpeed__Output): PathSpeed {
  return {
    bytesPerSecond: finite("speed.bytes_per_second", wire.bytesPerSecond, 0),
    rttMs: finite("speed.rtt_ms", wire.rttMs, 0),
  };
}

function entriesFromWire(wire: readonly StateEntry__Output[]): StateEntry[] {
  const names = new Set<string>();
  return atMost("entries", wire, STATE_TENSORS_MAX).map((entry) => {
    if (entry.name === "" || Buffer.byteLength(entry.name) > STATE_NAME_BYTES_MAX) {
      throw new WireError(`entries.name: must have 1 to ${STATE_NAME_BYTES_MAX} bytes`);
    }
    if (names.has(entry.name))
      throw new WireError(`entries.name: ${JSON.stringify(entry.name)} occurs twice`);
    names.add(entry.name);
    if (!/^[a-z0-9]{1,16}$/.test(entry.dtype)) throw new WireError("entries.dtype: not the name of a type");
    return {
      name: entry.name,
      dtype: entry.dtype,
      count: integer("entries.count", entry.count, 0),
      hash: hashToHex("entries.hash", entry.hash),
      allowInequality: entry.allowInequality,
    };
  });
}

/** What a peer sent. Throws WireError. */
export function peerMessageFromWire(wire: WirePeerOutput): Envelope<PeerMessage> {
  return { seq: integer("seq", wire.seq, 0), ack: integer("ack", wire.ack, 0), message: peerMessage(wire) };
}

function peerMessage(wire: WirePeerOutput): PeerMessage {
  switch (wire.message) {
    case "register": {
      const register = present("register", wire.register);
      return {
        kind: "register",
        protocolVersion: register.protocolVersion,
        group: integer("register.group", register.group, 0, GROUP_MAX),
        endpoint: endpointFromWire("register.endpoint", register.endpoint, false),
        hostId: hostIdFromWire(register.hostId),
      };
    }
    case "attach": {
      const attach = present("attach", wire.attach);
      return {
        kind: "attach",
        protocolVersion: attach.protocolVersion,
        peerId: integer("attach.peer_id", attach.peerId, 1),
        secret: bytesOf("attach.secret", attach.secret, SECRET_BYTES),
        received: integer("attach.received", attach.received, 0),
      };
    }
    case "heartbeat":
      return { kind: "heartbeat" };
    case "ready": {
      const ready = present("ready", wire.ready);
      return {
        kind: "ready",
        epoch: integer("ready.epoch", ready.epoch, 1),
        failures: atMost("ready.failures", ready.failures, PEERS_MAX).map(failureFromWire),
        ops: ready.ops.map(reportFromWire),
      };
    }
    case "linkLost": {
      const lost = present("link_lost", wire.linkLost);
      return {
        kind: "link-lost",
        epoch: integer("link_lost.epoch", lost.epoch, 1),
        peerId: integer("link_lost.peer_id", lost.peerId, 1),
        reason: shortText(lost.reason),
      };
    }
    case "pendingVote":
      return { kind: "pending-vote", requestId: present("pending_vote", wire.pendingVote).requestId };
    case "topologyVote":
      return { kind: "topology-vote", requestId: present("topology_vote", wire.topologyVote).requestId };
    case "optimizeVote": {
      const { requestId, maxAgeMs } = present("optimize_vote", wire.optimizeVote);
      return {
        kind: "optimize-vote",
        requestId,
        maxAgeMs: finite("optimize_vote.max_age_ms", maxAgeMs, 0),
      };
    }
    case "topologyQuery":
      return { kind: "topology-query", requestId: present("topology_query", wire.topologyQuery).requestId };
    case "measured": {
      const measured = present("measured", wire.measured);
      return {
        kind: "measured",
        measurementId: integer("measured.measurement_id", measured.measurementId, 1),
        result:
          measured.result === "speed"
            ? speedFromWire(present("measured.speed", measured.speed))
            : { reason: shortText(measured.reason ?? "") },
      };
    }
    case "syncOffer": {
      const offer = present("sync_offer", wire.syncOffer);
      return {
        kind: "sync-offer",
        requestId: offer.requestId,
        revision: integer("sync_offer.revision", offer.revision, 0),
        strategy: enumOf("sync_offer.strategy", STRATEGIES, offer.strategy),
        background: offer.background,
        entries: entriesFromWire(offer.entries),
      };
    }
    case "syncDone": {
      const done = present("sync_done", wire.syncDone);
      return { kind: "sync-done", requestId: done.requestId, ok: done.ok, reason: shortText(done.reason) };
    }
    case "withdraw":
      return { kind: "withdraw", requestId: present("withdraw", wire.withdraw).requestId };
    case "stalled": {
      const stalled = present("stalled", wire.stalled);
      return {
        kind: "stalled",
        ...opFromWire("stalled", stalled),
        missing: peerIds("stalled.missing", stalled.missing),
      };
    }
    case "abortAnswer": {
      const answer = present("abort_answer", wire.abortAnswer);
      return { kind: "abort-answer", ...opFromWire("abort_answer", answer), aborted: answer.aborted };
    }
    case "leave":
      return { kind: "leave" };
    default:
      throw new WireError("a message of an unknown kind");
  }
}

export function peerMessageToWire({ seq, ack, message }: Envelope<PeerMessage>): WirePeerMessage {
  return { ...peerMessageBody(message), seq, ack };
}

function peerMessageBody(message: PeerMessage): WirePeerMessage {
  switch (message.kind) {
    case "register": {
      const { protocolVersion, group, endpoint, hostId } = message;
      return { register: { protocolVersion, group, endpoint, hostId } };
    }
    case "attach": {
      const { protocolVersion, peerId, secret, received } = message;
      return { attach: { protocolVersion, peerId, secret, received } };
    }
    case "heartbeat":
      return { heartbeat: {} };
    case "ready":
      return {
        ready: {
          epoch: message.epoch,
          failures: [...message.failures],
          ops: message.ops.map(reportToWire),
        },
      };
    case "link-lost": {
      const { epoch, peerId, reason } = message;
      return { linkLost: { epoch, peerId, reason } };
    }
    case "pending-vote":
      return { pendingVote: { requestId: message.requestId } };
    case "topology-vote":
      return { topologyVote: { requestId: message.requestId } };
    case "optimize-vote": {
      const { requestId, maxAgeMs } = message;
      return { optimizeVote: { requestId, maxAgeMs } };
    }
    case "topology-query":
      return { topologyQuery: { requestId: message.requestId } };
    case "measured": {
      const { measurementId, result } = message;
      if ("reason" in result) return { measured: { measurementId, reason: result.reason } };
      const { bytesPerSecond, rttMs } = result;
      return { measured: { measurementId, speed: { bytesPerSecond, rttMs } } };
    }
    case "sync-offer":
      return {
        syncOffer: {
          requestId: message.requestId,
          revision: message.revision,
          strategy: nameOf(STRATEGIES, message.strategy),
          background: message.background,
          entries: message.entries.map(({ hash, ...entry }) => ({ ...entry, hash: hexToHash(hash) })),
        },
      };
    case "sync-done": {
      const { requestId, ok, reason } = message;
      return { syncDone: { requestId, ok, reason } };
    }
    case "withdraw":
      return { withdraw: { requestId: message.requestId } };
    case "stalled":
      return { stalled: { ...opToWire(message), missing: [...message.missing] } };
    case "abort-answer":
      return { abortAnswer: { ...opToWire(message), aborted: message.aborted } };
    case "leave":
      return { leave: {} };
  }
}

/** What the coordinator sent. Throws WireError. */
export function coordinatorMessageFromWire(wire: WireCoordinatorOutput): Envelope<CoordinatorMessage> {
  return {
    seq: integer("seq", wire.seq, 0),
    ack: integer("ack", wire.ack, 0),
    message: coordinatorMessage(wire),
  };
}

function coordinatorMessage(wire: WireCoordinatorOutput): CoordinatorMessage {
  switch (wire.message) {
    case "registered": {
      const registered = present("registered", wire.registered);
      return {
        kind: "registered",
        peerId: integer("registered.peer_id", registered.peerId, 1),
        leaseMs: integer("registered.lease_ms", registered.leaseMs, 1),
        secret: bytesOf("registered.secret", registered.secret, SECRET_BYTES),
      };
    }
    case "attached": {
      const { received } = present("attached", wire.attached);
      return { kind: "attached", received: integer("attached.received", received, 0) };
    }
    case "rejected": {
      const rejected = present("rejected", wire.rejected);
      return { kind: "rejected", code: rejected.code, message: rejected.message };
    }
    case "heartbeat":
      return { kind: "heartbeat" };
    case "prepare":
      return { kind: "prepare", view: viewFromWire(present("view", present("prepare", wire.prepare).view)) };
    case "install": {
      const install = present("install", wire.install);
      return {
        kind: "install",
        epoch: integer("install.epoch", install.epoch, 1),
        worldSize: integer("install.world_size", install.worldSize, 1, PEERS_MAX),
        verdicts: install.verdicts.map(verdictFromWire),
        joined: atMost("install.joined", install.joined, PEERS_MAX).map((peer: JoinedPeer__Output) => ({
          peerId: integer("install.joined.peer_id", peer.peerId, 1),
          group: integer("install.joined.group", peer.group, 0, GROUP_MAX),
        })),
        lost: install.lost.map((peer: LostPeer__Output) => ({
          peerId: integer("install.lost.peer_id", peer.peerId, 1),
          group: integer("install.lost.group", peer.group, 0, GROUP_MAX),
          reason: shortText(peer.reason),
        })),
      };
    }
    case "abortOp": {
      const abort = present("abort_op", wire.abortOp);
      return {
        kind: "abort-op",
        ...opFromWire("abort_op", abort),
        missing: integer("abort_op.missing", abort.missing, 1),
      };
    }
    case "pendingAnswer": {
      const { requestId, pending } = present("pending_answer", wire.pendingAnswer);
      return { kind: "pending-answer", requestId, pending };
    }
    case "topologyAnswer": {
      const { requestId, changed } = present("topology_answer", wire.topologyAnswer);
      return { kind: "topology-answer", requestId, changed };
    }
    case "topologyInfo": {
      const { requestId, epoch, ring, paths } = present("topology_info", wire.topologyInfo);
      const info = {
        epoch: integer("topology_info.epoch", epoch, 1),
        ring: ringFromWire(ring),
        paths: paths.map((path: PathInfo__Output) => ({
          from: integer("topology_info.paths.from", path.from, 1),
          to: integer("topology_info.paths.to", path.to, 1),
          bytesPerSecond: finite("topology_info.paths.bytes_per_second", path.bytesPerSecond, 0),
          rttMs: finite("topology_info.paths.rtt_ms", path.rttMs, 0),
          ageMs: finite("topology_info.paths.age_ms", path.ageMs, 0),
        })),
      };
      return { kind: "topology-info", requestId, info };
    }
    case "measure": {
      const { measurementId, target, receives } = present("measure", wire.measure);
      return {
        kind: "measure",
        measurementId: integer("measure.measurement_id", measurementId, 1),
        target: memberFromWire("measure.target", present("measure.target", target)),
        direction: receives ? "receive" : "send",
      };
    }
    case "syncPlan": {
      const plan = present("sync_plan", wire.syncPlan);
      return {
        kind: "sync-plan",
        requestId: plan.requestId,
        revision: integer("sync_plan.revision", plan.revision, 0),
        sources: atMost("sync_plan.sources", plan.sources, 2 * SYNC_SOURCES_MAX).map(
          ({ member, complete }): SyncSource => ({
            member: memberFromWire("sync_plan.sources.member", present("member", member)),
            complete,
          }),
        ),
        share: plan.share,
        shares: integer("sync_plan.shares", plan.shares, plan.share + 1),
        fetches: plan.fetches.map(
          (fetch: SyncFetch__Output): SyncFetch => ({
            name: fetch.name,
            hash: hashToHex("sync_plan.fetches.hash", fetch.hash),
          }),
        ),
      };
    }
    case "syncComplete": {
      const complete = present("sync_complete", wire.syncComplete);
      return {
        kind: "sync-complete",
        requestId: complete.requestId,
        revision: integer("sync_complete.revision", complete.revision, 0),
      };
    }
    case "syncEnded": {
      const { requestId, revision } = present("sync_ended", wire.syncEnded);
      return { kind: "sync-ended", requestId, revision: integer("sync_ended.revision", revision, 0) };
    }
    case "callFailed": {
      const { requestId, code, message } = present("call_failed", wire.callFailed);
      return { kind: "call-failed", requestId, code, message };
    }
    case "removed":
      return { kind: "removed", reason: present("removed", wire.removed).reason };
    default:
      throw new WireError("a message of an unknown kind");
  }
}

export function coordinatorMessageToWire({
  seq,
  ack,
  message,
}: Envelope<CoordinatorMessage>): WireCoordinatorMessage {
  return { ...coordinatorMessageBody(message), seq, ack };
}

function coordinatorMessageBody(message: CoordinatorMessage): WireCoordinatorMessage {
  switch (message.kind) {
    case "registered": {
      const { peerId, leaseMs, secret } = message;
      return { registered: { peerId, leaseMs, secret } };
    }
    case "attached":
      return { attached: { received: message.received } };
    case "rejected":
      return { rejected: { code: message.code, message: message.message } };
    case "heartbeat":
      return { heartbeat: {} };
    case "prepare": {
      const { epoch, worldSize, ring, members, relays, key } = message.view;
      return {
        prepare: {
          view: {
            epoch,
            worldSize,
            ring: ringToWire(ring),
            members: members.map(memberToWire),
            relays: [...relays],
            key,
          },
        },
      };
    }
    case "install":
      return {
        install: {
          epoch: message.epoch,
          worldSize: message.worldSize,
          verdicts: message.verdicts.map((verdict) => ({ ...opToWire(verdict), commit: verdict.commit })),
          joined: [...message.joined],
          lost: [...message.lost],
        },
      };
    case "abort-op":
      return { abortOp: { ...opToWire(message), missing: message.missing } };
    case "pending-answer": {
      const { requestId, pending } = message;
      return { pendingAnswer: { requestId, pending } };
    }
    case "topology-answer": {
      const { requestId, changed } = message;
      return { topologyAnswer: { requestId, changed } };
    }
    case "topology-info": {
      const { epoch, ring, paths } = message.info;
      return {
        topologyInfo: { requestId: message.requestId, epoch, ring: ringToWire(ring), paths: [...paths] },
      };
    }
    case "measure": {
      const { measurementId, target, direction } = message;
      return { measure: { measurementId, target: memberToWire(target), receives: direction === "receive" } };
    }
    case "sync-plan":
      return {
        syncPlan: {
          requestId: message.requestId,
          revision: message.revision,
          sources: message.sources.map(({ member, complete }) => ({
            member: memberToWire(member),
            complete,
          })),
          share: message.share,
          shares: message.shares,
          fetches: message.fetches.map(({ name, hash }) => ({ name, hash: hexToHash(hash) })),
        },
      };
    case "sync-complete": {
      const { requestId, revision } = message;
      return { syncComplete: { requestId, revision } };
    }
    case "sync-ended": {
      const { requestId, revision } = message;
      return { syncEnded: { requestId, revision } };
    }
    case "call-failed": {
      const { requestId, code, message: text } = message;
      return { callFailed: { requestId, code, message: text } };
    }
    case "removed":
      return { removed: { reason: message.reason } };
  }
}
