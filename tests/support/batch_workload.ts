/** Random workloads for depth-wise batching: requests, when they come and go, and how little room they have. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { PAGE_ROWS } from "../../gpu/kernels/cache_pages.ts";
import { batchParts } from "../../model/batching/batch_parts.ts";
import type { BatchRequest } from "../../model/batching/batch_request.ts";
import { BatchEngine } from "../../model/batching/batch_engine.ts";
import type { FinishReason } from "../../model/batching/batch_events.ts";
import { mostPages } from "../../model/batching/page_demand.ts";
import { pageBytes } from "../../model/batching/page_store.ts";
import type { ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import type { ModelWeights } from "../../model/model_weights.ts";
import { GREEDY } from "../../model/sampling.ts";
import type { DecodedToken } from "../../model/slot_sampler.ts";
import type { Random } from "./random.ts";

/** A model on the device. */
export interface BatchModel {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
}

/** A request, and when it comes and goes: after so many tokens of all have been read. */
export interface Arrival {
  readonly request: BatchRequest;
  readonly addAfter: number;
  readonly cancelAfter: number | null;
}

export interface Workload {
  readonly arrivals: readonly Arrival[];
  readonly rows: number;
  readonly slots: number;
  readonly ticks: number;
  readonly capacity: number;
  readonly kvDtype: KvDtype;
  readonly kvBytes: number;
  readonly endTokens: readonly number[];
  /** The depth of every token; 0 lets the router decide. */
  readonly depth: number;
}

function between(random: Random, least: number, most: number): number {
  return least + random.integer(most - least + 1);
}

/** Bytes that hold one text of the capacity at full depth, whatever else does not fit. */
export function leastBytes(
  config: ModelConfig,
  { capacity, kvDtype }: { capacity: number; kvDtype: KvDtype },
): number {
  const [pages] = mostPages({ config, parts: batchParts(config) }, { tokens: capacity, banks: 1 });
  return pages! * pageBytes(config, kvDtype);
}

/** Tokens of the longest text: three pages and a bit. */
export const CAPACITY = 3 * PAGE_ROWS + 5;

/** With `outgrows`, for a model with token choice, texts are long and deeper than the memory is shared out for. */
export function randomWorkload(
  random: Random,
  config: ModelConfig,
  { outgrows = false }: { outgrows?: boolean } = {},
): Workload {
  const kvDtype = random.uniform() < 0.3 ? "f16" : "f32";
  const requests = between(random, outgrows ? 6 : 1, 14);
  const arrivals = Array.from({ length: requests }, (): Arrival => {
    const prompt = Array.from(
      { length: between(random, 1, random.uniform() < 0.2 ? PAGE_ROWS + 3 : 7) },
      () => random.integer(config.vocabSize),
    );
    const room = CAPACITY + 1 - prompt.length;
    const kind = random.uniform();
    const count = kind < 0.15
      ? 1
      : kind < (outgrows ? 0.8 : 0.3)
      ? room
      : between(random, 1, Math.min(room, 20));
    const isGreedy = random.uniform() < 0.6;
    const sampling = {
      ...GREEDY,
      seed: random.integer(1000),
      ...(!isGreedy && { temperature: 1, repeatPenalty: random.uniform() < 0.5 ? 1.3 : 1 }),
    };
    return {
      request: { prompt, count, sampling },
      addAfter: random.uniform() < 0.6 ? 0 : random.integer(60),
      cancelAfter: random.uniform() < 0.15 ? random.integer(80) : null,
    };
  });
  const room = outgrows ? 2 + random.uniform() : random.uniform() < 0.5 ? 1 + random.uniform() : 8;
  return {
    arrivals,
    rows: between(random, 1, 9),
    slots: between(random, outgrows ? 4 : 1, 12),
    ticks: between(random, 1, 6),
    capacity: CAPACITY,
    kvDtype,
    kvBytes: Math.ceil(room * leastBytes(config, { capacity: CAPACITY, kvDtype })),
    endTokens: Array.from({ length: random.integer(3) }, () => random.integer(config.vocabSize)),
    depth: outgrows ? config.recursion!.numRecursions : 0,
  };
}

/** A text as it came: its tokens and why it ended. */
export interface BatchText {
  readonly tokens: DecodedToken[];
  reason: FinishReason | null;
}

/** The texts of one request after the other. */
export async function decodeAlone(
  device: GpuDevice,
  { config, weights }: BatchModel,
  { requests, capacity, kvDtype, endTokens, depth = 0 }: {
    requests: readonly BatchRequest[];
    capacity: number;
    kvDtype: KvDtype;
    endTokens: readonly number[];
    depth?: number;
  },
): Promise<BatchText[]> {
  using decoder = new Decoder(device, { config, weights, capacity, kvDtype, slots: 1 });
  if (depth > 0) decoder.forceDepth(depth);
  const texts: BatchText[] = [];
  for (const { prompt, count, sampling } of requests) {
    const tokens: DecodedToken[] = [];
    let reason: FinishReason = "length";
    let next = await decoder.start(0, { prompt, sampling });
    for (;;) {
      if (endTokens.includes(next.id)) {
        reason = "end";
        break;
      }
      tokens.push(next);
      if (tokens.length === count) break;
      next = (await decoder.step([0]))[0]![0]!;
    }
    texts.push({ tokens, reason });
  }
  return texts;
}

/** The texts of a workload's requests, in their order, and the engine's last word. */
export async function runWorkload(
  device: GpuDevice,
  model: BatchModel,
  { arrivals, depth, ...shape }: Workload,
): Promise<{ texts: BatchText[]; statistics: BatchEngine["statistics"] }> {
  using engine = new BatchEngine(device, { ...model, ...shape });
  if (depth > 0) engine.forceDepth(depth);
  const texts = arrivals.map((): BatchText => ({ tokens: [], reason: null }));
  const ids = new Map<number, number>();
  const waiting = new Set(arrivals.keys());
  let read = 0;
  function visit(): void {
    arrivals.forEach(({ request, addAfter, cancelAfter }, i) => {
      // Nobody comes once all are done, so that the last ones come together.
      if (waiting.has(i) && (read >= addAfter || ids.size === 0)) {
        ids.set(i, engine.add(request));
        waiting.delete(i);
      }
      if (ids.has(i) && cancelAfter !== null && read >= cancelAfter) engine.cancel(ids.get(i)!);
    });
    if (waiting.size === 0) engine.close();
  }
  visit();
  const iterator = engine.events();
  for (;;) {
    const { live, waiting: inLine } = engine.statistics;
    if (live + inLine === 0 && waiting.size > 0) {
      read = Infinity;
      visit();
    }
    const { done, value: event } = await iterator.next();
    if (done) break;
    const place = [...ids].find(([, id]) => id === event.request)![0];
    if (event.kind === "error") throw event.error;
    if (event.kind === "token") {
      read++;
      texts[place]!.tokens.push(event.token);
    } else texts[place]!.reason = event.reason;
    visit();
  }
  return { texts, statistics: engine.statistics };
}
