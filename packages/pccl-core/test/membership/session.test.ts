/** The peer's session: what it tells the coordinator, the engine and its user, in every phase. */
import { beforeEach, describe, expect, it } from "vitest";
import { UNNUMBERED } from "../../src/membership/channel.js";
import {
  HEARTBEATS_PER_LEASE,
  HEARTBEATS_UNANSWERED_MAX,
  LEASE_DEFAULT_MS,
  PROTOCOL_VERSION,
} from "../../src/base/limits.js";
import type { CoordinatorMessage, OpVerdict, PeerMessage, View } from "../../src/membership/messages.js";
import {
  createSession,
  type SessionEffect,
  type SessionEvent,
  type SessionState,
  stepSession,
} from "../../src/membership/session.js";
import type { SessionRequest } from "../../src/membership/session-protocol.js";
import { op } from "./world.js";

const LEASE_MS = 1_000;
const COORDINATOR_TIMEOUT_MS = 20_000;
const NOT_NUMBERED: ReadonlySet<string> = new Set([
  "registered",
  "attached",
  "rejected",
  "heartbeat",
  "removed",
]);
const config = {
  group: 0,
  advertise: { host: "", port: 1_002 },
  hostId: "h1",
  coordinatorTimeoutMs: COORDINATOR_TIMEOUT_MS,
};
const secret = new Uint8Array(16).fill(3);
const key = new Uint8Array(16).fill(9);
let session: SessionState;
let nowMs: number;

beforeEach(() => {
  session = createSession(config);
  nowMs = 0;
  told = 0;
});

const step = (event: SessionEvent): SessionEffect[] => stepSession(session, event, nowMs);
/** Of the coordinator: the last number given out, and the last one that came. */
const heard = 0;
let told: number;
const hear = (message: CoordinatorMessage): SessionEffect[] => {
  const seq = NOT_NUMBERED.has(message.kind) ? UNNUMBERED : ++told;
  return step({ kind: "message", seq, ack: heard, message });
};
const ask = (request: SessionRequest): SessionEffect[] => step({ kind: "request", request });
const tick = (afterMs: number): SessionEffect[] => {
  nowMs += afterMs;
  return step({ kind: "tick" });
};

function view(epoch: number, ...ids: number[]): View {
  const members = ids
    .filter((peerId) => peerId !== 2)
    .map((peerId) => ({ peerId, group: 0, endpoint: { host: `h${peerId}`, port: 1_000 + peerId } }));
  return {
    epoch,
    worldSize: ids.length + 1,
    ring: { group: 0, epoch, peerIds: ids, hosts: ids.map((id) => id % 2) },
    members,
    relays: [],
    key,
  };
}

function install(epoch: number, verdicts: readonly OpVerdict[] = []): CoordinatorMessage {
  return { kind: "install", epoch, worldSize: 3, verdicts, joined: [], lost: [] };
}

/** Registers this peer as peer 2 and installs epoch 1 with peers 1 and 2. */
function admit(): void {
  step({ kind: "connected" });
  hear({ kind: "registered", peerId: 2, leaseMs: LEASE_MS, secret });
  hear({ kind: "prepare", view: view(1, 1, 2) });
  step({ kind: "prepared", epoch: 1, failures: [], ops: [] });
  hear(install(1));
}

const sent = (message: PeerMessage): unknown => expect.objectContaining({ kind: "send", message });
const reply = (id: number, value: unknown): SessionEffect =>
  ({ kind: "notify", notice: { kind: "reply", id, value } }) as SessionEffect;
const failed = (id: number, code: string): unknown =>
  expect.objectContaining({
    notice: { kind: "reply", id, error: { code, message: expect.any(String) } },
  });
const ended = (code: string, message: RegExp): unknown => ({
  kind: "notify",
  notice: { kind: "ended", error: { code, message: expect.stringMatching(message) } },
});

