/**
 * The throughput of a batch in steady state: texts of random lengths come and go without end, and windows of time are
 * measured with everything that happens in them.
 */
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { timeWork } from "../../gpu/timing.ts";
import type { ModelConfig } from "../config.ts";
import type { ModelWeights } from "../model_weights.ts";
import { totalMilliseconds } from "../profile_times.ts";
import { uniform } from "../random.ts";
import { DEFAULT_SAMPLING } from "../sampling.ts";
import { BatchEngine } from "./batch_engine.ts";
import type { BatchStatistics } from "./batch_events.ts";
import type { BatchRequest } from "./batch_request.ts";
import { expectedPages } from "./page_demand.ts";

/** Standard deviation of the lengths, of their mean. */
const LENGTH_SPREAD = 0.25;

/** Longest length, of the mean: four standard deviations above it. */
const LONGEST = 1 + 4 * LENGTH_SPREAD;

/** Texts that wait at any time, of those in slots: enough for every slot that comes free. */
const WAITING = 0.5;

export interface ThroughputOptions {
  /** Rows of the block. */
  readonly rows: number;
  /** Texts at a time, if the memory for keys and values lets them in. */
  readonly slots: number;
  /** Mean tokens of a text; lengths are normal around it. */
  readonly meanLength: number;
  readonly kvBytes: number;
  readonly kvDtype: KvDtype;
  readonly isDepthWise: boolean;
  /** Between two looks of the host. */
  readonly ticks: number;
  readonly seed: number;
}

/** Some time of a batch. */
export interface ThroughputWindow {
  readonly seconds: number;
  readonly tokens: number;
  /** Rows of the block that ran a token, of all rows that ran. */
  readonly occupancy: number;
  /** Recursion steps of a token. */
  readonly meanDepth: number;
  /** Texts that had to begin anew for want of pages. */
  readonly restarts: number;
  /** Texts in slots, and part of the pages in use, at its end. */
  readonly live: number;
  readonly pagesInUse: number;
}

/** Parts of a tick's time. */
export const TICK_PARTS = {
  block: "block",
  ends: "first and last layer, head, sampling",
  cache: "keys and values",
  scheduling: "scheduling and routing",
} as const;

/** Milliseconds of a mean tick on the GPU, and by the clock. */
export interface TickTime {
  readonly parts: Readonly<Record<keyof typeof TICK_PARTS, number>>;
  readonly kernels: number;
}

/** Kernels that do not belong to the layers around them, by the beginning of their names. */
const PART_OF_KERNEL: Readonly<Record<string, keyof typeof TICK_PARTS>> = {
  cache_append: "cache",
  page_moves: "cache",
  slot_: "scheduling",
  gather_rows: "scheduling",
  router_score: "scheduling",
  random_score: "scheduling",
  depth_choice: "scheduling",
};

/** Most tokens of a text that a run of this mean length draws. */
export function longestText(meanLength: number): number {
  return Math.ceil(LONGEST * meanLength);
}

/** A batch that never runs out of texts. */
export class ThroughputRun {
  readonly engine: BatchEngine;
  readonly #device: GpuDevice;
  readonly #config: ModelConfig;
  readonly #options: ThroughputOptions;
  readonly #random: () => number;

  /** @throws ConfigError, MemoryError: as `BatchEngine` does. */
  constructor(
    device: GpuDevice,
    { config, weights }: { config: ModelConfig; weights: ModelWeights },
    options: ThroughputOptions,
  ) {
    this.#device = device;
    this.#config = config;
    this.#options = options;
    this.#random = uniform(options.seed, "throughput");
    this.engine = new BatchEngine(device, {
      config,
      weights,
      ...options,
      capacity: longestText(options.meanLength),
      endTokens: [],
    });
  }

  /**
   * Brings the batch to where it stays: texts of all ages. Those that are there from the start have a part of their text,
   * as long as their age, for a prompt.
   */
  async warmUp(): Promise<void> {
    const aged = this.#room;
    for (let i = 0; i < aged; i++) this.#add(this.#random());
    this.#refill();
    // No prompt is left to run, and the kernels are compiled.
    const enough = 4 * this.#options.rows;
    while (this.engine.statistics.tokens < enough || this.engine.statistics.begun < aged) {
      await this.#advance();
    }
  }

