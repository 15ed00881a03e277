/** The whole state of the coordinator's machine as bytes and back: proto/pccl/v1/journal.proto. */
import type { Channel } from "../membership/channel.js";
import type {
  CoordinatorMessage,
  LostPeer,
  LinkFailure,
  OpReport,
  PeerMessage,
  Relay,
  Ring,
} from "../membership/messages.js";
import {
  type Change,
  type CoordinatorState,
  emptyTally,
  type Measurement,
  type Peer,
  recount,
  type Stall,
} from "../membership/state.js";
import type { SyncRecord } from "../membership/election.js";
import type { Participant, Sync } from "../membership/sync.js";
import type { PathRecord } from "../membership/host-paths.js";
import { opKey } from "../membership/verdicts.js";
import type { Call } from "../membership/calls.js";
import type { Endpoint__Output } from "./generated/pccl/v1/Endpoint.js";
import type { LinkFailure__Output } from "./generated/pccl/v1/LinkFailure.js";
import type { LostPeer__Output } from "./generated/pccl/v1/LostPeer.js";
import type { PeerMessage as WirePeerMessage } from "./generated/pccl/v1/PeerMessage.js";
import type { Relay__Output } from "./generated/pccl/v1/Relay.js";
import type { Ring as WireRing, Ring__Output } from "./generated/pccl/v1/Ring.js";
import type {
  _pccl_v1_Snapshot_Change as WireChange,
  _pccl_v1_Snapshot_Change__Output as WireChangeOutput,
  _pccl_v1_Snapshot_Channel as WireChannel,
  _pccl_v1_Snapshot_Channel__Output as WireChannelOutput,
  _pccl_v1_Snapshot_PathRecord__Output as WirePathOutput,
  _pccl_v1_Snapshot_Peer as WirePeer,
  _pccl_v1_Snapshot_Peer__Output as WirePeerOutput,
  _pccl_v1_Snapshot_Stall as WireStall,
  _pccl_v1_Snapshot_Stall__Output as WireStallOutput,
  _pccl_v1_Snapshot_Sync as WireSync,
  _pccl_v1_Snapshot_Sync__Output as WireSyncOutput,
  Snapshot as WireSnapshot,
  Snapshot__Output as WireSnapshotOutput,
} from "./generated/pccl/v1/Snapshot.js";
import { messageType } from "./message-type.js";
import {
  coordinatorMessageFromWire,
  coordinatorMessageToWire,
  opFromWire,
  opToWire,
  peerMessageFromWire,
  peerMessageToWire,
  reportFromWire,
  reportToWire,
} from "./wire.js";

/** The state after the event with this number, and that event's time. */
export interface Snapshot {
  readonly number: number;
  readonly nowMs: number;
  readonly state: CoordinatorState;
}

const snapshotType = messageType<WireSnapshot, WireSnapshotOutput>("pccl.v1.Snapshot");