describe("joining", () => {
  it("registers, waits, and is admitted by the first install", () => {
    expect(step({ kind: "connected" })).toEqual([
      sent({
        kind: "register",
        protocolVersion: PROTOCOL_VERSION,
        group: 0,
        endpoint: { host: "", port: 1_002 },
        hostId: "h1",
      }),
    ]);
    expect(hear({ kind: "registered", peerId: 2, leaseMs: LEASE_MS, secret })).toEqual([
      { kind: "notify", notice: { kind: "pending", peerId: 2 } },
    ]);
    expect(hear({ kind: "prepare", view: view(1, 1, 2) })).toEqual([
      {
        kind: "engine-prepare",
        timeoutMs: expect.any(Number),
        view: {
          epoch: 1,
          viewEpoch: 1,
          peerId: 2,
          key,
          ring: [
            { peerId: 1, host: "h1", port: 1_001 },
            { peerId: 2, host: "", port: 0 },
          ],
          hosts: [1, 0],
          worldSize: 3,
          silenceMs: LEASE_MS,
          relays: [],
        },
      },
    ]);
    expect(step({ kind: "prepared", epoch: 1, failures: [], ops: [] })).toEqual([
      sent({ kind: "ready", epoch: 1, failures: [], ops: [] }),
    ]);
    expect(hear(install(1))).toEqual([
      { kind: "engine-install", epoch: 1, verdicts: [] },
      {
        kind: "notify",
        notice: {
          kind: "admitted",
          peerId: 2,
          view: { epoch: 1, worldSize: 3, ring: [1, 2], joined: [], lost: [] },
        },
      },
    ]);
  });

  it.each<[CoordinatorMessage, string, RegExp]>([
    [
      { kind: "rejected", code: "ERR_PCCL_VERSION_MISMATCH", message: "1 and 2" },
      "ERR_PCCL_VERSION_MISMATCH",
      /refused: 1 and 2/,
    ],
    [{ kind: "removed", reason: "no route" }, "ERR_PCCL_REMOVED", /no route/],
  ])("ends with %j", (message, code, text) => {
    step({ kind: "connected" });
    expect(hear(message)).toEqual([ended(code, text)]);
  });

  it("ends when the coordinator can't be reached", () => {
    const error = { code: "ERR_PCCL_COORDINATOR_UNREACHABLE", message: "refused" };
    expect(step({ kind: "failed", error })).toEqual([{ kind: "notify", notice: { kind: "ended", error } }]);
    expect(ask({ id: 1, kind: "update-topology" })).toEqual([failed(1, error.code)]);
  });

  it("has no calls before it is admitted", () => {
    step({ kind: "connected" });
    hear({ kind: "registered", peerId: 2, leaseMs: LEASE_MS, secret });
    expect(ask({ id: 1, kind: "has-pending-peers" })).toEqual([failed(1, "ERR_PCCL_NOT_INSTALLED")]);
  });
});

