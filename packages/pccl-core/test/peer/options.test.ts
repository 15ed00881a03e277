/** Goal: what connect() is told about limits holds. Method: peers in this process, and a coordinator that is killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  type Communicator,
  CoordinatorLostError,
  connect,
  type PcclError,
  TooManyOpsError,
} from "@pccl/core";
import { describe, expect, it } from "vitest";
import { closing, world } from "./world.js";

const PCCL = fileURLToPath(new URL("../../bin/pccl.js", import.meta.url));
const tensor = (): Float32Array => new Float32Array(10_000).fill(1);

describe("maxOpsInFlight", () => {
  it("is what a peer may start, and no more", async () => {
    const { peers } = await world(2, { maxOpsInFlight: 3 });
    const [a, b] = peers as [Communicator, Communicator];
    const ops = (peer: Communicator): Promise<unknown>[] =>
      [0, 1, 2].map((tag) => peer.allReduce(tensor(), undefined, { tag }));
    const waiting = ops(a);
    await expect(a.allReduce(tensor(), undefined, { tag: 3 })).rejects.toThrow(TooManyOpsError);
    await Promise.all([...waiting, ...ops(b)]);
    await Promise.all([a, b].map((peer) => peer.allReduce(tensor(), undefined, { tag: 3 })));
  });
});

describe("listen", () => {
  it("takes the first free port of a range, and says so when there is none", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as AddressInfo;
    const range = `127.0.0.1:${port}-${port + 20}`;
    const { coordinator } = await world(1, { listen: range });
    await expect(connect(coordinator.address, { listen: `127.0.0.1:${port}-${port}` })).rejects.toMatchObject(
      {
        code: "ERR_PCCL_LISTEN_FAILED",
      },
    );
    for (const wrong of ["127.0.0.1:9-8", "127.0.0.1:0-9", "127.0.0.1:9-70000", "9-10"]) {
      await expect(connect(coordinator.address, { listen: wrong })).rejects.toMatchObject({
        code: "ERR_PCCL_INVALID_ARGUMENT",
      });
    }
    taken.close();
  });
});

describe("congestionControl", () => {
  it("that the system hasn't is refused, with those that it has", async () => {
    const { coordinator } = await world(1);
    await expect(connect(coordinator.address, { congestionControl: "none-such" })).rejects.toMatchObject({
      code: "ERR_PCCL_INVALID_ARGUMENT",
      message: expect.stringContaining("this system has"),
    });
  });
});

describe("connectionsPerPeer", () => {
  it("may differ between peers", async () => {
    const { coordinator, peers } = await world(1, { connectionsPerPeer: 8 });
    const [a] = peers as [Communicator];
    let registered!: () => void;
    const pending = new Promise<void>((resolve) => {
      registered = resolve;
    });
    const joining = connect(coordinator.address, { connectionsPerPeer: 2, onPending: registered });
    await pending;
    const [, b] = await Promise.all([a.updateTopology(), joining.then(closing)]);
    const results = await Promise.all(
      [a, b].map(async (peer) => {
        const sum = new Float32Array(3_000_000).fill(peer.peerId);
        await peer.allReduce(sum);
        return sum;
      }),
    );
    for (const sum of results) expect(sum.every((value) => value === 3)).toBe(true);
  });
});

describe("coordinatorTimeoutMs", () => {
  it("is how long a peer goes on without a coordinator", async () => {
    const coordinator = spawn(process.execPath, [PCCL, "coordinator", "--listen", "127.0.0.1:0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(coordinator, "exit");
    try {
      const [line] = (await once(createInterface(coordinator.stdout), "line")) as [string];
      const address = /127\.0\.0\.1:\d+/.exec(line)?.[0] ?? "";
      const peer = closing(await connect(address, { coordinatorTimeoutMs: 3_000 }));
      const removed = new Promise<PcclError>((resolve) => peer.once("removed", resolve));
      coordinator.kill("SIGKILL");
      await exited;
      expect((await peer.allReduce(tensor())).worldSize).toBe(1);
      await expect(peer.hasPendingPeers({ timeoutMs: 50 })).rejects.toThrow(/timed out after 50 ms/);
      await expect(peer.hasPendingPeers()).rejects.toThrow(CoordinatorLostError);
      expect(await removed).toMatchObject({ code: "ERR_PCCL_COORDINATOR_LOST", epoch: 1 });
    } finally {
      coordinator.kill("SIGKILL");
    }
  });
});