export function encodeSnapshot({ number, nowMs, state }: Snapshot): Uint8Array {
  const {
    config,
    strangers,
    peers,
    // These follow from the peers.
    peerOf: _peerOf,
    tallies: _tallies,
    total: _total,
    nextPeerId,
    removals,
    epoch,
    installedEpoch,
    rings,
    relays,
    departed,
    change,
    relink,
    unlinkable,
    reports,
    stalls,
    syncs,
    records,
    paths,
    measurements,
    nextMeasurementId,
    optimizing,
    orders,
    tickedAtMs,
    ...rest
  } = state;
  // A field that is added to the state and forgotten here doesn't compile.
  rest satisfies Record<string, never>;
  return snapshotType.encode({
    number,
    nowMs,
    config,
    strangers: [...strangers].map(([connection, stranger]) => ({ connection, ...stranger })),
    peers: [...peers.values()].map(peerToWire),
    nextPeerId,
    removals: [...removals].map(([peerId, reason]) => ({ peerId, reason })),
    epoch,
    installedEpoch,
    rings: rings.map(ringToWire),
    relays: [...relays],
    departed,
    change: change === undefined ? null : changeToWire(change),
    relink: [...relink].map(([group, reason]) => ({ group, reason })),
    unlinkable: [...unlinkable],
    reports: [...reports].map(([peerId, ops]) => ({ peerId, ops: [...ops.values()].map(reportToWire) })),
    stalls: [...stalls].map(([peerId, list]) => ({ peerId, stalls: list.map(stallToWire) })),
    syncs: [...syncs].map(([group, sync]) => syncToWire(group, sync)),
    records: [...records].map(([group, { revision, holders }]) => ({
      group,
      revision,
      holders: [...holders],
    })),
    paths: [...paths].flatMap(([from, found]) => [...found].map(([to, record]) => ({ from, to, ...record }))),
    measurements: [...measurements].map(([id, { from, to, by, deadlineMs }]) => ({
      id,
      from,
      to,
      byTo: by === "to",
      deadlineMs,
    })),
    nextMeasurementId,
    optimizing:
      optimizing === undefined ? null : { queue: optimizing.queue.map(([from, to]) => ({ from, to })) },
    orders: [...orders].map(([group, peerIds]) => ({ group, peerIds: [...peerIds] })),
    ...(tickedAtMs !== undefined && { tickedAtMs }),
  });
}

/** Throws on what encodeSnapshot() didn't write. */
export function decodeSnapshot(bytes: Uint8Array): Snapshot {
  const [wire] = snapshotType.decode(bytes);
  if (!wire?.config) throw new Error("no snapshot");
  const { leaseMs, minPeers, peersMax, key } = wire.config;
  const peers = wire.peers.map(peerFromWire);
  const state: CoordinatorState = {
    config: { leaseMs, minPeers, peersMax, key: Uint8Array.from(key) },
    strangers: new Map(
      wire.strangers.map(({ connection, address, secret, sinceMs }) => [
        Number(connection),
        { address, secret: Uint8Array.from(secret), sinceMs },
      ]),
    ),
    peers: new Map(peers.map((peer) => [peer.id, peer])),
    peerOf: new Map(
      peers.flatMap(({ connection, id }): [number, number][] =>
        connection === undefined ? [] : [[connection, id]],
      ),
    ),
    nextPeerId: Number(wire.nextPeerId),
    removals: new Map(wire.removals.map(({ peerId, reason }) => [Number(peerId), reason])),
    epoch: Number(wire.epoch),
    installedEpoch: Number(wire.installedEpoch),
    rings: wire.rings.map(ringFromWire),
    relays: wire.relays.map(relayFromWire),
    departed: wire.departed.map(lostFromWire),
    change: wire.change ? changeFromWire(wire.change) : undefined,
    relink: new Map(wire.relink.map(({ group, reason }) => [group, reason])),
    unlinkable: new Set(wire.unlinkable),
    reports: new Map(
      wire.reports.map(({ peerId, ops }) => {
        const reports = ops.map((op): [string, OpReport] => {
          const report = reportFromWire(op);
          return [opKey(report), report];
        });
        return [Number(peerId), new Map(reports)];
      }),
    ),
    stalls: new Map(wire.stalls.map(({ peerId, stalls }) => [Number(peerId), stalls.map(stallFromWire)])),
    syncs: new Map(wire.syncs.map((sync) => [sync.group, syncFromWire(sync)])),
    records: new Map(
      wire.records.map(({ group, revision, holders }): [number, SyncRecord] => [
        group,
        { revision: Number(revision), holders: new Set(holders.map(Number)) },
      ]),
    ),
    paths: pathsFromWire(wire.paths),
    measurements: new Map(
      wire.measurements.map(({ id, from, to, byTo, deadlineMs }): [number, Measurement] => [
        Number(id),
        { from: Number(from), to: Number(to), by: byTo ? "to" : "from", deadlineMs },
      ]),
    ),
    nextMeasurementId: Number(wire.nextMeasurementId),
    optimizing: wire.optimizing
      ? { queue: wire.optimizing.queue.map(({ from, to }): [number, number] => [Number(from), Number(to)]) }
      : undefined,
    orders: new Map(wire.orders.map(({ group, peerIds }) => [group, peerIds.map(Number)])),
    tallies: new Map(),
    total: emptyTally(),
    tickedAtMs: wire.tickedAtMs,
  };
  recount(state);
  return { number: Number(wire.number), nowMs: wire.nowMs, state };
}

