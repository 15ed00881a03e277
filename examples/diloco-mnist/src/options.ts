/** The command lines of this folder's programs. */
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import type { DilocoOptions, WireOptions } from "@pccl/core/diloco";
import { DataError, readDigits, type Split } from "./digits.js";
import { readNextBytes } from "./next-byte.js";
import type { PeerConfig } from "./peer.js";

export class UsageError extends Error {}

export interface CompareOptions {
  readonly task: "digits" | "text";
  readonly read: () => Split;
  readonly peers: number;
  readonly innerSteps: number;
  readonly outerSteps: number;
  readonly seeds: number;
  readonly variants: readonly string[];
  readonly size: { readonly hidden: number; readonly batch: number };
  /** Another outer optimizer than the default. */
  readonly outer: Pick<DilocoOptions, "outer">;
  readonly out: string;
}

export const HELP_COMPARE: string = `Usage: node examples/diloco-mnist/dist/compare.js [options]

Trains the same network with every variant of DiLoCo and says what each came to.

  --mnist DIR       MNIST's IDX files: classify digits (default ../shared/data/mnist, where it is there)
  --text FILE       a text: predict the next byte instead
  --peers N         4        --inner-steps N   50
  --outer-steps N   20       --seeds N         1
  --variants A,B    of: data parallel, sync, async, eager, streaming, bf16, 8-bit, 4-bit, 4-bit (no feedback), top-k
  --outer ETA,MU    Nesterov's learning rate and momentum, 0.7,0.5
  --hidden N        64       --batch N         32
  --out DIR         compare-output: the curves as SVG, and every run as a line of JSON
`;

export interface MainOptions {
  readonly peers: number;
  readonly innerSteps: number;
  readonly outerSteps: number;
  /** Rounds in all: outer steps, times the fragments of the streaming schedule. */
  readonly rounds: number;
  readonly out: string;
  readonly read: () => Split;
  /** All but what differs from peer to peer. */
  readonly peer: Omit<PeerConfig, "coordinator" | "ordinal">;
}

export const HELP: string = `Usage: node examples/diloco-mnist/dist/main.js [options]

Peers in processes of their own train one small network with DiLoCo; one more joins a third of the way in.

  --mnist DIR       MNIST's IDX files (default ../shared/data/mnist, where it is there)
  --text FILE       a text: predict the next byte instead
  --peers N         3        --inner-steps N   50
  --outer-steps N   12       --seed N          1
  --schedule S      sync (default), async, eager or streaming
  --wire W          f32 (default), bf16, 8-bit, 4-bit or top-k
  --outer ETA,MU    Nesterov's learning rate and momentum, 0.7,0.5
  --hidden N        64       --batch N         32
  --out DIR         mnist-output: loss.svg and steps.jsonl

Exit status: 0 when the late peer took part and all outer states are equal at the end, 1 when not, 2 for wrong options.
`;

const STREAMING_FRAGMENTS = 5;

/** undefined: help was asked for. */
export function parseMain(args: readonly string[]): MainOptions | undefined {
  const values = parse(args);
  if (values["help"] === true) return undefined;
  const given = (name: string): string | undefined => values[name] as string | undefined;
  const oneOf = <T extends string>(name: string, known: readonly T[]): T => {
    const value = given(name) ?? known[0];
    if (known.includes(value as T)) return value as T;
    throw new UsageError(`--${name} must be one of ${known.join(", ")}, got ${JSON.stringify(value)}.`);
  };
  const schedule = oneOf("schedule", ["sync", "async", "eager", "streaming"]);
  const innerSteps = integer("--inner-steps", given("inner-steps"), 50, 1, 100_000);
  const outerSteps = integer("--outer-steps", given("outer-steps"), 12, 3, 100_000);
  if (schedule === "streaming" && innerSteps % STREAMING_FRAGMENTS !== 0) {
    throw new UsageError(`--inner-steps must be a multiple of ${STREAMING_FRAGMENTS} for streaming.`);
  }
  const text = given("text");
  const mnist = given("mnist") ?? MNIST_DEFAULT;
  const [learningRate, momentum] = outerOf(given("outer"));
  return {
    peers: integer("--peers", given("peers"), 3, 1, 15),
    innerSteps,
    outerSteps,
    rounds: outerSteps * (schedule === "streaming" ? STREAMING_FRAGMENTS : 1),
    out: given("out") ?? "mnist-output",
    read: reader(text, mnist),
    peer: {
      text,
      mnist,
      seed: integer("--seed", given("seed"), 1, 0, 2 ** 31 - 1),
      innerSteps,
      outerSteps,
      schedule:
        schedule === "streaming"
          ? { kind: "streaming", fragments: STREAMING_FRAGMENTS, delaySteps: 2 }
          : schedule,
      wire: oneOf<WireOptions & string>("wire", ["f32", "bf16", "8-bit", "4-bit", "top-k"]),
      outer: { kind: "nesterov", learningRate, momentum },
      size: sizeOf(given),
    },
  };
}

