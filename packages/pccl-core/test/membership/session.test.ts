/** The peer's session: what it tells the coordinator, the engine and its user, in every phase. */
import { beforeEach, describe, expect, it } from "vitest";
import { HEARTBEATS_PER_LEASE, LEASE_DEFAULT_MS, PROTOCOL_VERSION } from "../../src/base/limits.js";
import type { CoordinatorMessage, View } from "../../src/membership/messages.js";
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
const key = new Uint8Array(16).fill(9);
let session: SessionState;
let nowMs: number;

beforeEach(() => {
  session = createSession({ group: 0, advertise: { host: "", port: 1_002 } });
  nowMs = 0;
});

const step = (event: SessionEvent): SessionEffect[] => stepSession(session, event, nowMs);
const hear = (message: CoordinatorMessage): SessionEffect[] => step({ kind: "message", message });
const ask = (request: SessionRequest): SessionEffect[] => step({ kind: "request", request });
const tick = (afterMs: number): SessionEffect[] => {
  nowMs += afterMs;
  return step({ kind: "tick" });
};

function view(epoch: number, ...ids: number[]): View {
  const members = [...ids.map((peerId) => ({ peerId, group: 0 })), { peerId: 50, group: 1 }].map(
    (member) => ({
      ...member,
      endpoint: { host: `h${member.peerId}`, port: 1_000 + member.peerId },
    }),
  );
  return {
    epoch,
    members,
    rings: [
      { group: 0, peerIds: ids },
      { group: 1, peerIds: [50] },
    ],
    key,
  };
}

/** Registers this peer as peer 2 and installs epoch 1 with peers 1 and 2. */
function admit(): void {
  step({ kind: "connected" });
  hear({ kind: "registered", peerId: 2, leaseMs: LEASE_MS });
  hear({ kind: "prepare", view: view(1, 1, 2) });
  step({ kind: "prepared", epoch: 1, failures: [], ops: [] });
  hear({ kind: "install", epoch: 1, verdicts: [] });
}

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
      {
        kind: "send",
        message: {
          kind: "register",
          protocolVersion: PROTOCOL_VERSION,
          group: 0,
          endpoint: { host: "", port: 1_002 },
        },
      },
    ]);
    expect(hear({ kind: "registered", peerId: 2, leaseMs: LEASE_MS })).toEqual([
      { kind: "notify", notice: { kind: "pending", peerId: 2 } },
    ]);
    expect(hear({ kind: "prepare", view: view(1, 1, 2) })).toEqual([
      {
        kind: "engine-prepare",
        timeoutMs: expect.any(Number),
        view: {
          epoch: 1,
          peerId: 2,
          key,
          ring: [
            { peerId: 1, host: "h1", port: 1_001 },
            { peerId: 2, host: "h2", port: 1_002 },
          ],
          worldSize: 3,
        },
      },
    ]);
    expect(step({ kind: "prepared", epoch: 1, failures: [], ops: [] })).toEqual([
      { kind: "send", message: { kind: "ready", epoch: 1, failures: [], ops: [] } },
    ]);
    expect(hear({ kind: "install", epoch: 1, verdicts: [] })).toEqual([
      { kind: "engine-install", epoch: 1, verdicts: [] },
      { kind: "notify", notice: { kind: "admitted", peerId: 2 } },
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
    hear({ kind: "registered", peerId: 2, leaseMs: LEASE_MS });
    expect(ask({ id: 1, kind: "has-pending-peers" })).toEqual([failed(1, "ERR_PCCL_NOT_INSTALLED")]);
  });
});