describe("views", () => {
  beforeEach(admit);

  it("reports the frozen epoch's ops, and passes on the verdicts about it", () => {
    hear({ kind: "prepare", view: view(2, 2) });
    const { epoch: _, ...report } = op(1, 7n, "done");
    expect(step({ kind: "prepared", epoch: 2, failures: [], ops: [report] })).toEqual([
      sent({ kind: "ready", epoch: 2, failures: [], ops: [op(1, 7n, "done")] }),
    ]);
    const verdicts = [
      { epoch: 1, tag: 7n, seq: 0, commit: true },
      { epoch: 9, tag: 8n, seq: 0, commit: true },
    ];
    expect(hear(install(2, verdicts))).toMatchObject([
      { kind: "engine-install", epoch: 2, verdicts: [{ tag: 7n, seq: 0, commit: true }] },
      { kind: "notify", notice: { kind: "installed", view: { epoch: 2, ring: [2] } } },
    ]);
  });

  it("only hears of a view that leaves its ring as it is", () => {
    const lost = [{ peerId: 50, group: 1, reason: "it left" }];
    expect(hear({ ...install(2), kind: "install", worldSize: 2, lost } as CoordinatorMessage)).toEqual([
      { kind: "engine-set-world", epoch: 2, worldSize: 2 },
      {
        kind: "notify",
        notice: {
          kind: "installed",
          view: { epoch: 2, worldSize: 2, ring: [1, 2], joined: [], lost },
        },
      },
    ]);
    // The ring's ops keep the name of the ring.
    hear({ kind: "prepare", view: view(3, 2) });
    const { epoch: _, ...report } = op(1, 7n, "done");
    expect(step({ kind: "prepared", epoch: 3, failures: [], ops: [report] })).toMatchObject([
      { message: { epoch: 3, ops: [{ epoch: 1 }] } },
    ]);
  });

  it("reaches a member through a relay, and relays for others", () => {
    const endpoint = { host: "h4", port: 1_004 };
    const relayed = {
      ...view(2, 1, 2, 3, 4),
      relays: [
        { a: 2, b: 3, via: 4 },
        { a: 4, b: 1, via: 2 },
      ],
    };
    expect(hear({ kind: "prepare", view: relayed })).toMatchObject([
      {
        view: {
          ring: [
            { peerId: 1 },
            { peerId: 2 },
            { peerId: 3, ...endpoint, via: 4 },
            { peerId: 4, ...endpoint },
          ],
          relays: [{ a: 4, b: 1 }],
        },
      },
    ]);
  });

  it("answers only the newest of two Prepares, still about the installed epoch", () => {
    hear({ kind: "prepare", view: view(2, 1, 2) });
    hear({ kind: "prepare", view: view(3, 2) });
    expect(step({ kind: "prepared", epoch: 2, failures: [], ops: [] })).toEqual([]);
    const { epoch: _, ...report } = op(1, 7n, "not-done");
    expect(step({ kind: "prepared", epoch: 3, failures: [], ops: [report] })).toMatchObject([
      { message: { epoch: 3, ops: [{ epoch: 1 }] } },
    ]);
  });

  it("tells of lost links, in the epoch that they count in", () => {
    const lost = (epoch: number, peerId = 1): SessionEffect[] =>
      step({ kind: "link-lost", epoch, peerId, reason: "reset" });
    expect(lost(1)).toMatchObject([{ message: { kind: "link-lost", epoch: 1, peerId: 1, reason: "reset" } }]);
    expect(lost(0)).toEqual([]);
    hear({ kind: "prepare", view: view(2, 1, 2) });
    expect(lost(1)).toMatchObject([{ message: { epoch: 1 } }]);
    step({ kind: "prepared", epoch: 2, failures: [], ops: [] });
    expect(lost(1)).toMatchObject([{ message: { epoch: 2 } }]);
    expect(lost(1, 9)).toMatchObject([{ message: { epoch: 1 } }]);
  });

  it.each<[string, CoordinatorMessage]>([
    ["an install that is no news", install(1)],
    ["an epoch that doesn't rise", { kind: "prepare", view: view(1, 1, 2) }],
    ["a view without this peer", { kind: "prepare", view: view(2, 1, 3) }],
    [
      "a ring of another group",
      { kind: "prepare", view: { ...view(2, 2), ring: { group: 1, epoch: 2, peerIds: [2], hosts: [0] } } },
    ],
    [
      "a ring whose hosts aren't told",
      { kind: "prepare", view: { ...view(2, 2), ring: { group: 0, epoch: 2, peerIds: [2], hosts: [] } } },
    ],
    ["a second registration", { kind: "registered", peerId: 3, leaseMs: 1, secret }],
    ["the end of a sync that it isn't in", { kind: "sync-complete", requestId: 1, revision: 1 }],
    ["an answer without its number", { kind: "attached", received: 0 }],
  ])("ends rather than follow %s", (_, message) => {
    expect(hear(message)).toEqual([{ kind: "end" }, ended("ERR_PCCL_INTERNAL", /broke the protocol/)]);
  });
});