function pathsFromWire(wire: readonly WirePathOutput[]): CoordinatorState["paths"] {
  const paths: CoordinatorState["paths"] = new Map();
  for (const { from, to, bytesPerSecond, rttMs, measuredAtMs } of wire) {
    const found = paths.get(Number(from)) ?? new Map<number, PathRecord>();
    paths.set(Number(from), found.set(Number(to), { bytesPerSecond, rttMs, measuredAtMs }));
  }
  return paths;
}

function peerToWire(peer: Peer): WirePeer {
  const {
    id,
    secret,
    group,
    endpoint,
    hostId,
    channel,
    connection,
    phase,
    heardAtMs,
    probing,
    reachable,
    call,
    ...rest
  } = peer;
  rest satisfies Record<string, never>;
  return {
    id,
    secret,
    group,
    endpoint,
    hostId,
    channel: channelToWire(channel),
    connection: connection ?? 0,
    admitted: phase === "admitted",
    heardAtMs,
    probing,
    reachable,
    call: call === undefined ? null : callToWire(call),
  };
}

function peerFromWire(wire: WirePeerOutput): Peer {
  const connection = Number(wire.connection);
  return {
    id: Number(wire.id),
    secret: Uint8Array.from(wire.secret),
    group: wire.group,
    endpoint: endpointFromWire(wire.endpoint),
    hostId: wire.hostId,
    channel: channelFromWire(wire.channel),
    connection: connection === 0 ? undefined : connection,
    phase: wire.admitted ? "admitted" : "pending",
    heardAtMs: wire.heardAtMs,
    probing: wire.probing,
    reachable: wire.reachable,
    call: wire.call ? callFromWire(peerMessageFromWire(wire.call).message) : undefined,
  };
}

function endpointFromWire(wire: Endpoint__Output | null): Peer["endpoint"] {
  return { host: wire?.host ?? "", port: wire?.port ?? 0 };
}

function channelToWire({ sent, unacknowledged, received }: Channel<CoordinatorMessage>): WireChannel {
  return {
    sent,
    received,
    // Their numbers follow from `sent`.
    unacknowledged: unacknowledged.map((message) => coordinatorMessageToWire({ seq: 0, ack: 0, message })),
  };
}

function channelFromWire(wire: WireChannelOutput | null): Channel<CoordinatorMessage> {
  return {
    sent: Number(wire?.sent ?? 0),
    received: Number(wire?.received ?? 0),
    unacknowledged: (wire?.unacknowledged ?? []).map(
      (message) => coordinatorMessageFromWire(message).message,
    ),
  };
}

/** A call as the message that began it. */
function callToWire(call: Call): WirePeerMessage {
  return peerMessageToWire({ seq: 0, ack: 0, message: messageOf(call) });
}

function messageOf(call: Call): PeerMessage {
  const { requestId } = call;
  switch (call.kind) {
    case "syncSharedState":
      return call.offer;
    case "updateTopology":
      return { kind: "topology-vote", requestId };
    case "optimizeTopology":
      return { kind: "optimize-vote", requestId, maxAgeMs: call.maxAgeMs };
    case "hasPendingPeers":
      return { kind: "pending-vote", requestId };
  }
}

