/** The loss curve as an SVG file. */

export interface Series {
  readonly label: string;
  readonly color: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  readonly dashed?: boolean;
}

export interface Chart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly Series[];
  /** Events, as vertical lines. */
  readonly marks: readonly { readonly x: number; readonly label: string }[];
}

const WIDTH = 860;
const HEIGHT = 480;
const PLOT = { left: 64, right: WIDTH - 200, top: 52, bottom: HEIGHT - 56 };

export function renderChart({ title, xLabel, yLabel, series, marks }: Chart): string {
  const points = series.flatMap((one) => one.points);
  const xs = ticks(
    0,
    points.map(([x]) => x).reduce((a, b) => Math.max(a, b), 1),
  );
  const lowest = points.map(([, y]) => y).reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const highest = points.map(([, y]) => y).reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const ys = ticks(lowest, highest);
  const x = scale(xs, PLOT.left, PLOT.right);
  const y = scale(ys, PLOT.bottom, PLOT.top);

  const parts: string[] = [
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(PLOT.left, 28, title, 'font-size="16" font-weight="600"'),
  ];
  for (const tick of ys) {
    parts.push(line(PLOT.left, y(tick), PLOT.right, y(tick), 'stroke="#e4e7eb"'));
    parts.push(text(PLOT.left - 8, y(tick) + 4, label(tick), 'text-anchor="end" fill="#52606d"'));
  }
  for (const tick of xs) {
    parts.push(text(x(tick), PLOT.bottom + 20, label(tick), 'text-anchor="middle" fill="#52606d"'));
  }
  parts.push(line(PLOT.left, PLOT.bottom, PLOT.right, PLOT.bottom, 'stroke="#52606d"'));
  parts.push(
    text((PLOT.left + PLOT.right) / 2, HEIGHT - 14, xLabel, 'text-anchor="middle" fill="#52606d"'),
    `<g transform="rotate(-90 18 ${HEIGHT / 2})">${text(18, HEIGHT / 2, yLabel, 'text-anchor="middle" fill="#52606d"')}</g>`,
  );
  for (const [index, mark] of marks.entries()) {
    parts.push(line(x(mark.x), PLOT.top, x(mark.x), PLOT.bottom, 'stroke="#9aa5b1" stroke-dasharray="2 4"'));
    parts.push(text(x(mark.x) + 4, PLOT.top + 12 + 15 * (index % 3), mark.label, 'fill="#52606d"'));
  }
  for (const [index, { label: name, color, points: curve, dashed }] of series.entries()) {
    const path = curve.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
    const dash = dashed === true ? ' stroke-dasharray="6 4"' : "";
    parts.push(`<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"${dash}/>`);
    const row = PLOT.top + 10 + index * 22;
    parts.push(line(PLOT.right + 16, row, PLOT.right + 40, row, `stroke="${color}" stroke-width="2"${dash}`));
    parts.push(text(PLOT.right + 46, row + 4, name, 'fill="#1f2933"'));
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}"`,
    ` font-family="system-ui, sans-serif" font-size="12">\n${parts.join("\n")}\n</svg>\n`,
  ].join("");
}

/** Round numbers, at most about eight, from at or below `low` to at or above `high`. */
export function ticks(low: number, high: number): number[] {
  const range = Math.max(high - low, 1e-6);
  const magnitude = 10 ** Math.floor(Math.log10(range / 8));
  const step = magnitude * ([1, 2, 5].find((factor) => range / (magnitude * factor) <= 8) ?? 10);
  const first = Math.floor(low / step + 1e-9);
  // Two at least, so that there is a scale.
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function scale(values: readonly number[], start: number, end: number): (value: number) => number {
  const low = values[0] as number;
  const high = values.at(-1) as number;
  return (value) => start + ((value - low) / (high - low)) * (end - start);
}

function label(value: number): string {
  return String(Number(value.toPrecision(6)));
}

function line(x1: number, y1: number, x2: number, y2: number, attributes: string): string {
  const [a, b, c, d] = [x1, y1, x2, y2].map((value) => value.toFixed(1));
  return `<line x1="${a}" y1="${b}" x2="${c}" y2="${d}" ${attributes}/>`;
}

function text(x: number, y: number, content: string, attributes: string): string {
  const escaped = content.replace(
    /[&<>]/g,
    (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[char] ?? "",
  );
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped}</text>`;
}