describe("calls", () => {
  beforeEach(admit);
  const entry = { name: "w", dtype: "f32", count: 1, hash: "a".repeat(32), allowInequality: false };
  const offer: SessionRequest = {
    id: 5,
    kind: "sync-offer",
    revision: 3,
    strategy: "send-only",
    background: true,
    entries: [entry],
  };
  const plan: CoordinatorMessage = {
    kind: "sync-plan",
    requestId: 5,
    revision: 3,
    sources: [],
    share: 0,
    shares: 1,
    fetches: [],
  };
  const done: SessionRequest = { id: 6, kind: "sync-done", ok: true, reason: "" };
  const failure: CoordinatorMessage & { kind: "call-failed" } = {
    kind: "call-failed",
    requestId: 5,
    code: "ERR_PCCL_PEER_LOST",
    message: "peer 9 is gone.",
  };

  it("carries votes and their answers", () => {
    expect(ask({ id: 3, kind: "has-pending-peers" })).toEqual([sent({ kind: "pending-vote", requestId: 3 })]);
    expect(hear({ kind: "pending-answer", requestId: 3, pending: true })).toEqual([reply(3, true)]);
    expect(hear({ kind: "pending-answer", requestId: 3, pending: true })).toEqual([]);
    ask({ id: 4, kind: "update-topology" });
    expect(hear({ kind: "topology-answer", requestId: 4, changed: false })).toEqual([reply(4, false)]);
    ask({ id: 7, kind: "update-topology" });
    expect(hear({ ...failure, requestId: 7 })).toEqual([failed(7, "ERR_PCCL_PEER_LOST")]);
  });

  it("carries a sync from offer to completion", () => {
    const { id: _, ...body } = offer;
    expect(ask(offer)).toEqual([sent({ ...body, requestId: 5 })]);
    expect(hear(plan)).toEqual([reply(5, { revision: 3, sources: [], share: 0, shares: 1, fetches: [] })]);
    expect(ask(done)).toEqual([sent({ kind: "sync-done", requestId: 5, ok: true, reason: "" })]);
    expect(hear({ kind: "sync-complete", requestId: 5, revision: 3 })).toEqual([reply(6, 3)]);
    expect(ask({ ...done, id: 8 })).toEqual([failed(8, "ERR_PCCL_STATE_FETCH_FAILED")]);
    const notice = { kind: "sync-ended", offerId: 5 };
    expect(hear({ kind: "sync-ended", requestId: 5, revision: 3 })).toEqual([{ kind: "notify", notice }]);
  });

  it("fails a sync before its plan, between plan and done, and after done", () => {
    ask(offer);
    expect(hear(failure)).toEqual([failed(5, "ERR_PCCL_PEER_LOST")]);
    ask(offer);
    hear(plan);
    const { code, message } = failure;
    expect(hear(failure)).toEqual([
      { kind: "notify", notice: { kind: "sync-failed", offerId: 5, error: { code, message } } },
    ]);
    ask(offer);
    hear(plan);
    ask(done);
    expect(hear(failure)).toEqual([failed(6, "ERR_PCCL_PEER_LOST")]);
  });

  it("withdraws a call, whose reply then comes from the coordinator", () => {
    ask({ id: 3, kind: "update-topology" });
    expect(ask({ id: 4, kind: "withdraw", target: 3 })).toEqual([sent({ kind: "withdraw", requestId: 3 })]);
    expect(hear({ ...failure, requestId: 3, code: "ERR_PCCL_CANCELLED" })).toEqual([
      failed(3, "ERR_PCCL_CANCELLED"),
    ]);
    expect(ask({ id: 5, kind: "withdraw", target: 3 })).toEqual([]);
    ask(offer);
    hear(plan);
    ask(done);
    expect(ask({ id: 7, kind: "withdraw", target: 6 })).toEqual([sent({ kind: "withdraw", requestId: 5 })]);
  });

  it("withdraws a call at once while the coordinator can't be reached", () => {
    ask({ id: 3, kind: "update-topology" });
    step({ kind: "detached", reason: "reset" });
    expect(ask({ id: 4, kind: "withdraw", target: 3 })).toEqual([failed(3, "ERR_PCCL_CANCELLED")]);
    step({ kind: "connected" });
    expect(hear({ kind: "attached", received: 1 })).toEqual([
      sent({ kind: "topology-vote", requestId: 3 }),
      sent({ kind: "withdraw", requestId: 3 }),
    ]);
  });

  it("leaves: open calls fail, the stream ends, the reply comes when the coordinator has ended it", () => {
    ask({ id: 3, kind: "update-topology" });
    expect(ask({ id: 4, kind: "leave" })).toEqual([
      failed(3, "ERR_PCCL_CLOSED"),
      sent({ kind: "leave" }),
      { kind: "end" },
    ]);
    expect(hear({ kind: "prepare", view: view(2, 2) })).toEqual([]);
    expect(ask({ id: 5, kind: "has-pending-peers" })).toEqual([failed(5, "ERR_PCCL_CLOSED")]);
    expect(step({ kind: "detached", reason: "ended" })).toEqual([reply(4, undefined)]);
  });

  it("leaves at once while it isn't connected yet", () => {
    session = createSession(config);
    expect(ask({ id: 1, kind: "leave" })).toEqual([{ kind: "end" }, reply(1, undefined)]);
  });
});

