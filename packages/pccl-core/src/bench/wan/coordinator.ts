/** The coordinator of a run between emulated hosts, a process of its own in one of them. It ends with its parent. */
import { Coordinator } from "../../control/index.js";

const [listen, minPeers] = process.argv.slice(2) as [string, string];
process.on("SIGINT", () => undefined);
process.on("disconnect", () => process.exit(0));
// The parent may be gone already: that was told while this program was loaded.
if (!process.connected) process.emit("disconnect");
const { address } = await Coordinator.start({ listen, minPeers: Number(minPeers) });
process.send?.(address);