  /** Texts of all ages that there are slots and pages for: they have half of their tokens on average. */
  get #room(): number {
    const { store: { bankPages }, parts } = this.engine.device.batch;
    const sizes = { tokens: Math.ceil(this.#options.meanLength / 2), banks: bankPages.length };
    const expected = expectedPages({ config: this.#config, parts }, sizes);
    const texts = bankPages.map((pages, bank) => Math.floor(pages / expected[bank]!));
    return Math.max(1, Math.min(this.#options.slots, ...texts));
  }

  /** Measures for some seconds, and the rest of the ticks that are running then. */
  async window(seconds: number): Promise<ThroughputWindow> {
    const before = this.engine.statistics;
    const start = performance.now();
    let elapsed = 0;
    while (elapsed < seconds) {
      await this.#advance();
      elapsed = (performance.now() - start) / 1000;
    }
    return windowOf(before, this.engine.statistics, { seconds: elapsed, rows: this.#options.rows });
  }

  /** Measures the parts of some ticks by timestamps; null where the adapter grants none. */
  async parts({ rounds }: { rounds: number }): Promise<TickTime | null> {
    if (!this.#device.features.has("timestamp-query")) return null;
    const sums = { block: 0, ends: 0, cache: 0, scheduling: 0 };
    const programs = this.engine.device.tick.map(({ steps }) => steps.length);
    const dispatches = programs.reduce((sum, count) => sum + count, 0);
    for (let round = 0; round < rounds; round++) {
      const { times } = await timeWork(this.#device, () => this.#advance());
      // Texts that begin and end between the ticks have dispatches of their own, before them.
      const ticks = times.slice(-this.#options.ticks * dispatches);
      ticks.forEach(({ label, milliseconds }, i) => {
        const own = Object.keys(PART_OF_KERNEL).find((name) => label.startsWith(name));
        const part = own ? PART_OF_KERNEL[own]! : i % dispatches < programs[0]! ? "block" : "ends";
        sums[part] += milliseconds;
      });
    }
    const ticks = rounds * this.#options.ticks;
    const parts = {
      block: sums.block / ticks,
      ends: sums.ends / ticks,
      cache: sums.cache / ticks,
      scheduling: sums.scheduling / ticks,
    };
    const kernels = totalMilliseconds(Object.values(parts).map((milliseconds) => ({ milliseconds })));
    return { parts, kernels };
  }

  [Symbol.dispose](): void {
    this.engine[Symbol.dispose]();
  }

  async #advance(): Promise<void> {
    for (const event of await this.engine.advance()) if (event.kind === "error") throw event.error;
    this.#refill();
  }

  #refill(): void {
    const wanted = WAITING * this.#options.slots;
    while (this.engine.statistics.waiting < wanted) this.#add(0);
  }

  /** Adds a text of a random length, of which a part is there already. */
  #add(age: number): void {
    const { meanLength } = this.#options;
    const normal = Math.sqrt(-2 * Math.log(1 - this.#random())) * Math.cos(2 * Math.PI * this.#random());
    const length = Math.round(
      meanLength * Math.min(Math.max(1 + LENGTH_SPREAD * normal, 2 / meanLength), LONGEST),
    );
    const promptLength = Math.max(1, Math.floor(age * (length - 1)));
    const request: BatchRequest = {
      prompt: Array.from({ length: promptLength }, () => Math.floor(this.#random() * this.#config.vocabSize)),
      count: length - promptLength + 1,
      sampling: { ...DEFAULT_SAMPLING, seed: Math.floor(this.#random() * 2 ** 32) },
    };
    this.engine.add(request);
  }
}

function windowOf(
  before: BatchStatistics,
  after: BatchStatistics,
  { seconds, rows }: { seconds: number; rows: number },
): ThroughputWindow {
  const blockRows = after.blockRows - before.blockRows;
  const tokens = after.tokens - before.tokens;
  return {
    seconds,
    tokens,
    occupancy: blockRows / ((after.blockRuns - before.blockRuns) * rows),
    meanDepth: (after.depths - before.depths) / tokens,
    restarts: after.restarts - before.restarts,
    live: after.live,
    pagesInUse: after.pages / after.allPages,
  };
}
