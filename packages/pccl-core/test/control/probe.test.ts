/** What the kernel says about a peer's data port, for ports in all the states that a peer can leave behind. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { probe } from "../../src/control/probe.js";

const servers: Server[] = [];
const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

async function listen(onSocket: (socket: Socket, count: number) => void): Promise<number> {
  let count = 0;
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    onSocket(socket, ++count);
  });
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

/** A process that listens and has room for few connections that it hasn't taken yet. */
async function listeningProcess(): Promise<{ child: ChildProcess; port: number }> {
  const program = `
    const server = require("net").createServer(() => {});
    server.listen({ host: "127.0.0.1", port: 0, backlog: 1 }, () => console.log(server.address().port));`;
  const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(child.stdout, "data");
  return { child, port: Number(String(line)) };
}

async function asked(port: number, host = "127.0.0.1"): Promise<string> {
  return await probe({ host, port });
}

describe("a probe", () => {
  it("is refused where nobody listens", async () => {
    const port = await listen(() => {});
    servers.pop()?.close();
    expect(await asked(port)).toBe("refused");
  });

  it("finds whoever takes the connection, whether he talks or not", async () => {
    expect(await asked(await listen(() => {}))).toBe("alive");
    expect(await asked(await listen((socket) => socket.write("hello")))).toBe("alive");
  });

  it("asks once more when the connection is closed at once, and then knows nothing", async () => {
    expect(await asked(await listen((socket, count) => count === 1 && socket.resetAndDestroy()))).toBe(
      "alive",
    );
    expect(await asked(await listen((socket, count) => count === 1 && socket.end()))).toBe("alive");
    expect(await asked(await listen((socket) => socket.resetAndDestroy()))).toBe("unknown");
  });

  it("knows nothing of hosts that don't answer or don't exist", async () => {
    expect(await asked(1, "no-such-host.invalid")).toBe("unknown");
    // A port to which more connections wait than its stopped process takes doesn't answer.
    const { child, port } = await listeningProcess();
    try {
      child.kill("SIGSTOP");
      for (let i = 0; i < 4; i++) sockets.push(connect(port, "127.0.0.1"));
      await once(sockets.at(-4) as Socket, "connect");
      await once(sockets.at(-3) as Socket, "connect");
      expect(await asked(port)).toBe("unknown");
    } finally {
      child.kill("SIGKILL");
    }
  });

  it("finds a stopped process alive and a killed one gone", async () => {
    const { child, port } = await listeningProcess();
    child.kill("SIGSTOP");
    expect(await asked(port)).toBe("alive");
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await asked(port)).toBe("refused");
  });
});