describe("ops that wait for others", () => {
  beforeEach(admit);
  const stall = { epoch: 1, tag: 7n, seq: 0, from: 1, to: 2 };

  it("are reported, unless their ring is gone", () => {
    expect(step({ kind: "stalled", ...stall, missing: [1] })).toEqual([
      sent({ kind: "stalled", ...stall, missing: [1] }),
    ]);
    expect(step({ kind: "stalled", ...stall, epoch: 0, missing: [1] })).toEqual([]);
  });

  it("are aborted when the coordinator says so and the engine agrees", () => {
    expect(hear({ kind: "abort-op", ...stall, missing: 1 })).toEqual([
      { kind: "engine-abort", ...stall, peerId: 1 },
    ]);
    expect(step({ kind: "abort-answered", ...stall, aborted: true })).toEqual([
      sent({ kind: "abort-answer", ...stall, aborted: true }),
    ]);
    hear({ kind: "prepare", view: view(2, 2) });
    expect(hear({ kind: "abort-op", ...stall, missing: 1 })).toEqual([
      sent({ kind: "abort-answer", ...stall, aborted: false }),
    ]);
  });
});

describe("a measurement", () => {
  beforeEach(admit);

  it("is the engine's, and its result the coordinator's", () => {
    const target = { peerId: 1, group: 0, endpoint: { host: "10.0.0.1", port: 7 } };
    expect(hear({ kind: "measure", measurementId: 5, target, direction: "receive" })).toEqual([
      {
        kind: "engine-measure",
        measurementId: 5,
        target: { peerId: 1, host: "10.0.0.1", port: 7 },
        direction: "receive",
      },
    ]);
    const result = { bytesPerSecond: 1, rttMs: 3 };
    expect(step({ kind: "measured", measurementId: 5, result })).toEqual([
      sent({ kind: "measured", measurementId: 5, result }),
    ]);
  });

  it("belongs to a call that is answered as updateTopology is", () => {
    expect(ask({ id: 3, kind: "optimize-topology", maxAgeMs: 9 })).toEqual([
      sent({ kind: "optimize-vote", requestId: 3, maxAgeMs: 9 }),
    ]);
    expect(hear({ kind: "topology-answer", requestId: 3, changed: true })).toEqual([reply(3, true)]);
    ask({ id: 4, kind: "topology" });
    const info = { epoch: 1, ring: { group: 0, epoch: 1, peerIds: [2], hosts: [0] }, paths: [] };
    expect(hear({ kind: "topology-info", requestId: 4, info })).toEqual([reply(4, info)]);
  });
});

