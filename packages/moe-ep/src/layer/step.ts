/** One step on one rank: the rows on their way to the ranks that compute them, and their results back. */
import type { RawIncoming, RawOutgoing, RawStep } from "@pccl/bindings";
import type { CallOptions } from "@pccl/core";
import { awaitNative, callNative } from "../base/native.js";
import type { ExpertFormat, ExpertNumbers } from "../experts/experts.js";
import type { Exchange } from "../group/exchange.js";
import type { ExpertPlan } from "../planner/plan.js";
import type { Routing } from "../routing/routing.js";
import { newNumbers } from "./format.js";
import type { StepBuffers } from "./step-buffers.js";

export interface StepSetting {
  readonly exchange: Exchange;
  readonly format: ExpertFormat;
  readonly training: boolean;
  readonly buffers: StepBuffers;
}

export class Step {
  readonly plan: ExpertPlan;
  readonly routing: Routing;
  readonly tokens: number;
  readonly #setting: StepSetting;
  readonly #out: RawOutgoing;
  #in: RawIncoming | undefined;

  constructor(setting: StepSetting, plan: ExpertPlan, counts: readonly Float64Array[], routing: Routing) {
    const { exchange, training } = setting;
    const intervals = plan.assignments.flat();
    const firstInterval = Float64Array.from({ length: plan.assignments.length + 1 }, () => 0);
    for (const [expert, own] of plan.assignments.entries()) {
      firstInterval[expert + 1] = (firstInterval[expert] as number) + own.length;
    }
    const experts = plan.assignments.length;
    const matrix = new Float64Array(exchange.size * experts);
    for (const [rank, row] of counts.entries()) matrix.set(row, rank * experts);
    this.plan = plan;
    this.routing = routing;
    this.tokens = routing.firstSlot.length - 1;
    this.#setting = setting;
    this.#out = callNative((addon) =>
      addon.addressCopies({
        ranks: exchange.size,
        experts,
        rank: exchange.rank,
        counts: matrix,
        firstInterval,
        intervalRanks: Float64Array.from(intervals, ({ rank }) => rank),
        intervalStarts: Float64Array.from(intervals, ({ start }) => start),
        intervalEnds: Float64Array.from(intervals, ({ end }) => end),
        blocks: Float64Array.from(exchange.order),
        training,
        firstSlot: routing.firstSlot,
        slotExperts: routing.experts,
        gates: routing.gates,
      }),
    );
  }

  get native(): RawStep {
    return this.#out.step;
  }

  get lists(): RawIncoming["lists"] {
    return this.#incoming.lists;
  }

  /** Copies that this rank computes. */
  get copies(): number {
    return sum(this.#incoming.copyCounts);
  }

  /** Tokens' rows that this rank sends to others. */
  get rowsSent(): number {
    const { order, rank } = this.#setting.exchange;
    return sum(this.#out.rowCounts) - (this.#out.rowCounts[order.indexOf(rank)] as number);
  }

  get #incoming(): RawIncoming {
    return this.#in as RawIncoming;
  }

  /** Sends the headers, and takes in those of the others. */
  async announce(call: string, options: CallOptions): Promise<void> {
    const { exchange, training } = this.#setting;
    const { headers, headerCounts } = this.#out;
    const received = exchange.byBlock(
      this.plan.sendMatrix.map((row) => 1 + (row[exchange.rank] as number) * (training ? 2 : 1)),
    );
    const incoming = new Int32Array(sum(received));
    const sizes = { width: 1, sent: headerCounts, received };
    await exchange.allToAll(call, headers, incoming, sizes, options);
    this.#in = callNative((addon) => addon.receiveCopies(this.native, incoming));
  }

  /** Tokens' rows, of x or of the output's gradient, to the ranks that compute them. */
  async dispatch(
    call: string,
    tokens: ExpertNumbers,
    name: string,
    options: CallOptions,
  ): Promise<ExpertNumbers> {
    const { exchange, format, buffers } = this.#setting;
    const { dtype, hiddenSize: width } = format;
    const [sent, received] = [this.#out.rowCounts, this.#incoming.rowCounts];
    const rows = buffers.rows("rows sent", sum(sent) * width);
    await awaitNative((addon) => addon.gatherRows(this.native, dtype, width, tokens, rows));
    const incoming = buffers.rows(name, sum(received) * width);
    await exchange.allToAll(call, rows, incoming, { width, sent, received }, options);
    return incoming;
  }

  /** Memory for this rank's results, in the order in which they go back. */
  results(name: string): ExpertNumbers {
    return this.#setting.buffers.rows(name, this.copies * this.#setting.format.hiddenSize);
  }

  /** Results to the ranks whose tokens they are; returns those of this rank's tokens, one per slot. */
  async giveBack(
    call: string,
    results: ExpertNumbers,
    name: string,
    options: CallOptions,
  ): Promise<ExpertNumbers> {
    const { exchange, format, buffers } = this.#setting;
    const width = format.hiddenSize;
    const [sent, received] = [this.#incoming.copyCounts, this.#out.copyCounts];
    const incoming = buffers.rows(name, sum(received) * width);
    await exchange.allToAll(call, results, incoming, { width, sent, received }, options);
    return incoming;
  }

  /** Each token's sum of its results, by their gates if `gated`, and of the addends. */
  async combine(
    gated: boolean,
    results: ExpertNumbers,
    addends: readonly ExpertNumbers[],
  ): Promise<ExpertNumbers> {
    const { format } = this.#setting;
    const { dtype, hiddenSize: width } = format;
    const into = newNumbers(format, this.tokens * width);
    await awaitNative((addon) => addon.combineRows(this.native, dtype, width, gated, results, addends, into));
    return into;
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
