/**
 * Keys and values of earlier tokens, kept so that a new token costs one row.
 *
 * Recursion-wise caching: each recursion step and layer of the block has a slot of its own, with entries only for the
 * tokens that are active there, at their original positions. Recursive sharing: the block's layers have one slot each,
 * filled by the first step, where every token is active, and read by all. The layers around the recursion see every
 * token. Paper: arXiv 2507.10524, section 2.3.
 */
import type { Commands } from "../gpu/commands.ts";
import { KV_PER_ELEMENT, type KvDtype } from "../gpu/kernels/attention_heads.ts";
import { PAGE_ROWS, type PagedKeys, pagesFor } from "../gpu/kernels/cache_pages.ts";
import { cachePlaces } from "../gpu/kernels/cache_places.ts";
import type { Allocator } from "../gpu/memory.ts";
import type { Packing } from "../gpu/packing.ts";
import { createTensor, ELEMENT_BYTES, type Tensor, tensorFrom } from "../gpu/tensor.ts";
import { ConfigError, type ModelConfig, stepFractions } from "./config.ts";
import { layerPlan } from "./parameters.ts";

/** The caches of some texts ("slots" of the decoder), all layers. */
export interface KvCache {
  /** Texts. */
  readonly slots: number;
  /** Most tokens of a text. */
  readonly capacity: number;
  /** How keys and values are stored; f16 takes half the bytes and holds nothing beyond 65504. */
  readonly kvDtype: KvDtype;
  /** Keys and values of each unrolled layer. */
  readonly first: readonly PagedKeys[];
  readonly steps: readonly (readonly PagedKeys[])[];
  readonly last: readonly PagedKeys[];
  /** Pages of a table: of each text at each layer. */
  readonly tableLength: number;
  /** (slots) u32 for each recursion step: entries that its slots hold; null where every token has one. */
  readonly lengths: readonly (Tensor | null)[];
}

/** Columns of a cache row: keys and values of all heads. */
export function entryWidth({ numKeyValueHeads, headDim }: ModelConfig): number {
  return 2 * numKeyValueHeads * headDim;
}

/**
 * A cache that holds room for every text's every token at every layer; a slot's pages lie side by side.
 *
 * @throws ConfigError for more tokens than the model has positions.
 */
export function allocateCache(
  device: Allocator,
  { config, slots, capacity, kvDtype = "f32" }: {
    config: ModelConfig;
    slots: number;
    capacity: number;
    kvDtype?: KvDtype;
  },
): KvCache {
  if (capacity > config.maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot cache ${capacity} tokens: the model has ${config.maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); give a shorter prompt or a smaller -n",
    );
  }
  const plan = layerPlan(config);
  const isShared = config.kvCache === "shared";
  const tableLength = pagesFor(capacity);
  const pages = tensorFrom(device, {
    data: Uint32Array.from({ length: slots * tableLength }, (_, page) => page),
    shape: [slots, tableLength],
    label: "cache pages",
  });
  const layer = (label: string): PagedKeys => ({
    pool: createPool(device, { config, kvDtype, pages: slots * tableLength, label }),
    pages,
  });
  const steps: PagedKeys[][] = [];
  for (const layers of plan.steps) {
    steps.push(isShared && steps[0] ? steps[0] : layers.map(() => layer("block cache")));
  }
  return {
    slots,
    capacity,
    kvDtype,
    first: plan.first.map(() => layer("first cache")),
    steps,
    last: plan.last.map(() => layer("last cache")),
    tableLength,
    lengths: plan.steps.map(() =>
      config.router && !isShared
        ? createTensor(device, { shape: [slots], dtype: "u32", label: "cache lengths" })
        : null
    ),
  };
}

