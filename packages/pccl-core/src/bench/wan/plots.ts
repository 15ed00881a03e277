/** A scenario's results as pictures: throughput over the number of connections, and over the round trip. */
import type { EChartsOption } from "echarts";
import { pcclError } from "../../base/errors.js";
import { formatSize } from "../size.js";
import { linkThroughput } from "./report.js";
import type { WanMeasurement } from "./run.js";

export interface Plot {
  /** Of a file. */
  readonly name: string;
  readonly svg: string;
}

interface Axis {
  readonly file: string;
  readonly title: string;
  /** Undefined: the measurement has no place on it. */
  readonly valueOf: (measurement: WanMeasurement) => number | undefined;
  /** What a line has in common. */
  readonly lineOf: (measurement: WanMeasurement) => string;
}

const WIDTH_PX = 760;
const HEIGHT_PX = 460;

const formatRoundTrip = (seconds: number): string => `${Math.round(seconds * 1e3)} ms`;

const AXES: readonly Axis[] = [
  {
    file: "connections",
    title: "connections per link",
    valueOf: ({ connections }) => (connections === "auto" ? undefined : connections),
    lineOf: ({ roundTripSeconds, ...rest }) =>
      `${describeRest({ roundTripSeconds, ...rest })}, ${formatRoundTrip(roundTripSeconds)}`,
  },
  {
    file: "round-trip",
    title: "round trip in ms",
    valueOf: ({ roundTripSeconds }) => roundTripSeconds * 1e3,
    lineOf: (measurement) => `${describeRest(measurement)}, ${measurement.connections} connections`,
  },
];

function describeRest({ bytes, dtype, congestionControl }: WanMeasurement): string {
  return `${formatSize(bytes)} ${dtype}${congestionControl === "default" ? "" : `, ${congestionControl}`}`;
}

/** A plot for each axis along which there are at least two points. Throws ERR_PCCL_INVALID_ARGUMENT without echarts. */
export async function plotScenario(title: string, results: readonly WanMeasurement[]): Promise<Plot[]> {
  const { init } = await loadCharts();
  return AXES.flatMap((axis) => {
    const points = results.filter((result) => axis.valueOf(result) !== undefined);
    if (new Set(points.map(axis.valueOf)).size < 2) return [];
    const chart = init(null, null, { renderer: "svg", ssr: true, width: WIDTH_PX, height: HEIGHT_PX });
    chart.setOption(optionOf(title, axis, points));
    const svg = chart.renderToSVGString();
    chart.dispose();
    const name = `${title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}-${axis.file}.svg`;
    return [{ name, svg }];
  });
}

function optionOf(title: string, axis: Axis, points: readonly WanMeasurement[]): EChartsOption {
  const names = [...new Set(points.map(axis.lineOf))];
  const capacity = Math.max(...points.map(({ linkBitsPerSecond }) => linkBitsPerSecond));
  return {
    animation: false,
    backgroundColor: "#fff",
    title: { text: title, left: "center", textStyle: { fontSize: 15 } },
    legend: { bottom: 4, type: "plain" },
    grid: { left: 70, right: 30, top: 50, bottom: 40 + 24 * Math.ceil(names.length / 2) },
    xAxis: {
      type: "category",
      name: axis.title,
      nameLocation: "middle",
      nameGap: 28,
      data: [...new Set(points.map((point) => axis.valueOf(point) as number))]
        .sort((a, b) => a - b)
        .map(String),
    },
    yAxis: { type: "value", name: "Mbit/s on the link", min: 0, max: Math.ceil(capacity / 1e6) },
    series: names.map((name) => ({
      name,
      type: "line",
      symbolSize: 7,
      data: points
        .filter((point) => axis.lineOf(point) === name)
        .map(
          (point) =>
            [axis.valueOf(point) as number, Number((linkThroughput(point) / 1e6).toFixed(1))] as const,
        )
        .sort(([a], [b]) => a - b)
        .map(([x, y]) => [String(x), y]),
    })),
  };
}

async function loadCharts(): Promise<typeof import("echarts")> {
  try {
    return await import("echarts");
  } catch (cause) {
    throw pcclError(
      "ERR_PCCL_INVALID_ARGUMENT",
      "bench wan: --plots needs the package echarts: npm install echarts.",
      { cause: cause as Error },
    );
  }
}