function callFromWire(message: PeerMessage): Call {
  switch (message.kind) {
    case "sync-offer":
      return { kind: "syncSharedState", requestId: message.requestId, offer: message };
    case "topology-vote":
      return { kind: "updateTopology", requestId: message.requestId };
    case "optimize-vote":
      return { kind: "optimizeTopology", requestId: message.requestId, maxAgeMs: message.maxAgeMs };
    case "pending-vote":
      return { kind: "hasPendingPeers", requestId: message.requestId };
    default:
      throw new Error(`${message.kind} is no call`);
  }
}

function changeToWire(change: Change): WireChange {
  const { reason, attempt, epoch, rings, relays, touched, members, preparing, ...others } = change;
  const { deadlineMs, incomplete, ready, voters, ...rest } = others;
  rest satisfies Record<string, never>;
  return {
    reason,
    attempt,
    epoch,
    rings: rings.map(ringToWire),
    relays: [...relays],
    touched: [...touched],
    members: [...members],
    preparing: [...preparing],
    deadlineMs,
    incomplete,
    ready: [...ready].map(([peerId, failures]) => ({ peerId, failures: [...failures] })),
    voters: [...voters].map(([peerId, requestId]) => ({ peerId, requestId })),
  };
}

function changeFromWire(wire: WireChangeOutput): Change {
  const { reason, attempt, touched, deadlineMs, incomplete } = wire;
  return {
    reason,
    attempt,
    epoch: Number(wire.epoch),
    rings: wire.rings.map(ringFromWire),
    relays: wire.relays.map(relayFromWire),
    touched: new Set(touched),
    members: new Set(wire.members.map(Number)),
    preparing: new Set(wire.preparing.map(Number)),
    deadlineMs,
    incomplete,
    ready: new Map(
      wire.ready.map(({ peerId, failures }): [number, LinkFailure[]] => [
        Number(peerId),
        failures.map((failure: LinkFailure__Output) => ({
          peerId: Number(failure.peerId),
          reason: failure.reason,
        })),
      ]),
    ),
    voters: new Map(wire.voters.map(({ peerId, requestId }) => [Number(peerId), requestId])),
  };
}

function ringToWire({ group, epoch, peerIds, hosts }: Ring): WireRing {
  return { group, epoch, peerIds: [...peerIds], hosts: [...hosts] };
}

function ringFromWire({ group, epoch, peerIds, hosts }: Ring__Output): Ring {
  return { group, epoch: Number(epoch), peerIds: peerIds.map(Number), hosts };
}

function relayFromWire({ a, b, via }: Relay__Output): Relay {
  return { a: Number(a), b: Number(b), via: Number(via) };
}

function lostFromWire({ peerId, group, reason }: LostPeer__Output): LostPeer {
  return { peerId: Number(peerId), group, reason };
}

function stallToWire(stall: Stall): WireStall {
  return { ...opToWire(stall), missing: [...stall.missing], asked: stall.asked ?? 0 };
}

function stallFromWire({ missing, asked, ...op }: WireStallOutput): Stall {
  return {
    ...opFromWire("stalls", op),
    missing: missing.map(Number),
    asked: asked === "0" ? undefined : Number(asked),
  };
}

const PARTICIPANT_STATES = ["fetching", "done", "failed"] as const satisfies Participant["state"][];

function syncToWire(group: number, { revision, receivers, participants }: Sync): WireSync {
  const list = [...participants].map(([peerId, { requestId, background, state }]) => ({
    peerId,
    requestId,
    background,
    state: PARTICIPANT_STATES.indexOf(state),
  }));
  return { group, revision, receivers, participants: list };
}

function syncFromWire({ revision, receivers, participants }: WireSyncOutput): Sync {
  const list = participants.map(({ peerId, requestId, background, state }): [number, Participant] => [
    Number(peerId),
    { requestId, background, state: PARTICIPANT_STATES[state] ?? "failed" },
  ]);
  return { revision: Number(revision), receivers, participants: new Map(list) };
}