describe("views", () => {
  beforeEach(admit);

  it("reports the frozen epoch's ops, and passes on the verdicts about it", () => {
    hear({ kind: "prepare", view: view(2, 2) });
    const { epoch: _, ...report } = op(1, 7n, "done");
    expect(step({ kind: "prepared", epoch: 2, failures: [], ops: [report] })).toEqual([
      { kind: "send", message: { kind: "ready", epoch: 2, failures: [], ops: [op(1, 7n, "done")] } },
    ]);
    const verdicts = [
      { epoch: 1, tag: 7n, seq: 0, commit: true },
      { epoch: 9, tag: 8n, seq: 0, commit: true },
    ];
    expect(hear({ kind: "install", epoch: 2, verdicts })).toEqual([
      { kind: "engine-install", epoch: 2, verdicts: [{ tag: 7n, seq: 0, commit: true }] },
      { kind: "notify", notice: { kind: "installed", epoch: 2 } },
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
    ["an install of what it hasn't prepared", { kind: "install", epoch: 2, verdicts: [] }],
    ["an epoch that doesn't rise", { kind: "prepare", view: view(1, 1, 2) }],
    ["a view without this peer", { kind: "prepare", view: view(2, 1, 3) }],
    [
      "a ring with a stranger",
      { kind: "prepare", view: { ...view(2, 2), rings: [{ group: 0, peerIds: [2, 8] }] } },
    ],
    ["a second registration", { kind: "registered", peerId: 3, leaseMs: 1 }],
    ["the end of a sync that it isn't in", { kind: "sync-complete", requestId: 1, revision: 1 }],
  ])("ends rather than follow %s", (_, message) => {
    expect(hear(message)).toEqual([{ kind: "end" }, ended("ERR_PCCL_INTERNAL", /broke the protocol/)]);
  });
});

describe("calls", () => {
  beforeEach(admit);
  const entry = { name: "w", dtype: "f32", count: 1, hash: "a".repeat(32) };
  const offer: SessionRequest = {
    id: 5,
    kind: "sync-offer",
    revision: 3,
    strategy: "send-only",
    entries: [entry],
  };
  const plan: CoordinatorMessage = {
    kind: "sync-plan",
    requestId: 5,
    revision: 3,
    source: undefined,
    fetches: [],
  };
  const done: SessionRequest = { id: 6, kind: "sync-done", ok: true, reason: "" };
  const failure: CoordinatorMessage = {
    kind: "call-failed",
    requestId: 5,
    code: "ERR_PCCL_PEER_LOST",
    message: "peer 9 is gone.",
  };

  it("carries votes and their answers", () => {
    expect(ask({ id: 3, kind: "has-pending-peers" })).toEqual([
      { kind: "send", message: { kind: "pending-vote", requestId: 3 } },
    ]);
    expect(hear({ kind: "pending-answer", requestId: 3, pending: true })).toEqual([reply(3, true)]);
    expect(hear({ kind: "pending-answer", requestId: 3, pending: true })).toEqual([]);
    ask({ id: 4, kind: "update-topology" });
    expect(hear({ kind: "topology-answer", requestId: 4, changed: false })).toEqual([reply(4, false)]);
    ask({ id: 7, kind: "update-topology" });
    expect(hear({ ...failure, requestId: 7 })).toEqual([failed(7, "ERR_PCCL_PEER_LOST")]);
  });

  it("carries a sync from offer to completion", () => {
    const { id: _, ...body } = offer;
    expect(ask(offer)).toEqual([{ kind: "send", message: { ...body, requestId: 5 } }]);
    expect(hear(plan)).toEqual([reply(5, { revision: 3, source: undefined, fetches: [] })]);
    expect(ask(done)).toEqual([
      { kind: "send", message: { kind: "sync-done", requestId: 5, ok: true, reason: "" } },
    ]);
    expect(hear({ kind: "sync-complete", requestId: 5, revision: 3 })).toEqual([reply(6, 3)]);
    expect(ask({ ...done, id: 8 })).toEqual([failed(8, "ERR_PCCL_INTERNAL")]);
  });

  it("fails a sync before its plan, between plan and done, and after done", () => {
    ask(offer);
    expect(hear(failure)).toEqual([failed(5, "ERR_PCCL_PEER_LOST")]);
    ask(offer);
    hear(plan);
    expect(hear(failure)).toEqual([]);
    expect(ask(done)).toEqual([failed(6, "ERR_PCCL_PEER_LOST")]);
    ask(offer);
    hear(plan);
    ask(done);
    expect(hear(failure)).toEqual([failed(6, "ERR_PCCL_PEER_LOST")]);
  });

  it("fails open calls when the stream ends, and later ones with the same error", () => {
    ask({ id: 3, kind: "update-topology" });
    expect(step({ kind: "disconnected", reason: "reset" })).toEqual([
      failed(3, "ERR_PCCL_COORDINATOR_LOST"),
      ended("ERR_PCCL_COORDINATOR_LOST", /reset/),
    ]);
    expect(ask({ id: 4, kind: "leave" })).toEqual([failed(4, "ERR_PCCL_COORDINATOR_LOST")]);
    expect(tick(10 * LEASE_MS)).toEqual([]);
  });

  it("leaves: open calls fail, the stream ends, the reply comes when the coordinator has ended it", () => {
    ask({ id: 3, kind: "update-topology" });
    expect(ask({ id: 4, kind: "leave" })).toEqual([
      failed(3, "ERR_PCCL_CLOSED"),
      { kind: "send", message: { kind: "leave" } },
      { kind: "end" },
    ]);
    expect(hear({ kind: "prepare", view: view(2, 2) })).toEqual([]);
    expect(ask({ id: 5, kind: "has-pending-peers" })).toEqual([failed(5, "ERR_PCCL_CLOSED")]);
    expect(step({ kind: "disconnected", reason: "ended" })).toEqual([reply(4, undefined)]);
  });

  it("leaves at once while it isn't connected yet", () => {
    session = createSession({ group: 0, advertise: { host: "", port: 1 } });
    expect(ask({ id: 1, kind: "leave" })).toEqual([{ kind: "end" }, reply(1, undefined)]);
  });
});

describe("time", () => {
  it("sends heartbeats while it says nothing else", () => {
    admit();
    const period = LEASE_MS / HEARTBEATS_PER_LEASE;
    tick(0);
    expect(tick(period - 1)).toEqual([]);
    expect(tick(1)).toEqual([{ kind: "send", message: { kind: "heartbeat" } }]);
    ask({ id: 3, kind: "update-topology" });
    expect(tick(period - 1)).toEqual([]);
  });

  it("ends when the coordinator is silent for longer than the lease", () => {
    admit();
    tick(0);
    tick(LEASE_MS / 2);
    hear({ kind: "heartbeat" });
    tick(LEASE_MS / 2);
    expect(session.phase).toBe("admitted");
    tick(LEASE_MS / 2);
    expect(tick(1)).toEqual([{ kind: "end" }, ended("ERR_PCCL_COORDINATOR_LOST", /silent for 1001 ms/)]);
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
