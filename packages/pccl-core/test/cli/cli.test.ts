/** The command line as users run it: the built program in child processes. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as tcpConnect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { RawPeer } from "../control/raw-peer.js";
import { killAll, pccl, RunningCoordinator } from "./running-coordinator.js";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

const peers: RawPeer[] = [];

afterEach(() => {
  killAll();
  for (const peer of peers.splice(0)) peer.close();
});

async function finished(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = pccl(...args);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => (stdout += data));
  child.stderr.on("data", (data) => (stderr += data));
  const [code] = await once(child, "close");
  return { code, stdout, stderr };
}

async function admit(address: string): Promise<RawPeer> {
  const peer = new RawPeer(address);
  peers.push(peer);
  await peer.until(() => peer.connected);
  peer.register();
  await peer.expect("registered");
  await peer.install();
  return peer;
}

describe("pccl", () => {
  it("shows its help, its commands' help and its version", async () => {
    const [help, coordinatorHelp, version] = await Promise.all([
      finished("--help"),
      finished("coordinator", "--help"),
      finished("--version"),
    ]);
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain("coordinator");
    expect(coordinatorHelp).toMatchObject({ code: 0, stderr: "" });
    for (const flag of ["--listen", "--lease-ms", "--min-peers", "--state", "--json", "Exit codes"]) {
      expect(coordinatorHelp.stdout).toContain(flag);
    }
    expect(version).toEqual({ code: 0, stdout: `${manifest.version}\n`, stderr: "" });
  });

  it.each([
    [[], "no command"],
    [["dance"], 'unknown command "dance"'],
    [["--loud"], "--loud"],
    [["coordinator", "--port", "1"], "--port"],
    [["coordinator", "extra"], "extra"],
    [["coordinator", "--listen", "here:there"], "HOST:PORT"],
    [["coordinator", "--listen", "127.0.0.1:0", "--lease-ms", "soon"], "--lease-ms must be an integer"],
    [["coordinator", "--listen", "127.0.0.1:0", "--lease-ms", "1"], "leaseMs"],
    [["coordinator", "--listen", "127.0.0.1:0", "--min-peers", "0"], "minPeers"],
  ])("refuses the arguments %j with exit code 2", async (args, message) => {
    const { code, stdout, stderr } = await finished(...args);
    expect(stderr).toContain(message);
    expect(stderr).toContain("--help");
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });
});

describe("pccl coordinator", () => {
  it("prints where it listens and what happens, and tells peers when a signal ends it", async () => {
    const running = new RunningCoordinator();
    const [, address] = await running.line(/listening on (\S+)/);
    const peer = await admit(address as string);
    await running.line(/peer 1 joined group 0/);
    await running.line(/peer 1 admitted in epoch \d+; world size 1/);
    const second = new RawPeer(address as string);
    await second.until(() => second.connected);
    second.register();
    await second.expect("registered");
    second.send({ kind: "leave" });
    await running.line(/peer 2 left/);
    second.close();
    running.child.kill("SIGTERM");
    expect((await peer.expect("removed")).reason).toContain("shutting down");
    expect(await running.exit()).toEqual({ code: 0, signal: null });
    expect(running.lines.at(-1)).toContain("stopped");
  });

  it("prints JSON lines with --json", async () => {
    const running = new RunningCoordinator("--json", "--min-peers", "1", "--lease-ms", "2000");
    const [line] = await running.line(/.*"listening".*/);
    const { address } = JSON.parse(line);
    const peer = await admit(address);
    await running.line(/"admitted"/);
    peer.close();
    await running.line(/"removed"/);
    running.child.kill("SIGINT");
    expect(await running.exit()).toEqual({ code: 0, signal: null });
    const events = running.lines.map((text) => JSON.parse(text));
    const names = [
      "listening",
      "joined",
      "preparing",
      "installed",
      "admitted",
      "detached",
      "removed",
      "stopping",
      "stopped",
    ];
    // The probe of the peer's data port comes back when it does.
    expect(events.map(({ event }) => event).filter((name) => name !== "probed")).toEqual(names);
    expect(events.every(({ time }) => Number.isFinite(Date.parse(time)))).toBe(true);
    expect(events.find(({ event }) => event === "removed")).toMatchObject({ peerId: 1, worldSize: 0 });
  });

  it("ends at once at a second signal", async () => {
    const running = new RunningCoordinator();
    const [, address] = await running.line(/listening on (\S+)/);
    // A connection that says nothing makes a graceful end take its time.
    const silent = tcpConnect(Number(address?.split(":")[1]), "127.0.0.1");
    await once(silent, "connect");
    // Both signals are there when the process goes on, so that the first can't have ended it before the second.
    running.child.kill("SIGSTOP");
    running.child.kill("SIGINT");
    running.child.kill("SIGTERM");
    running.child.kill("SIGCONT");
    expect(await running.exit()).toEqual({ code: 130, signal: null });
    silent.destroy();
  });

  it("says that a port is in use, with exit code 1", async () => {
    const running = new RunningCoordinator();
    const [, address] = await running.line(/listening on (\S+)/);
    const { code, stderr } = await finished("coordinator", "--listen", address as string);
    expect(stderr).toContain(`can't listen on ${address}`);
    expect(stderr).toContain("EADDRINUSE");
    expect(code).toBe(1);
  });
});
