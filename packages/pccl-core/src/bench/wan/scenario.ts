/** What `pccl bench wan` is to measure: a file of hosts, links and cases, read and checked. */
import { checkInteger, checkNumber, checkOneOf, checkOptions, describe } from "../../base/check.js";
import { pcclError } from "../../base/errors.js";
import { CONNECTIONS_PER_PEER_MAX } from "../../base/limits.js";
import { QUANTIZED_FORMATS, type QuantizedFormat } from "../../peer/quantization.js";
import type { DType } from "../../peer/tensor.js";
import { COLLECTIVE_NAMES, type CollectiveName } from "../collectives.js";
import { DTYPES } from "../pattern.js";
import { parseSizes } from "../size.js";

const CALL = "bench wan";
/** What wanem can hold. */
const HOSTS_MAX = 15;
const ITERATIONS_MAX = 10_000;
const WARM_UP_SECONDS_MAX = 600;
const WARM_UP_SECONDS_DEFAULT = 4;

/** One direction between two hosts. */
export interface WanLink {
  readonly delaySeconds: number;
  /** On the wire, Ethernet headers included. */
  readonly bitsPerSecond: number;
  /** Of packets, 0 to 1. */
  readonly loss: number;
}

/** By [from][to]; the diagonal means nothing. */
export type WanLinks = readonly (readonly WanLink[])[];

export type Connections = number | "auto";

/** What tells one measurement of a network from another. */
export interface CaseChoice {
  readonly connections: Connections;
  /** "default": what the system takes by itself. */
  readonly congestionControl: string;
  readonly dtype: DType;
  /** What f32 elements are sent as; "none": as they are. */
  readonly quantize: QuantizedFormat | "none";
  readonly bytes: number;
}

/** What the measurements that `of` fits have to reach. */
export interface Goal {
  readonly of: Partial<CaseChoice>;
  /** The bound's share of the measured time. */
  readonly efficiencyMin?: number;
  /** The measured time in round trips of the slowest link. */
  readonly roundTripsMax?: number;
  /** The time of `over` by the time of `of`. */
  readonly ratioMin?: number;
  readonly over?: Partial<CaseChoice>;
}

export interface Network {
  /** As the file says it: the values that are varied. */
  readonly name: string;
  readonly links: WanLinks;
  /** What wanem is told. */
  readonly matrix: object;
}

export interface Scenario {
  readonly title: string;
  readonly hosts: number;
  readonly collective: CollectiveName;
  readonly networks: readonly Network[];
  readonly cases: readonly CaseChoice[];
  readonly iterations: number | undefined;
  /** For connections to get up to speed, and links to find how many they need. */
  readonly warmUpSeconds: number;
  readonly goals: readonly Goal[];
}

type Fields = Readonly<Record<string, unknown>>;

const LINK_KEYS = ["rate", "rtt", "delay", "loss", "queue", "jitter"] as const;
const CHOICE_KEYS = ["connections", "congestionControl", "dtype", "quantize", "size"] as const;
const QUANTIZE = ["none", ...QUANTIZED_FORMATS] as const;

/** Throws ERR_PCCL_INVALID_ARGUMENT or ERR_PCCL_UNKNOWN_OPTION, naming the key. */
export function parseScenario(text: string): Scenario {
  const file = fieldsOf("the scenario", parseJson(text), [
    ...["title", "hosts", "network", "links", "collective", "sizes", "connections", "congestionControl"],
    ...["dtypes", "quantize", "iterations", "warmUpSeconds", "goals"],
  ]);
  const hosts = checkInteger(CALL, "hosts", file["hosts"], 2, HOSTS_MAX);
  const sizes = listOf("sizes", file["sizes"]).flatMap((size) => parseSizes("sizes", textOf("sizes", size)));
  const connections = listOf("connections", file["connections"] ?? "auto").map(connectionsOf);
  const controls = listOf("congestionControl", file["congestionControl"] ?? "default").map((value) =>
    textOf("congestionControl", value),
  );
  const dtypes = listOf("dtypes", file["dtypes"] ?? "f32").map((value) =>
    checkOneOf(CALL, "dtypes", value, DTYPES),
  );
  const formats = listOf("quantize", file["quantize"] ?? "none").map((value) =>
    checkOneOf(CALL, "quantize", value, QUANTIZE),
  );
  const cases = sizes.flatMap((bytes) =>
    dtypes.flatMap((dtype) =>
      formats.flatMap((quantize) =>
        controls.flatMap((congestionControl) =>
          connections.map((each) => ({ bytes, dtype, quantize, congestionControl, connections: each })),
        ),
      ),
    ),
  );
  const { iterations, warmUpSeconds } = file;
  return {
    title: textOf("title", file["title"]),
    hosts,
    collective: checkOneOf(CALL, "collective", file["collective"] ?? "all-reduce", COLLECTIVE_NAMES),
    networks: networksOf(hosts, fieldsOf("network", file["network"], LINK_KEYS), file["links"] ?? []),
    cases,
    iterations:
      iterations === undefined ? undefined : checkInteger(CALL, "iterations", iterations, 1, ITERATIONS_MAX),
    warmUpSeconds: checkNumber(
      CALL,
      "warmUpSeconds",
      warmUpSeconds ?? WARM_UP_SECONDS_DEFAULT,
      0,
      WARM_UP_SECONDS_MAX,
    ),
    goals: listOf("goals", file["goals"] ?? []).map(goalOf),
  };
}