/** Room for the keys and values of a number of pages. */
function createPool(
  device: Allocator,
  { config, kvDtype, pages, label }: { config: ModelConfig; kvDtype: KvDtype; pages: number; label: string },
): Tensor {
  const shape = [pages * PAGE_ROWS, entryWidth(config) / KV_PER_ELEMENT[kvDtype]];
  return createTensor(device, { shape, dtype: kvDtype === "f16" ? "u32" : "f32", label });
}

/** Where the rows of a pass go in a cache. */
export interface CachePass {
  readonly cache: KvCache;
  /** (state rows) u32: the text that a row belongs to. */
  readonly slots: Tensor;
  /** (state rows) u32: recursion steps that each row has run so far in this pass. */
  readonly depths: Tensor;
  /** Places of all rows, for layers that see every token. */
  readonly full: Packing;
  /** Places of the rows of each recursion step; none without a router, where every step sees every token. */
  readonly steps: readonly Packing[];
}

/** Buffers for passes of up to as many rows as `full` has, whose recursion steps work on the given packings. */
export function allocateCachePass(
  device: Allocator,
  { cache, full, steps }: { cache: KvCache; full: Packing; steps: readonly Packing[] },
): CachePass {
  const { maximum } = full.rows;
  const rowValues = (label: string): Tensor =>
    createTensor(device, { shape: [maximum], dtype: "u32", label });
  function places({ rows }: Packing): Packing {
    return {
      rows,
      records: createTensor(device, { shape: [rows.maximum, 4], dtype: "u32", label: "cache places" }),
    };
  }
  return {
    cache,
    slots: rowValues("slots"),
    depths: rowValues("depths"),
    full: places(full),
    steps: steps.map(places),
  };
}

/** Records the places of all rows, and their depth 0. */
export function placeRows(
  commands: Commands,
  { cache: { tableLength }, slots, depths, full: { records: places } }: CachePass,
  { packing }: { packing: Packing },
): void {
  cachePlaces(commands, { packing, slots, lengths: null, depths, places }, { tableLength, depth: 0 });
}

/** Records the places of a recursion step's rows, and their depth. */
export function placeStepRows(
  commands: Commands,
  { cache, slots, depths, steps }: CachePass,
  { packing, step }: { packing: Packing; step: number },
): void {
  const [lengths, places] = [cache.lengths[step]!, steps[step]!.records];
  const { tableLength } = cache;
  cachePlaces(commands, { packing, slots, lengths, depths, places }, { tableLength, depth: step + 1 });
}

/** Entries of a text, by the recursion steps that its tokens ran. */
export interface CacheEntries {
  readonly tokens: number;
  /** Tokens active at each recursion step; every token at every step where the model has no router. May be means. */
  readonly active: readonly number[];
  /** f32 unless told. */
  readonly kvDtype?: KvDtype;
}

/**
 * Bytes that a text's keys and values take: with recursion-wise caching (2 T + b * sum of active_r) entries in a
 * middle_cycle model, with sharing (2 + b) T.
 */
export function cacheBytes(
  config: ModelConfig,
  { tokens, active, kvDtype = "f32" }: CacheEntries,
): number {
  const plan = layerPlan(config);
  const ends = (plan.first.length + plan.last.length) * tokens;
  const block = plan.steps.reduce((sum, layers, r) => {
    if (config.kvCache === "shared") return sum + (r === 0 ? layers.length * tokens : 0);
    return sum + layers.length * active[r]!;
  }, 0);
  return (ends + block) * entryWidth(config) / KV_PER_ELEMENT[kvDtype] * ELEMENT_BYTES;
}

/**
 * Mean bytes that a token's keys and values take in a long text: `cacheBytes` of one token that runs each recursion step
 * by that step's fraction, which leaves out only that k_r is rounded down to whole tokens.
 */
export function cacheBytesPerToken(
  config: ModelConfig,
  { kvDtype = "f32" }: { kvDtype?: KvDtype } = {},
): number {
  return cacheBytes(config, { tokens: 1, active: stepFractions(config), kvDtype });
}
