/** The coordinator's server and the peer's client over real gRPC on loopback, with peers that misbehave. */
import { once } from "node:events";
import { createServer as createHttp2Server, connect as http2Connect } from "node:http2";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, createServer, connect as tcpConnect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials, Metadata, type StatusObject, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CONTROL_MESSAGE_BYTES_MAX, PROTOCOL_VERSION } from "../../src/base/limits.js";
import type { PeerMessage as WirePeerMessage } from "../../src/control/generated/pccl/v1/PeerMessage.js";
import { Coordinator, type CoordinatorLog, type CoordinatorOptions } from "../../src/control/index.js";
import { membershipService } from "../../src/control/service.js";
import { RawPeer } from "./raw-peer.js";

let coordinator: Coordinator;
let logs: CoordinatorLog[];
let peers: RawPeer[];

async function start(options: CoordinatorOptions = {}): Promise<void> {
  const logger = {
    info: (fields: object) => void logs.push(fields as CoordinatorLog),
    warn: (fields: object) => void logs.push(fields as CoordinatorLog),
  };
  coordinator = await Coordinator.start({ listen: "127.0.0.1:0", leaseMs: 60_000, logger, ...options });
}

async function peer(): Promise<RawPeer> {
  const raw = new RawPeer(coordinator.address);
  peers.push(raw);
  await raw.until(() => raw.connected);
  return raw;
}

