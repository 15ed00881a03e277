/** The options of a layer that all ranks must give alike, and what follows from them. */
import { createHash } from "node:crypto";
import { checkInteger, checkOneOf, checkOptions, describe, type PcclError, pcclError } from "@pccl/core/base";
import { type ExpertFormat, type ExpertTensors, rawShape } from "../experts/experts.js";
import { nativeRank, type PlanOptions } from "../planner/plan.js";

export interface ExpertLayerOptions {
  readonly format: ExpertFormat;
  /** N, at least as many as there are ranks. */
  readonly experts: number;
  /** The tensors of an expert of this rank's: see ExpertFormat. Called for each of them, one after the other. */
  readonly tensors: (expert: number) => ExpertTensors | Promise<ExpertTensors>;
  /** Whether there will be backward passes, which takes twice the memory for weights. Default false. */
  readonly training?: boolean | undefined;
  /**
   * How to plan: see planExperts. By default auto, with a cost model in which weights that this host's ranks map cost
   * next to nothing; `expertBytes` and `nodes` are the layer's.
   */
  readonly plan?: Omit<PlanOptions, "expertBytes"> | undefined;
  /**
   * "auto" (default): ranks of one host read each other's weights where they lie, others send them. "send": all do.
   */
  readonly lending?: "auto" | "send" | undefined;
}

export interface LayerConfig {
  readonly format: ExpertFormat;
  readonly experts: number;
  readonly training: boolean;
  readonly plan: Omit<PlanOptions, "expertBytes">;
  readonly lending: "auto" | "send";
  /** The rank that holds each expert. */
  readonly owners: readonly number[];
}

const KEYS = ["format", "experts", "tensors", "training", "plan", "lending"];
const EXPERTS_MAX = 65_536;
const DIGEST_BYTES = 32;
const TEXT_BYTES = 224;
export const CONFIG_BYTES: number = TEXT_BYTES + DIGEST_BYTES;

function invalid(call: string, message: string): PcclError {
  return pcclError("ERR_PCCL_INVALID_ARGUMENT", `${call}: ${message}`);
}

export function checkConfig(call: string, options: ExpertLayerOptions, ranks: number): LayerConfig {
  if (options === undefined) throw invalid(call, "options must be an object");
  checkOptions(call, options, KEYS);
  const { training = false, plan = {}, lending = "auto" } = options;
  rawShape(call, options.format);
  const experts = checkInteger(call, "experts", options.experts, 1, EXPERTS_MAX);
  if (experts < ranks) {
    throw invalid(call, `${experts} experts can't be shared by ${ranks} ranks: each holds one at least`);
  }
  if (typeof training !== "boolean")
    throw invalid(call, `training must be a boolean, got ${describe(training)}`);
  if (typeof options.tensors !== "function") {
    throw invalid(call, `tensors must be a function, got ${describe(options.tensors)}`);
  }
  checkOneOf(call, "lending", lending, ["auto", "send"]);
  if (typeof plan !== "object" || plan === null) throw invalid(call, `plan must be an object`);
  if ("expertBytes" in plan) throw invalid(call, "plan.expertBytes is the layer's own to know");
  const owners =
    plan.nativeRanks === undefined
      ? Array.from({ length: experts }, (_, expert) => nativeRank(expert, experts, ranks))
      : Array.from(plan.nativeRanks, (rank, expert) =>
          checkInteger(call, `plan.nativeRanks[${expert}]`, rank, 0, ranks - 1),
        );
  if (owners.length !== experts) {
    throw invalid(
      call,
      `plan.nativeRanks must name a rank for each of ${experts} experts, got ${owners.length}`,
    );
  }
  const { kind, dtype, hiddenSize, ffnSize } = options.format;
  return {
    format: { kind, dtype, hiddenSize, ffnSize },
    experts,
    training,
    plan: { ...plan },
    lending,
    owners,
  };
}

/** Of CONFIG_BYTES: what a reader of a message wants to see, and a digest of everything. */
export function encodeConfig(config: LayerConfig): Uint8Array {
  const { format, experts, training, lending } = config;
  const bytes = new Uint8Array(CONFIG_BYTES);
  const text = JSON.stringify({ experts, ...format, training, lending });
  bytes.set(new TextEncoder().encode(text).subarray(0, TEXT_BYTES));
  bytes.set(createHash("sha256").update(JSON.stringify(config)).digest(), TEXT_BYTES);
  return bytes;
}

/** Throws ERR_PCCL_INVALID_ARGUMENT if a rank was given other options than rank 0: the same on every rank. */
export function compareConfigs(call: string, configs: readonly Uint8Array[]): void {
  const [first] = configs as [Uint8Array];
  for (const [rank, other] of configs.entries()) {
    if (other.every((byte, i) => byte === first[i])) continue;
    const text = (config: Uint8Array): string =>
      new TextDecoder().decode(config.subarray(0, TEXT_BYTES)).replaceAll("\0", "");
    const what = text(first) === text(other) ? "another plan" : `${text(other)}, and rank 0 ${text(first)}`;
    throw invalid(call, `the ranks' options differ: rank ${rank} has ${what}`);
  }
}
