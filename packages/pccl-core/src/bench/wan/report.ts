/** A scenario's results as a table for people, and what came of its goals. */
import { formatSize } from "../size.js";
import type { WanMeasurement } from "./run.js";
import { type CaseChoice, fits, type Goal, type Scenario } from "./scenario.js";

export const WAN_HEADER: string =
  "      size  dtype       conns  control  network                 median/s   bound/s  of bound  Mbit/s  of link  RTTs\n";

/** What went over the busiest link in one direction, by the median, in bits per second. */
export function linkThroughput({ busbwGBps }: WanMeasurement): number {
  return busbwGBps * 8e9;
}

export function formatWanRow(measurement: WanMeasurement): string {
  const { bytes, dtype, quantize, connections, congestionControl, network, medianSeconds } = measurement;
  const { boundSeconds, efficiency, linkBitsPerSecond, roundTripSeconds } = measurement;
  const throughput = linkThroughput(measurement);
  const columns = [
    formatSize(bytes).padStart(10),
    (quantize === "none" ? dtype : `${dtype} as ${quantize}`).padEnd(10),
    String(connections).padStart(5),
    congestionControl.padEnd(7),
    network.padEnd(22),
    medianSeconds.toFixed(3).padStart(8),
    (boundSeconds?.toFixed(3) ?? "-").padStart(8),
    (efficiency === undefined ? "-" : percent(efficiency)).padStart(8),
    (throughput / 1e6).toFixed(1).padStart(6),
    percent(throughput / linkBitsPerSecond).padStart(7),
    (medianSeconds / roundTripSeconds).toFixed(2).padStart(4),
  ];
  return `${columns.join("  ")}\n`;
}

/** One line for each goal and network. */
export function formatGoals({ goals }: Scenario, results: readonly WanMeasurement[]): string {
  const networks = [...new Set(results.map(({ network }) => network))];
  const lines = networks.flatMap((network) => {
    const here = results.filter((result) => result.network === network);
    return goals.flatMap((goal) =>
      here.filter((result) => fits(result as CaseChoice, goal.of)).map((result) => judge(goal, result, here)),
    );
  });
  return lines.map((line) => `${line}\n`).join("");
}

function judge(goal: Goal, result: WanMeasurement, all: readonly WanMeasurement[]): string {
  const checks: [reached: boolean, text: string][] = [];
  const { efficiencyMin, roundTripsMax, ratioMin, over = {} } = goal;
  if (efficiencyMin !== undefined) {
    const { efficiency = 0 } = result;
    checks.push([
      efficiency >= efficiencyMin,
      `${percent(efficiency)} of the bound (at least ${percent(efficiencyMin)})`,
    ]);
  }
  if (roundTripsMax !== undefined) {
    const trips = result.medianSeconds / result.roundTripSeconds;
    checks.push([trips <= roundTripsMax, `${trips.toFixed(2)} round trips (at most ${roundTripsMax})`]);
  }
  if (ratioMin !== undefined) {
    const other = all.find((each) => fits(each as CaseChoice, { bytes: result.bytes, ...over }));
    const ratio = other === undefined ? 0 : other.medianSeconds / result.medianSeconds;
    checks.push([
      ratio >= ratioMin,
      `${ratio.toFixed(2)} times as fast as with ${describeOver(over)} (at least ${ratioMin})`,
    ]);
  }
  const reached = checks.every(([ok]) => ok) ? "reached" : "MISSED ";
  const where = result.network === "" ? "" : `${result.network}, `;
  const what = `${where}${formatSize(result.bytes)}, ${result.connections} connections, ${result.congestionControl}`;
  return `goal ${reached}  ${what}: ${checks.map(([, text]) => text).join("; ")}`;
}

function describeOver(over: Partial<CaseChoice>): string {
  return Object.entries(over)
    .map(([key, value]) => `${key} ${value}`)
    .join(", ");
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