/** Whose stream breaks and whose data port is closed counts as dead. */
async function openDataPort(): Promise<number> {
  const server = createServer((socket) => socket.on("error", () => {}));
  server.listen(0, "127.0.0.1").unref();
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

async function admitted(dataPort?: number): Promise<RawPeer> {
  const raw = await peer();
  raw.register(0, dataPort);
  await raw.expect("registered");
  await raw.install();
  return raw;
}

async function logged(event: string): Promise<object> {
  for (;;) {
    const entry = logs.find((candidate) => (candidate.event as string) === event);
    if (entry !== undefined) return entry;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function registerOf(protocolVersion: number, port: number): WirePeerMessage {
  return { register: { protocolVersion, group: 0, endpoint: { host: "h", port } } };
}

function attachOf(peerId: number): WirePeerMessage {
  return { attach: { protocolVersion: PROTOCOL_VERSION, peerId, secret: Buffer.alloc(16), received: 0 } };
}

/** More than CONTROL_MESSAGE_BYTES_MAX. */
function oversized(): WirePeerMessage {
  return { linkLost: { epoch: 1, peerId: 1, reason: "x".repeat(CONTROL_MESSAGE_BYTES_MAX) } };
}

beforeEach(() => {
  logs = [];
  peers = [];
});

afterEach(async () => {
  for (const raw of peers) raw.close();
  await coordinator?.close();
});

describe("Coordinator", () => {
  it("admits the first peer, and the second with the first one's vote", async () => {
    await start();
    const first = await admitted();
    const second = await peer();
    second.register();
    expect((await second.expect("registered")).peerId).toBe(2);
    first.send({ kind: "pending-vote", requestId: 7 });
    expect(await first.expect("pending-answer")).toMatchObject({ requestId: 7, pending: true });
    first.send({ kind: "topology-vote", requestId: 8 });
    const [epoch] = await Promise.all([first.install(), second.install()]);
    expect(await first.expect("topology-answer")).toMatchObject({ requestId: 8, changed: true });
    expect(coordinator.epoch).toBe(epoch);
    expect(coordinator.worldSize).toBe(2);
    expect(coordinator.peers().map(({ peerId, phase }) => [peerId, phase])).toEqual([
      [1, "admitted"],
      [2, "admitted"],
    ]);
  });

  it("fills in the address that it sees for a peer that advertises no host", async () => {
    await start();
    const raw = await peer();
    raw.register(0, 4_242, "");
    await raw.expect("registered");
    const { view } = await raw.expect("prepare");
    expect(coordinator.peers()[0]?.endpoint).toEqual({ host: "127.0.0.1", port: 4_242 });
    expect(view.key).toHaveLength(16);
  });

  it("refuses another protocol version and names both", async () => {
    await start();
    const raw = await peer();
    raw.send({
      kind: "register",
      protocolVersion: PROTOCOL_VERSION + 1,
      group: 0,
      endpoint: { host: "", port: 1 },
      hostId: "",
    });
    const rejected = await raw.expect("rejected");
    expect(rejected.code).toBe("ERR_PCCL_VERSION_MISMATCH");
    expect(rejected.message).toContain(`version ${PROTOCOL_VERSION + 1}`);
    expect(rejected.message).toContain(`coordinator ${PROTOCOL_VERSION}.`);
    await raw.until(() => raw.detached !== undefined);
    expect(coordinator.peers()).toEqual([]);
  });

  it("ends a stream with a message out of range, saying why, and nobody else's", async () => {
    await start();
    const good = await admitted();
    const bad = await peer();
    bad.send({
      kind: "register",
      protocolVersion: PROTOCOL_VERSION,
      group: 0,
      endpoint: { host: "x", port: 0 },
      hostId: "",
    });
    const rejected = await bad.expect("rejected");
    expect(rejected.message).toContain("register.endpoint.port");
    const late = await peer();
    late.register();
    await late.expect("registered");
    late.send({ kind: "link-lost", epoch: 0, peerId: 1, reason: "" });
    expect((await late.expect("removed")).reason).toContain("link_lost.epoch");
    good.send({ kind: "pending-vote", requestId: 1 });
    expect(await good.expect("pending-answer")).toMatchObject({ pending: false });
  });

  it.each<[string, status, RegExp, WirePeerMessage]>([
    ["another version", status.FAILED_PRECONDITION, /peer speaks protocol version 9/, registerOf(9, 1)],
    [
      "a port that is none",
      status.INVALID_ARGUMENT,
      /register.endpoint.port/,
      registerOf(PROTOCOL_VERSION, 0),
    ],
    ["an empty message", status.INVALID_ARGUMENT, /unknown kind/, {}],
    ["a vote before its register", status.INVALID_ARGUMENT, /before register/, { pendingVote: {}, seq: 1 }],
    ["an unknown peer's attach", status.NOT_FOUND, /doesn't know a peer 7/, attachOf(7)],
    ["a wrong secret", status.NOT_FOUND, /peer 1 with this secret/, attachOf(1)],
    ["an oversized message", status.RESOURCE_EXHAUSTED, /larger than max/i, oversized()],
  ])(
    "ends a stream with %s with a status that says so, and changes nothing",
    async (_, code, details, wire) => {
      await start();
      const good = await admitted();
      const before = coordinator.peers();
      const client = new membershipService(coordinator.address, credentials.createInsecure());
      const stream = client.attend();
      stream.on("error", () => {});
      stream.on("data", () => {});
      const ended = new Promise<StatusObject>((resolve) => stream.once("status", resolve));
      stream.write(wire);
      const end = await ended;
      client.close();
      expect(end.details).toMatch(details);
      expect(end.code).toBe(code);
      const withoutTime = (list: ReturnType<Coordinator["peers"]>): object[] =>
        list.map((peer) => ({ ...peer, silentMs: 0 }));
      expect(withoutTime(coordinator.peers())).toEqual(withoutTime(before));
      good.send({ kind: "pending-vote", requestId: 1 });
      expect(await good.expect("pending-answer")).toMatchObject({ pending: false });
    },
  );

  it("survives bytes that are no protobuf, no gRPC, no HTTP, and connections that say nothing", async () => {
    await start();
    const good = await admitted();
    // Not protobuf: an invalid wire type, straight through gRPC's framing.
    const client = new membershipService(coordinator.address, credentials.createInsecure());
    const attend = membershipService.service.Attend;
    const garbage = client.makeBidiStreamRequest(
      attend.path,
      () => Buffer.from([0xff, 0xff, 0xff, 0xff, 0x07]),
      attend.responseDeserialize,
      new Metadata(),
    );
    garbage.on("error", () => {});
    const ended = new Promise((resolve) => garbage.on("status", resolve));
    garbage.write({});
    expect(await ended).toMatchObject({
      code: status.INTERNAL,
      details: expect.stringContaining("deserializing"),
    });
    client.close();
    const sockets = [Buffer.alloc(0), Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(4_096, 0xa5)].map(
      (bytes) => {
        const socket = tcpConnect(coordinator.port, "127.0.0.1");
        socket.on("error", () => {});
        socket.write(bytes);
        return socket;
      },
    );
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    good.send({ kind: "pending-vote", requestId: 1 });
    await good.expect("pending-answer");
    const another = await peer();
    another.register();
    await another.expect("registered");
    await coordinator.close();
    for (const socket of sockets) socket.destroy();
  });

  it("removes a peer that falls silent, telling it why, and goes on without it", async () => {
    await start({ leaseMs: 500, minPeers: 2 });
    const [silent, alive] = [await peer(), await peer()];
    silent.register();
    await silent.expect("registered");
    alive.register();
    await alive.expect("registered");
    const beat = setInterval(() => alive.send({ kind: "heartbeat" }), 100);
    try {
      await Promise.all([silent.install(), alive.install()]);
      expect((await silent.expect("removed")).reason).toMatch(/silent for \d+ ms.*lease of 500 ms/);
      const { view } = await alive.expect("prepare");
      expect(view.ring.peerIds).toEqual([2]);
    } finally {
      clearInterval(beat);
    }
  });

  it("breaks the stream of a peer that talks and never reads, before it fills the memory", async () => {
    await start();
    // HTTP/2 by hand, with a window in which no answer fits.
    const session = http2Connect(`http://${coordinator.address}`, { settings: { initialWindowSize: 1 } });
    session.on("error", () => {});
    const { path, requestSerialize } = membershipService.service.Attend;
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.on("error", () => {});
    const say = (message: WirePeerMessage): void => {
      const bytes = requestSerialize(message);
      const header = Buffer.alloc(5);
      header.writeUInt32BE(bytes.length, 1);
      stream.write(Buffer.concat([header, bytes]));
    };
    say({ register: { protocolVersion: PROTOCOL_VERSION, group: 0, endpoint: { host: "h", port: 1 } } });
    await logged("joined");
    while (!logs.some((entry) => entry.event === "detached")) {
      for (let i = 0; i < 4; i++) say({ heartbeat: {} });
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await logged("detached")).toMatchObject({ reason: expect.stringContaining("doesn't read") });
    session.destroy();
  });

  it("turns away a stream that never registers", async () => {
    await start({ leaseMs: 500 });
    const raw = await peer();
    expect((await raw.expect("rejected")).code).toBe("ERR_PCCL_TIMEOUT");
  });

  it("shrinks the world at once when a stream breaks and nobody has the peer's data port any more", async () => {
    await start({ minPeers: 2 });
    const [first, second] = [await peer(), await peer()];
    const dataPort = createServer();
    await new Promise<void>((resolve) => dataPort.listen(0, "127.0.0.1", resolve));
    first.register();
    await first.expect("registered");
    second.register(0, (dataPort.address() as AddressInfo).port);
    await second.expect("registered");
    await Promise.all([first.install(), second.install()]);
    const answers = (): boolean => logs.some((entry) => "result" in entry && entry.result === "alive");
    while (!answers()) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => dataPort.close(resolve));
    second.close();
    const epoch = await first.install();
    expect(coordinator.epoch).toBe(epoch);
    expect(coordinator.worldSize).toBe(1);
    expect(await logged("removed")).toMatchObject({ peerId: 2 });
  });

  it("tells peers that it shuts down, and frees its port", async () => {
    await start();
    const raw = await admitted();
    await coordinator.close();
    expect((await raw.expect("removed")).reason).toContain("shutting down");
    await raw.until(() => raw.detached !== undefined);
    const again = await Coordinator.start({ listen: coordinator.address });
    expect(again.port).toBe(coordinator.port);
    await again.close();
  });

  it("says which address it could not have", async () => {
    await start();
    await expect(Coordinator.start({ listen: coordinator.address })).rejects.toMatchObject({
      code: "ERR_PCCL_LISTEN_FAILED",
      message: expect.stringContaining(coordinator.address),
    });
  });

  it.each([
    [{ listen: "nonsense:port" }, "ERR_PCCL_INVALID_ARGUMENT"],
    [{ leaseMs: 10 }, "ERR_PCCL_INVALID_ARGUMENT"],
    [{ minPeers: 0 }, "ERR_PCCL_INVALID_ARGUMENT"],
    [{ logger: {} }, "ERR_PCCL_INVALID_ARGUMENT"],
    [{ stateDir: "" }, "ERR_PCCL_INVALID_ARGUMENT"],
    [{ stateDir: 7 }, "ERR_PCCL_INVALID_ARGUMENT"],
    [{ lease: 1_000 }, "ERR_PCCL_UNKNOWN_OPTION"],
  ])("refuses options %j", async (options, code) => {
    await expect(Coordinator.start(options as object)).rejects.toMatchObject({ code });
  });
});

describe("Coordinator with stateDir", () => {
  let stateDir: string;

  beforeEach(async () => {
    stateDir = await mkdtemp(join(tmpdir(), "pccl-state-"));
  });

  afterEach(async () => {
    await coordinator?.close();
    await rm(stateDir, { recursive: true, force: true });
  });

  it("keeps its peers over a close: they attach, and get the answers to what they asked before", async () => {
    await start({ stateDir, minPeers: 2 });
    const dataPort = await openDataPort();
    const [first, second] = [await peer(), await peer()];
    for (const raw of [first, second]) {
      raw.register(0, dataPort);
      await raw.expect("registered");
    }
    const [epoch] = await Promise.all([first.install(), second.install()]);
    first.send({ kind: "pending-vote", requestId: 5 });
    while (coordinator.peers()[0]?.waitsIn === undefined) await new Promise(setImmediate);
    const { address } = coordinator;
    await coordinator.close();
    await coordinator.stopped;
    await first.until(() => first.detached !== undefined);
    expect(first.detached).toContain("may come back");
    logs = [];
    await start({ stateDir, listen: address });
    expect(await logged("restored")).toMatchObject({ peers: 2, groups: 1, epoch, tornBytes: 0 });
    expect(coordinator.epoch).toBe(epoch);
    expect(coordinator.worldSize).toBe(2);
    await Promise.all([first.attach(), second.attach()]);
    second.send({ kind: "pending-vote", requestId: 6 });
    expect(await first.expect("pending-answer")).toMatchObject({ requestId: 5, pending: false });
    expect(await second.expect("pending-answer")).toMatchObject({ requestId: 6, pending: false });
  });

  it("refuses a directory in use, and a lease other than the one that its peers were told", async () => {
    await start({ stateDir });
    await admitted();
    await expect(
      Coordinator.start({ stateDir: `${stateDir}/.`, listen: "127.0.0.1:0" }),
    ).rejects.toMatchObject({
      code: "ERR_PCCL_JOURNAL_IN_USE",
    });
    await coordinator.close();
    await expect(Coordinator.start({ stateDir, leaseMs: 30_000 })).rejects.toMatchObject({
      code: "ERR_PCCL_INVALID_ARGUMENT",
      message: expect.stringContaining("told a lease of 60000 ms"),
    });
    await start({ stateDir });
    expect(coordinator.peers().map(({ peerId }) => peerId)).toEqual([1]);
  });

  it("gives the directory back when it can't listen", async () => {
    await start();
    const { address } = coordinator;
    const attempt = Coordinator.start({ stateDir, listen: address });
    await expect(attempt).rejects.toMatchObject({ code: "ERR_PCCL_LISTEN_FAILED" });
    await (await Coordinator.start({ stateDir, listen: "127.0.0.1:0" })).close();
  });

  it("ends, and says so to everybody, when its directory can't be written any more", async () => {
    await start({ stateDir });
    const raw = await admitted();
    const { address } = coordinator;
    await rm(stateDir, { recursive: true });
    raw.send({ kind: "pending-vote", requestId: 5 });
    await expect(coordinator.stopped).rejects.toMatchObject({
      code: "ERR_PCCL_JOURNAL_FAILED",
      message: expect.stringContaining(stateDir),
    });
    await raw.until(() => raw.detached !== undefined);
    expect(raw.detached).toContain("deleted or replaced");
    expect(raw.received.map((message) => message.kind)).not.toContain("pending-answer");
    expect(await logged("journal-failed")).toBeDefined();
    // Its port is free, and its lock.
    await start({ stateDir, listen: address });
  });
});

describe("ControlClient", () => {
  it("waits for a coordinator that starts later", async () => {
    await start();
    const { address } = coordinator;
    await coordinator.close();
    const raw = new RawPeer(address);
    peers.push(raw);
    coordinator = await Coordinator.start({ listen: address });
    await raw.until(() => raw.connected);
    raw.register();
    await raw.expect("registered");
  });

  it("says where nobody listens, and why", async () => {
    await start();
    const { address } = coordinator;
    await coordinator.close();
    const raw = new RawPeer(address, 300);
    await raw.until(() => raw.failed !== undefined);
    expect(raw.failed?.code).toBe("ERR_PCCL_COORDINATOR_UNREACHABLE");
    expect(raw.failed?.message).toContain(address);
    expect(raw.failed?.message).toContain("ECONNREFUSED");
  });

  it("gives up on a server that accepts and says nothing", async () => {
    const mute = createServer();
    mute.listen(0, "127.0.0.1");
    await once(mute, "listening");
    const { port } = mute.address() as { port: number };
    const raw = new RawPeer(`127.0.0.1:${port}`, 300);
    await raw.until(() => raw.failed !== undefined);
    expect(raw.failed?.code).toBe("ERR_PCCL_COORDINATOR_UNREACHABLE");
    mute.close();
  });

  it("makes one stream after the other, and hears only the latest", async () => {
    await start();
    const raw = await admitted(await openDataPort());
    await raw.attach();
    expect(raw.connections).toBe(2);
    expect(raw.detached).toBeUndefined();
    raw.send({ kind: "pending-vote", requestId: 1 });
    expect(await raw.expect("pending-answer")).toMatchObject({ requestId: 1 });
    // The coordinator has let go of the first stream; that was not the peer's end.
    expect(coordinator.peers().map(({ peerId }) => peerId)).toEqual([1]);
    expect(await logged("attached")).toMatchObject({ peerId: 1 });
  });

  it("finds the coordinator again, however long it takes", async () => {
    await start();
    const raw = await peer();
    const { address } = coordinator;
    await coordinator.close();
    await raw.until(() => raw.detached !== undefined);
    raw.connect();
    // Several attempts find nobody.
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect([raw.connections, raw.failed]).toEqual([1, undefined]);
    await start({ listen: address });
    await raw.until(() => raw.connections === 2);
    raw.register();
    await raw.expect("registered");
  });

  it("says when something else answers at the coordinator's address later", async () => {
    await start();
    const raw = await peer();
    const { address, port } = coordinator;
    await coordinator.close();
    await raw.until(() => raw.detached !== undefined);
    const other = createHttp2Server((_, response) => response.writeHead(404).end());
    other.listen(port, "127.0.0.1");
    await once(other, "listening");
    raw.connect();
    await raw.until(() => raw.failed !== undefined);
    expect(raw.failed).toMatchObject({
      code: "ERR_PCCL_COORDINATOR_LOST",
      message: expect.stringContaining(`${address} now is not the coordinator`),
    });
    other.close();
  });
});
