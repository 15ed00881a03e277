/** Messages there and back through the real protobuf encoding, and everything out of range refused. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { membershipService } from "../../src/control/service.js";
import {
  coordinatorMessageFromWire,
  coordinatorMessageToWire,
  peerMessageFromWire,
  peerMessageToWire,
  WireError,
} from "../../src/control/wire.js";
import type { CoordinatorMessage, Envelope, PeerMessage } from "../../src/membership/messages.js";
import type { PeerMessage as WirePeerMessage } from "../../src/control/generated/pccl/v1/PeerMessage.js";

const { Attend } = membershipService.service;

function throughPeerWire(wire: WirePeerMessage): Envelope<PeerMessage> {
  return peerMessageFromWire(Attend.requestDeserialize(Attend.requestSerialize(wire)));
}

const uint = (max: number): fc.Arbitrary<number> => fc.integer({ min: 0, max });
const epoch = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const peerId = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const requestId = uint(2 ** 32 - 1);
const seq = uint(2 ** 32 - 1);
const group = uint(2 ** 32 - 1);
const tag = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const hash = fc.stringMatching(/^[0-9a-f]{32}$/);
const host = fc.constantFrom("10.0.0.1", "::1", "peer.example");
const endpoint = fc.record({ host, port: fc.integer({ min: 1, max: 65_535 }) });
const hostId = fc.string({ maxLength: 64 });
const reason = fc.string({ maxLength: 100 });
const member = fc.record({ peerId, group, endpoint });
const secret = fc.uint8Array({ minLength: 16, maxLength: 16 });
const received = uint(Number.MAX_SAFE_INTEGER);
const ringOp = fc.oneof(
  fc.record({ epoch, tag, seq }),
  fc.record({ epoch, tag, seq, from: peerId, to: peerId }),
);
const about = <T extends object>(rest: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.tuple(ringOp, rest).map(([op, fields]) => ({ ...op, ...fields }));
const worldSize = fc.integer({ min: 1, max: 4_096 });

function enveloped<M>(message: fc.Arbitrary<M>): fc.Arbitrary<Envelope<M>> {
  return fc.record({ seq: received, ack: received, message });
}
const revision = uint(Number.MAX_SAFE_INTEGER);
const state = fc.constantFrom("not-done", "done", "committed", "aborted");
const strategy = fc.constantFrom("enforce-popular", "receive-only", "send-only", "seed");
const name = fc.stringMatching(/^[\w./é]{1,40}$/);
const amount = fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
const kind = <K extends string>(value: K): fc.Arbitrary<K> => fc.constant(value);

const peerMessages: fc.Arbitrary<PeerMessage> = fc.oneof(
  fc.record({ kind: kind("register"), protocolVersion: seq, group, endpoint, hostId }),
  fc.record({ kind: kind("attach"), protocolVersion: seq, peerId, secret, received }),
  fc.record({ kind: kind("heartbeat") }),
  fc.record({
    kind: kind("ready"),
    epoch,
    failures: fc.array(fc.record({ peerId, reason })),
    ops: fc.array(about(fc.record({ state }))),
  }),
  fc.record({ kind: kind("link-lost"), epoch, peerId, reason }),
  fc.record({ kind: kind("pending-vote"), requestId }),
  fc.record({ kind: kind("topology-vote"), requestId }),
  fc.record({ kind: kind("optimize-vote"), requestId, maxAgeMs: amount }),
  fc.record({ kind: kind("topology-query"), requestId }),
  fc.record({
    kind: kind("measured"),
    measurementId: peerId,
    result: fc.oneof(fc.record({ bytesPerSecond: amount, rttMs: amount }), fc.record({ reason })),
  }),
  fc.record({
    kind: kind("sync-offer"),
    requestId,
    revision,
    strategy,
    background: fc.boolean(),
    entries: fc.uniqueArray(
      fc.record({
        name,
        dtype: fc.constantFrom("f32", "i32"),
        count: revision,
        hash,
        allowInequality: fc.boolean(),
      }),
      {
        selector: (entry) => entry.name,
      },
    ),
  }),
  fc.record({ kind: kind("sync-done"), requestId, ok: fc.boolean(), reason }),
  fc.record({ kind: kind("withdraw"), requestId }),
  about(fc.record({ kind: kind("stalled"), missing: fc.array(peerId) })),
  about(fc.record({ kind: kind("abort-answer"), aborted: fc.boolean() })),
  fc.record({ kind: kind("leave") }),
) as fc.Arbitrary<PeerMessage>;

const coordinatorMessages: fc.Arbitrary<CoordinatorMessage> = fc.oneof(
  fc.record({
    kind: kind("registered"),
    peerId,
    leaseMs: fc.integer({ min: 1, max: 600_000 }),
    secret,
  }),
  fc.record({ kind: kind("attached"), received }),
  fc.record({ kind: kind("rejected"), code: reason, message: reason }),
  fc.record({ kind: kind("heartbeat") }),
  fc.record({
    kind: kind("prepare"),
    view: fc.record({
      epoch,
      worldSize,
      ring: fc.record({ group, epoch, peerIds: fc.array(peerId), hosts: fc.array(group) }),
      members: fc.array(member),
      relays: fc.array(fc.record({ a: peerId, b: peerId, via: peerId })),
      key: secret,
    }),
  }),
  fc.record({
    kind: kind("install"),
    epoch,
    worldSize,
    verdicts: fc.array(about(fc.record({ commit: fc.boolean() }))),
    joined: fc.array(fc.record({ peerId, group })),
    lost: fc.array(fc.record({ peerId, group, reason })),
  }),
  about(fc.record({ kind: kind("abort-op"), missing: peerId })),
  fc.record({ kind: kind("pending-answer"), requestId, pending: fc.boolean() }),
  fc.record({
    kind: kind("measure"),
    measurementId: peerId,
    target: member,
    direction: fc.constantFrom("send", "receive"),
  }),
  fc.record({
    kind: kind("topology-info"),
    requestId,
    info: fc.record({
      epoch,
      ring: fc.record({ group, epoch, peerIds: fc.array(peerId), hosts: fc.array(group) }),
      paths: fc.array(
        fc.record({ from: peerId, to: peerId, bytesPerSecond: amount, rttMs: amount, ageMs: amount }),
      ),
    }),
  }),
  fc.record({ kind: kind("topology-answer"), requestId, changed: fc.boolean() }),
  fc.record({
    kind: kind("sync-plan"),
    requestId,
    revision,
    sources: fc.array(fc.record({ member, complete: fc.boolean() }), { maxLength: 32 }),
    share: fc.nat(10),
    shares: fc.integer({ min: 11, max: 1_000 }),
    fetches: fc.array(fc.record({ name, hash })),
  }),
  fc.record({ kind: kind("sync-complete"), requestId, revision }),
  fc.record({ kind: kind("sync-ended"), requestId, revision }),
  fc.record({ kind: kind("call-failed"), requestId, code: reason, message: reason }),
  fc.record({ kind: kind("removed"), reason }),
) as fc.Arbitrary<CoordinatorMessage>;

describe("the wire", () => {
  it("carries every message of a peer unchanged", () => {
    fc.assert(
      fc.property(enveloped(peerMessages), (envelope) => {
        expect(throughPeerWire(peerMessageToWire(envelope))).toEqual(envelope);
      }),
    );
  });

  it("carries every message of the coordinator unchanged", () => {
    fc.assert(
      fc.property(enveloped(coordinatorMessages), (envelope) => {
        const bytes = Attend.responseSerialize(coordinatorMessageToWire(envelope));
        expect(coordinatorMessageFromWire(Attend.responseDeserialize(bytes))).toEqual(envelope);
      }),
    );
  });

  it("turns any bytes into a message or an error, never into something else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          peerMessageFromWire(Attend.requestDeserialize(Buffer.from(bytes)));
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
          expect(error).not.toBeInstanceOf(TypeError);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  const address = { host: "h", port: 1 };
  const entry = { name: "w", dtype: "f32", count: 1, hash: Buffer.alloc(16) };
  const offer = { requestId: 1, revision: 1, strategy: "SYNC_STRATEGY_SEND_ONLY" as const, entries: [entry] };
  it.each<[string, WirePeerMessage, RegExp]>([
    ["no message", {}, /unknown kind/],
    ["a number past 2^53", { heartbeat: {}, seq: "9007199254740993" }, /seq/],
    ["a short secret", { attach: { peerId: 1, secret: Buffer.alloc(15) } }, /attach.secret: 15 bytes/],
    ["nobody's attach", { attach: { secret: Buffer.alloc(16) } }, /attach.peer_id/],
    ["no endpoint", { register: { group: 1 } }, /register.endpoint is missing/],
    ["port 0", { register: { endpoint: { host: "h", port: 0 } } }, /endpoint.port/],
    ["a port too high", { register: { endpoint: { host: "h", port: 65_536 } } }, /endpoint.port/],
    ["a host with a slash", { register: { endpoint: { ...address, host: "a/b" } } }, /not a host/],
    [
      "a long host id",
      { register: { endpoint: address, hostId: "x".repeat(65) } },
      /register.host_id: 65 characters/,
    ],
    ["half a pair of peers", { stalled: { epoch: 1, from: 3 } }, /stalled: from 3 to 0/],
    ["epoch 0", { ready: { epoch: 0 } }, /ready.epoch/],
    ["an epoch past 2^53", { ready: { epoch: "9007199254740993" } }, /ready.epoch/],
    ["an op without a state", { ready: { epoch: 1, ops: [{ epoch: 1 }] } }, /ops.state/],
    ["an unknown op state", { ready: { epoch: 1, ops: [{ epoch: 1, state: 9 as 3 }] } }, /ops.state/],
    ["peer 0", { linkLost: { epoch: 1, peerId: 0 } }, /link_lost.peer_id/],
    ["no strategy", { syncOffer: { ...offer, strategy: 0 } }, /sync_offer.strategy/],
    [
      "a short hash",
      { syncOffer: { ...offer, entries: [{ ...entry, hash: Buffer.alloc(15) }] } },
      /15 bytes/,
    ],
    ["an empty name", { syncOffer: { ...offer, entries: [{ ...entry, name: "" }] } }, /entries.name/],
    ["a long name", { syncOffer: { ...offer, entries: [{ ...entry, name: "é".repeat(257) }] } }, /512 bytes/],
    ["a name twice", { syncOffer: { ...offer, entries: [entry, entry] } }, /"w" occurs twice/],
    ["a strange dtype", { syncOffer: { ...offer, entries: [{ ...entry, dtype: "a b" }] } }, /entries.dtype/],
  ])("refuses %s", (_, wire, message) => {
    expect(() => throughPeerWire(wire)).toThrow(WireError);
    expect(() => throughPeerWire(wire)).toThrow(message);
  });

  it("cuts texts that would fill logs", () => {
    const { message } = throughPeerWire({ linkLost: { epoch: 1, peerId: 1, reason: "x".repeat(100_000) } });
    expect(message.kind === "link-lost" && message.reason.length).toBeLessThan(2_000);
  });
});
