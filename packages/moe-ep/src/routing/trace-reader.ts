/** Reads routing traces; trace-format.ts says what they look like. */
import { readFileSync } from "node:fs";
import { checkInteger, describe, type PcclError } from "@pccl/core/base";
import { countCopies, type Routing } from "./routing.js";
import {
  checkCounts,
  checkLayout,
  checkPlace,
  checkRouting,
  FORMAT,
  fromBase64,
  invalid,
  reasonOf,
  type RoutingTrace,
  type TraceBatch,
  type TraceLayout,
  VERSION,
} from "./trace-format.js";

/** Reads a trace from one file, or from several that belong together. Throws ERR_PCCL_INVALID_ARGUMENT. */
export function readTrace(...files: readonly string[]): RoutingTrace {
  return parseTrace(
    files.map((file) => {
      try {
        return { name: file, text: readFileSync(file, "utf8") };
      } catch (error) {
        throw invalid(`${file} can't be read: ${reasonOf(error)}`, error);
      }
    }),
  );
}

interface OpenBatch {
  readonly step: number;
  readonly layer: number;
  counts?: Float64Array[];
  readonly routings: Map<number, Routing>;
}

/** The same from texts; names are for messages. */
export function parseTrace(
  sources: readonly { readonly name: string; readonly text: string }[],
): RoutingTrace {
  let layout: TraceLayout | undefined;
  const open = new Map<string, OpenBatch>();
  for (const { name, text } of sources) {
    const lines = text.split("\n").map((line, index) => ({ line, call: `${name}: line ${index + 1}` }));
    const [header, ...records] = lines.filter(({ line }) => line.trim() !== "");
    if (header === undefined) throw invalid(`${name}: is empty, and no routing trace`);
    const own = headerOf(header.call, parseObject(header.call, header.line));
    layout ??= own;
    if (JSON.stringify(own) !== JSON.stringify(layout)) {
      throw invalid(`${name}: has other ranks or layers than ${sources[0]?.name}`);
    }
    for (const { call, line } of records) addRecord(call, parseObject(call, line), layout, open);
  }
  if (layout === undefined) throw invalid("readTrace: needs at least one file");
  const complete = layout;
  const batches = [...open.values()]
    .map((batch) => closeBatch(batch, complete))
    .sort((a, b) => a.step - b.step || a.layer - b.layer);
  return { ...layout, batches };
}

function parseObject(call: string, line: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw invalid(`${call}: is no JSON: ${reasonOf(error)}`, error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(`${call}: must be an object, got ${describe(value)}`);
  }
  return value as Record<string, unknown>;
}

function headerOf(
  call: string,
  { format, version, ranks, layerExperts }: Record<string, unknown>,
): TraceLayout {
  if (format !== FORMAT) throw invalid(`${call}: no routing trace: "format" must be "${FORMAT}"`);
  if (version !== VERSION) throw invalid(`${call}: version ${describe(version)} is not ${VERSION}`);
  return checkLayout(call, { ranks, layerExperts });
}

function addRecord(
  call: string,
  record: Record<string, unknown>,
  layout: TraceLayout,
  open: Map<string, OpenBatch>,
): void {
  const experts = checkPlace(call, layout, record.step, record.layer);
  const [step, layer] = [record.step as number, record.layer as number];
  const key = `${step} ${layer}`;
  const batch = open.get(key) ?? { step, layer, routings: new Map<number, Routing>() };
  open.set(key, batch);
  if (record.counts !== undefined) {
    if (batch.counts !== undefined || batch.routings.size > 0) throw twice(call, batch);
    batch.counts = checkCounts(call, record.counts, layout.ranks, experts);
    return;
  }
  const rank = checkInteger(call, "rank", record.rank, 0, layout.ranks - 1);
  if (batch.counts !== undefined || batch.routings.has(rank)) throw twice(call, batch);
  const routing = {
    firstSlot: firstSlots(call, fromBase64(call, "slots", record.slots, Uint16Array)),
    experts: Int32Array.from(fromBase64(call, "experts", record.experts, Uint16Array)),
    gates: fromBase64(call, "gates", record.gates, Float32Array),
  };
  checkRouting(call, routing, experts);
  batch.routings.set(rank, routing);
}

function twice(call: string, { step, layer }: OpenBatch): PcclError {
  return invalid(`${call}: step ${step}, layer ${layer} is there twice`);
}

function closeBatch({ step, layer, counts, routings }: OpenBatch, layout: TraceLayout): TraceBatch {
  if (counts !== undefined) return { step, layer, counts };
  const experts = layout.layerExperts[layer] as number;
  const byRank = Array.from({ length: layout.ranks }, (_, rank) => {
    const routing = routings.get(rank);
    if (routing === undefined) {
      throw invalid(`step ${step}, layer ${layer} of the trace: rank ${rank}'s routing is missing`);
    }
    return routing;
  });
  return {
    step,
    layer,
    counts: byRank.map((routing) => countCopies("readTrace", routing, experts)),
    routings: byRank,
  };
}

function firstSlots(call: string, slots: Uint16Array): Int32Array {
  const first = new Int32Array(slots.length + 1);
  for (const [token, count] of slots.entries()) {
    const end = (first[token] as number) + count;
    if (end > 2 ** 31 - 1) throw invalid(`${call}: has more than 2^31 - 1 slots`);
    first[token + 1] = end;
  }
  return first;
}