function outerOf(text = "0.7,0.5"): [number, number] {
  const [eta = Number.NaN, mu = Number.NaN] = text.split(",").map(Number);
  if (Number.isFinite(eta) && Number.isFinite(mu)) return [eta, mu];
  throw new UsageError("--outer must be two numbers, as 0.7,0.5.");
}

function sizeOf(given: (name: string) => string | undefined): { hidden: number; batch: number } {
  return {
    hidden: integer("--hidden", given("hidden"), 64, 1, 4096),
    batch: integer("--batch", given("batch"), 32, 1, 4096),
  };
}

const MNIST_DEFAULT = "../shared/data/mnist";

/** undefined: help was asked for. */
export function parseCompare(args: readonly string[], known: readonly string[]): CompareOptions | undefined {
  const values = parse(args);
  if (values["help"] === true) return undefined;
  const given = (name: string): string | undefined => values[name] as string | undefined;
  const text = given("text");
  const variants = given("variants")?.split(",") ?? [...known];
  for (const name of variants) {
    if (!known.includes(name))
      throw new UsageError(`--variants: there is no "${name}"; known: ${known.join(", ")}.`);
  }
  const [learningRate, momentum] = outerOf(given("outer"));
  return {
    task: text === undefined ? "digits" : "text",
    read: reader(text, given("mnist") ?? MNIST_DEFAULT),
    peers: integer("--peers", given("peers"), 4, 1, 16),
    innerSteps: integer("--inner-steps", given("inner-steps"), 50, 1, 100_000),
    outerSteps: integer("--outer-steps", given("outer-steps"), 20, 1, 100_000),
    seeds: integer("--seeds", given("seeds"), 1, 1, 100),
    variants,
    size: sizeOf(given),
    outer: { outer: { kind: "nesterov", learningRate, momentum } },
    out: given("out") ?? "compare-output",
  };
}

/** Says what is missing before anything is started. */
export function reader(text: string | undefined, mnist: string): () => Split {
  const path = text ?? mnist;
  if (!existsSync(path)) {
    const hint =
      text === undefined ? " Give a folder with MNIST's IDX files by --mnist, or a text by --text." : "";
    throw new UsageError(`there is no ${path}.${hint}`);
  }
  return () => {
    try {
      return text === undefined ? readDigits(mnist) : readNextBytes(text);
    } catch (error) {
      throw error instanceof DataError ? new UsageError(error.message) : error;
    }
  };
}

const STRINGS = [
  "mnist",
  "text",
  "peers",
  "inner-steps",
  "outer-steps",
  "seeds",
  "seed",
  "variants",
  "outer",
  "hidden",
  "batch",
  "schedule",
  "wire",
  "out",
] as const;

function parse(args: readonly string[]): Readonly<Record<string, unknown>> {
  const strings = Object.fromEntries(STRINGS.map((name) => [name, { type: "string" as const }]));
  try {
    return parseArgs({ args: [...args], options: { ...strings, help: { type: "boolean", short: "h" } } })
      .values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function integer(name: string, text: string | undefined, fallback: number, min: number, max: number): number {
  if (text === undefined) return fallback;
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) {
    throw new UsageError(`${name} must be an integer from ${min} to ${max}, got ${JSON.stringify(text)}.`);
  }
  return value;
}