export function fits(choice: CaseChoice, wanted: Partial<CaseChoice>): boolean {
  return (Object.keys(wanted) as (keyof CaseChoice)[]).every((key) => choice[key] === wanted[key]);
}

/** One for each value of each key of `network` that is a list. */
function networksOf(hosts: number, network: Fields, links: unknown): Network[] {
  const varied = LINK_KEYS.filter((key) => Array.isArray(network[key]));
  const combinations = varied.reduce<Fields[]>(
    (all, key) => all.flatMap((one) => listOf(key, network[key]).map((value) => ({ ...one, [key]: value }))),
    [network],
  );
  const exceptions = listOf("links", links).map((link) =>
    fieldsOf("links", link, ["from", "to", "both", ...LINK_KEYS]),
  );
  return combinations.map((common) => {
    const table = Array.from({ length: hosts }, () => Array.from({ length: hosts }, () => common));
    for (const { from, to, both, ...rest } of exceptions) {
      const a = checkInteger(CALL, "links: from", from, 0, hosts - 1);
      const b = checkInteger(CALL, "links: to", to, 0, hosts - 1);
      const rows =
        both === true
          ? ([
              [a, b],
              [b, a],
            ] as const)
          : ([[a, b]] as const);
      for (const [x, y] of rows) {
        const row = table[x] as Fields[];
        row[y] = { ...row[y], ...rest };
      }
    }
    return {
      name: varied.map((key) => `${key} ${String(common[key])}`).join(", "),
      links: table.map((row) => row.map(linkOf)),
      matrix: { hosts, default: common, links: exceptions },
    };
  });
}

function linkOf(fields: Fields): WanLink {
  const { rtt, delay, rate, loss } = fields;
  if ((rtt === undefined) === (delay === undefined)) {
    throw invalid(`every link needs "rtt" or "delay", one of them, got ${JSON.stringify(fields)}`);
  }
  const delaySeconds = delay === undefined ? secondsOf("rtt", rtt) / 2 : secondsOf("delay", delay);
  const percent = loss === undefined ? 0 : quantity("loss", loss, { "%": 1 });
  return { delaySeconds, bitsPerSecond: quantity("rate", rate, RATE_UNITS), loss: percent / 100 };
}

const RATE_UNITS = { kbit: 1e3, mbit: 1e6, gbit: 1e9 };

function secondsOf(name: string, value: unknown): number {
  return quantity(name, value, { s: 1, ms: 1e-3, us: 1e-6 });
}

function quantity(name: string, value: unknown, units: Readonly<Record<string, number>>): number {
  const [, number = "", unit = ""] = /^([\d.]+)([a-z%]+)$/.exec(typeof value === "string" ? value : "") ?? [];
  const result = Number(number) * (units[unit] ?? Number.NaN);
  if (number !== "" && Number.isFinite(result)) return result;
  throw invalid(
    `${name} must be a number with a unit of ${Object.keys(units).join(", ")}, got ${describe(value)}`,
  );
}

function goalOf(value: unknown): Goal {
  const { of, over, ...limits } = fieldsOf("goals", value, [
    ...["of", "over", "efficiencyMin", "roundTripsMax", "ratioMin"],
  ]);
  const numbers = Object.fromEntries(
    Object.entries(limits).map(([key, limit]) => [key, checkNumber(CALL, `goals: ${key}`, limit, 0, 1e6)]),
  );
  if ((numbers["ratioMin"] === undefined) !== (over === undefined)) {
    throw invalid("a goal has both ratioMin and over, or none of them");
  }
  if (Object.keys(numbers).length === 0)
    throw invalid("a goal needs efficiencyMin, roundTripsMax or ratioMin");
  return { of: choiceOf(of ?? {}), ...(over !== undefined && { over: choiceOf(over) }), ...numbers };
}

function choiceOf(value: unknown): Partial<CaseChoice> {
  const { connections, congestionControl, dtype, quantize, size } = fieldsOf("goals", value, CHOICE_KEYS);
  return {
    ...(connections !== undefined && { connections: connectionsOf(connections) }),
    ...(congestionControl !== undefined && {
      congestionControl: textOf("goals: congestionControl", congestionControl),
    }),
    ...(dtype !== undefined && { dtype: checkOneOf(CALL, "goals: dtype", dtype, DTYPES) }),
    ...(quantize !== undefined && { quantize: checkOneOf(CALL, "goals: quantize", quantize, QUANTIZE) }),
    ...(size !== undefined && { bytes: parseSizes("goals: size", textOf("goals: size", size))[0] as number }),
  };
}

function connectionsOf(value: unknown): Connections {
  return value === "auto" ? value : checkInteger(CALL, "connections", value, 1, CONNECTIONS_PER_PEER_MAX);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(`the scenario is no JSON: ${(error as Error).message}`);
  }
}

function fieldsOf(name: string, value: unknown, keys: readonly string[]): Fields {
  if (value === undefined) throw invalid(`${name} is missing`);
  checkOptions(`${CALL}: ${name}`, value, keys);
  return value as Fields;
}

/** A single value stands for a list of one. */
function listOf(name: string, value: unknown): readonly unknown[] {
  if (value === undefined) throw invalid(`${name} is missing`);
  return Array.isArray(value) ? value : [value];
}

function textOf(name: string, value: unknown): string {
  if (typeof value === "string" && value !== "") return value;
  throw invalid(`${name} must be text, got ${describe(value)}`);
}

function invalid(what: string): Error {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${CALL}: ${what}.`);
}
