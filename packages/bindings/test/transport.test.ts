/** Goal: members of one host share memory when they are told so, and hosts and transports are checked. */
import { loadAddon, type OpEvent } from "@pccl/bindings";
import { describe, expect, it } from "vitest";
import { install, Peer, viewOf, within } from "./fixtures/peer.mjs";

const INVALID = expect.objectContaining({ code: "ERR_PCCL_INVALID_ARGUMENT" });

async function reduceOver(
  transports: readonly ["auto" | "shm" | "tcp", "auto" | "shm" | "tcp"],
  hosts: readonly number[],
): Promise<OpEvent[]> {
  const peers = transports.map((transport, i) => new Peer(i + 1, { transport }));
  try {
    await install(1, peers, hosts);
    const ops = peers.map((peer) => {
      const data = new Float32Array(100_000).fill(peer.peerId);
      return peer.start((engine) =>
        engine.start({ kind: "all-reduce", send: data, recv: data, op: "sum", tag: 0n }),
      );
    });
    return await within("the op", Promise.all(ops.map(({ ended }) => ended)));
  } finally {
    for (const peer of peers) peer.close();
  }
}

describe("a link", () => {
  it.each([
    ["shares memory on one host", ["auto", "shm"], [3, 3], "shm"],
    ["goes over TCP between hosts", ["auto", "auto"], [0, 1], "tcp"],
    ["goes over TCP when one of two wants it", ["auto", "tcp"], [0, 0], "tcp"],
  ] as const)("%s", async (_, transports, hosts, transport) => {
    for (const event of await reduceOver(transports, hosts)) {
      expect(event).toMatchObject({ type: "op-done", transport });
    }
  });
});

describe("an engine", () => {
  it("has the host id of its host, and none for TCP", () => {
    const peers = (["auto", "shm", "tcp"] as const).map((transport, i) => new Peer(i + 1, { transport }));
    const [auto, shm, tcp] = peers.map(({ engine }) => engine.hostId);
    for (const peer of peers) peer.close();
    expect(auto).toMatch(/^[0-9a-f]{32}$/);
    expect(shm).toBe(auto);
    expect(tcp).toBe("");
  });

  it("refuses an unknown transport, and hosts that are not one number per member", () => {
    const options = { host: "127.0.0.1", port: 0 };
    expect(() => loadAddon().createEngine({ ...options, transport: "udp" as "tcp" }, () => {})).toThrow(
      INVALID,
    );
    const peer = new Peer(1);
    for (const hosts of [undefined, 0, [0, 1], [-1], ["0"]]) {
      const view = { ...viewOf(1, 1, [peer.member]), hosts: hosts as number[] };
      expect(() => peer.control.prepare(view, 1_000)).toThrow(INVALID);
    }
    peer.close();
  });
});