describe("a broken stream", () => {
  beforeEach(admit);

  it("is made again, and what the coordinator lacks is sent again", () => {
    ask({ id: 3, kind: "has-pending-peers" });
    expect(step({ kind: "detached", reason: "reset" })).toEqual([{ kind: "connect" }]);
    expect(ask({ id: 4, kind: "update-topology" })).toEqual([]);
    expect(step({ kind: "connected" })).toEqual([
      sent({ kind: "attach", protocolVersion: PROTOCOL_VERSION, peerId: 2, secret, received: told }),
    ]);
    // Ready and the first vote had come through.
    expect(hear({ kind: "attached", received: 2 })).toEqual([
      { kind: "send", seq: 3, ack: told, message: { kind: "topology-vote", requestId: 4 } },
    ]);
    expect(hear({ kind: "pending-answer", requestId: 3, pending: true })).toEqual([reply(3, true)]);
  });

  it("brings back what came already, which is ignored", () => {
    ask({ id: 3, kind: "has-pending-peers" });
    hear({ kind: "pending-answer", requestId: 3, pending: true });
    told--;
    expect(hear({ kind: "topology-answer", requestId: 4, changed: true })).toEqual([]);
  });

  it.each([
    ["a message that is missing", { seq: 99, ack: 0 }],
    ["a number that was never given out", { seq: 0, ack: 99 }],
  ])("doesn't excuse %s", (_, { seq, ack }) => {
    expect(step({ kind: "message", seq, ack, message: { kind: "heartbeat" } })).toEqual([
      { kind: "end" },
      ended("ERR_PCCL_INTERNAL", /broke the protocol/),
    ]);
  });

  it("is given up after a while, and open calls fail, later ones with the same error", () => {
    ask({ id: 3, kind: "update-topology" });
    tick(0);
    step({ kind: "detached", reason: "reset" });
    tick(COORDINATOR_TIMEOUT_MS / 2);
    step({ kind: "connected" });
    step({ kind: "detached", reason: "refused" });
    expect(tick(COORDINATOR_TIMEOUT_MS / 2)).toEqual([]);
    expect(tick(1)).toEqual([
      { kind: "end" },
      failed(3, "ERR_PCCL_COORDINATOR_LOST"),
      ended("ERR_PCCL_COORDINATOR_LOST", /20001 ms after: reset/),
    ]);
    expect(ask({ id: 4, kind: "leave" })).toEqual([failed(4, "ERR_PCCL_COORDINATOR_LOST")]);
    expect(tick(10 * LEASE_MS)).toEqual([]);
  });

  it("has its time anew each time that it was made again", () => {
    for (let i = 0; i < 3; i++) {
      step({ kind: "detached", reason: "reset" });
      tick(0.9 * COORDINATOR_TIMEOUT_MS);
      step({ kind: "connected" });
      hear({ kind: "attached", received: 1 });
    }
    expect(session.phase).toBe("admitted");
  });

  it("ends the session when the coordinator doesn't want it back", () => {
    step({ kind: "detached", reason: "reset" });
    step({ kind: "connected" });
    const rejected = { kind: "rejected", code: "ERR_PCCL_COORDINATOR_LOST", message: "restarted" } as const;
    expect(hear(rejected)).toEqual([ended("ERR_PCCL_COORDINATOR_LOST", /restarted/)]);
  });

  it("is made again when the attach came too late", () => {
    step({ kind: "detached", reason: "reset" });
    step({ kind: "connected" });
    const rejected = { kind: "rejected", code: "ERR_PCCL_TIMEOUT", message: "nothing came" } as const;
    expect(hear(rejected)).toEqual([{ kind: "connect" }]);
  });

  it("lets the peer leave without a word", () => {
    step({ kind: "detached", reason: "reset" });
    expect(ask({ id: 4, kind: "leave" })).toEqual([{ kind: "end" }, reply(4, undefined)]);
  });
});

describe("time", () => {
  it("sends heartbeats while it says nothing else", () => {
    admit();
    const period = LEASE_MS / HEARTBEATS_PER_LEASE;
    tick(0);
    expect(tick(period - 1)).toEqual([]);
    expect(tick(1)).toEqual([sent({ kind: "heartbeat" })]);
    ask({ id: 3, kind: "update-topology" });
    expect(tick(period - 1)).toEqual([]);
  });

  it("makes a new stream when the coordinator leaves heartbeats unanswered, long before its lease ends", () => {
    admit();
    const period = LEASE_MS / HEARTBEATS_PER_LEASE;
    tick(0);
    for (let i = 0; i < 10; i++) {
      tick(period);
      hear({ kind: "heartbeat" });
    }
    for (let i = 0; i < HEARTBEATS_UNANSWERED_MAX; i++) tick(period);
    expect(session.stream).toBe("attached");
    expect(tick(1)).toEqual([{ kind: "connect" }]);
    expect(session.phase).toBe("admitted");
    expect(HEARTBEATS_UNANSWERED_MAX).toBeLessThan(HEARTBEATS_PER_LEASE - 1);
  });

  it("doesn't take its own pause for the coordinator's silence", () => {
    admit();
    tick(0);
    tick(100 * LEASE_MS);
    expect(hear({ kind: "removed", reason: "peer 2 was silent" })).toEqual([
      ended("ERR_PCCL_REMOVED", /peer 2 was silent/),
    ]);
  });

  it("doesn't wait for ever for a coordinator that accepts the stream and says nothing", () => {
    step({ kind: "connected" });
    tick(0);
    tick(LEASE_DEFAULT_MS / 2);
    tick(LEASE_DEFAULT_MS / 2);
    expect(tick(1)).toEqual([{ kind: "end" }, ended("ERR_PCCL_COORDINATOR_LOST", /silent/)]);
  });
});
