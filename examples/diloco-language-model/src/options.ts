/** The demo's command line. */
import { existsSync, statSync } from "node:fs";
import { parseArgs } from "node:util";

export interface Options {
  readonly peers: number;
  readonly outerSteps: number;
  readonly innerSteps: number;
  readonly seed: number;
  readonly text: string | undefined;
  readonly out: string;
  readonly json: boolean;
}

export const DEFAULTS: Readonly<Omit<Options, "text">> = {
  peers: 4,
  outerSteps: 12,
  innerSteps: 50,
  seed: 1,
  out: "demo-output",
  json: false,
};

export const HELP: string = `Usage: npm run demo -- [options]

Several peer processes train one byte-level language model with DiLoCo. One third in, a peer is killed; two thirds
in, a new one joins. Progress goes to stderr, the report to stdout.

Options
  --peers N         peers that begin (default ${DEFAULTS.peers}); with 1 nobody is killed
  --outer-steps N   outer steps, each followed by an exchange (default ${DEFAULTS.outerSteps})
  --inner-steps N   steps that every peer makes alone between two exchanges (default ${DEFAULTS.innerSteps})
  --seed N          initial parameters, order of the data, and which peer dies when (default ${DEFAULTS.seed})
  --text FILE       train on this file instead of the repository's docs and sources (at least 40 kB)
  --out DIR         where the loss curve is written (default ./${DEFAULTS.out})
  --json            print one JSON object as the last line of stdout
  --help            print this

Exit status: 0 when "ok", 1 when not, 2 for wrong options, 130 after Ctrl-C.

"ok" means: every peer that wasn't killed made all its steps, all of them hold the same bytes at the end, the kill and
the join took place, and all losses are finite. On the repository's own text, with at least the default numbers of
steps, the final loss must also be at most 0.9 times that of a bigram model.
Losses are in nats per byte, measured on a tenth of the text that is not trained on.
`;

export class UsageError extends Error {}

/** undefined: help was asked for. */
export function parseOptions(args: readonly string[]): Options | undefined {
  const { values } = parse(args);
  if (values.help === true) return undefined;
  const { text } = values;
  if (text !== undefined && !(existsSync(text) && statSync(text).isFile())) {
    throw new UsageError(`--text: there is no file ${text}.`);
  }
  return {
    peers: integer("--peers", values.peers, DEFAULTS.peers, 1, 64),
    outerSteps: integer("--outer-steps", values["outer-steps"], DEFAULTS.outerSteps, 1, 100_000),
    innerSteps: integer("--inner-steps", values["inner-steps"], DEFAULTS.innerSteps, 1, 100_000),
    seed: integer("--seed", values.seed, DEFAULTS.seed, 0, 2 ** 31 - 1),
    text,
    out: values.out ?? DEFAULTS.out,
    json: values.json ?? DEFAULTS.json,
  };
}

// The return type is parseArgs' own: one type per option.
function parse(args: readonly string[]): {
  values: {
    peers?: string;
    "outer-steps"?: string;
    "inner-steps"?: string;
    seed?: string;
    text?: string;
    out?: string;
    json?: boolean;
    help?: boolean;
  };
} {
  try {
    return parseArgs({
      args: [...args],
      options: {
        peers: { type: "string" },
        "outer-steps": { type: "string" },
        "inner-steps": { type: "string" },
        seed: { type: "string" },
        text: { type: "string" },
        out: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
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
