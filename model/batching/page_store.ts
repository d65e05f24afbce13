/**
 * Keys and values of many texts in pages of a few tokens that all texts, recursion steps and layers share, so that a
 * token which leaves early costs less memory. The GPU hands pages out and takes them back; the host knows how many are
 * free.
 */
import type { GpuDevice } from "../../gpu/device.ts";
import { MemoryError } from "../../gpu/errors.ts";
import { KV_PER_ELEMENT, type KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { PAGE_ROWS, type PagedKeys, pagesFor } from "../../gpu/kernels/cache_pages.ts";
import type { PageTables } from "../../gpu/kernels/page_tables.ts";
import { type Allocator, formatBytes } from "../../gpu/memory.ts";
import { createTensor, ELEMENT_BYTES, type Tensor, tensorFrom, viewTensor } from "../../gpu/tensor.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import { entryWidth, type KvCache } from "../kv_cache.ts";
import type { BatchParts } from "./batch_parts.ts";
import { expectedPages, mostPages } from "./page_demand.ts";

/** Places of a layer's tables are a multiple of this, so that they can be bound by themselves. */
const TABLE_ALIGNMENT = 64;

/** What a store is for. */
export interface PageStoreShape {
  readonly config: ModelConfig;
  readonly parts: BatchParts;
  readonly slots: number;
  /** Most tokens of a text. */
  readonly capacity: number;
  readonly kvDtype: KvDtype;
  /** For keys and values; what is no whole page is left over. */
  readonly bytes: number;
}

/** The pages of some slots' texts. */
export interface PageStore {
  readonly pages: PageTables;
  readonly block: readonly PagedKeys[];
  readonly ends: readonly PagedKeys[];
  /** The same memory as the passes over prompts see it. */
  readonly cache: KvCache;
  /** Pages in each bank. */
  readonly bankPages: readonly number[];
  readonly pageBytes: number;
}

/** Bytes of a page: keys and values of `PAGE_ROWS` tokens at one layer. */
export function pageBytes(config: ModelConfig, kvDtype: KvDtype): number {
  return PAGE_ROWS * entryWidth(config) / KV_PER_ELEMENT[kvDtype] * ELEMENT_BYTES;
}

/**
 * @throws ConfigError for more tokens than the model has positions; MemoryError when the bytes hold not one text of
 * `capacity` tokens, or do not fit.
 */
export function allocatePageStore(device: GpuDevice, allocator: Allocator, shape: PageStoreShape): PageStore {
  const { config, parts, slots, capacity, kvDtype } = shape;
  if (capacity > config.maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot cache ${capacity} tokens: the model has ${config.maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); give a shorter prompt or a smaller -n",
    );
  }
  const bytesOfPage = pageBytes(config, kvDtype);
  const bankPages = planBanks(device, shape);
  const isShared = config.kvCache === "shared";
  const stepGroups = isShared ? 1 : parts.steps;
  const blockLayers = parts.block.length;
  const layers = blockLayers + parts.entry.length + parts.exit.length;
  const tableLength = pagesFor(capacity);
  const layerStride = Math.ceil(stepGroups * slots * tableLength / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
  const u32 = (label: string, size: readonly number[]): Tensor =>
    createTensor(allocator, { shape: size, dtype: "u32", label });
  const tables = u32("page tables", [layers, layerStride]);
  const pools = bankPages.map((pages) =>
    createTensor(allocator, {
      shape: [pages * PAGE_ROWS, entryWidth(config) / KV_PER_ELEMENT[kvDtype]],
      dtype: kvDtype === "f16" ? "u32" : "f32",
      label: "keys and values",
    })
  );
  const cached = Array.from({ length: layers }, (_, layer): PagedKeys => ({
    pool: pools[layer % pools.length]!,
    pages: viewTensor(tables, { start: layer * layerStride, shape: [layerStride] }),
  }));
  const groups = stepGroups + 1;
  const isCounted = config.router !== null && !isShared;
  const counts = u32("entries and pages", [2 * groups, slots]);
  const pages: PageTables = {
    counts,
    free: freePages(allocator, bankPages),
    tables,
    groups,
    blockLayers,
    layers,
    tableLength,
    isCounted,
    isShared,
  };
  const [block, ends] = [cached.slice(0, blockLayers), cached.slice(blockLayers)];
  return {
    pages,
    block,
    ends,
    cache: promptCache(shape, { pages, block, ends }),
    bankPages,
    pageBytes: bytesOfPage,
  };
}

/** All pages of each bank, their number in front. */
function freePages(allocator: Allocator, bankPages: readonly number[]): Tensor {
  const stride = 1 + Math.max(...bankPages);
  const data = new Uint32Array(bankPages.length * stride);
  bankPages.forEach((count, bank) => {
    data[bank * stride] = count;
    // The last one goes first.
    for (let i = 0; i < count; i++) data[bank * stride + 1 + i] = count - 1 - i;
  });
  return tensorFrom(allocator, { data, shape: [bankPages.length, stride], label: "free pages" });
}

/** The store's memory under the layers of a pass over whole prompts. */
function promptCache(
  { config, slots, capacity, kvDtype, parts: { entry } }: PageStoreShape,
  { pages: { counts, tableLength, isCounted, isShared }, block, ends }: Pick<
    PageStore,
    "pages" | "block" | "ends"
  >,
): KvCache {
  const recursions = config.recursion?.numRecursions ?? 0;
  const recurs = config.recursion?.sharing.endsWith("cycle") ?? false;
  const blockLayers = config.recursion?.blockLayers ?? 0;
  const steps = Array.from({ length: recursions }, (_, r) => r);
  // A step's tables follow those of the step before.
  const ofStep = ({ pool, pages }: PagedKeys, r: number): PagedKeys => {
    const shape = [slots * tableLength];
    return { pool, pages: viewTensor(pages, { start: isShared ? 0 : r * slots * tableLength, shape }) };
  };
  return {
    slots,
    capacity,
    kvDtype,
    tableLength,
    first: config.recursion ? ends.slice(0, entry.length) : block,
    steps: steps.map((r) =>
      recurs ? block.map((layer) => ofStep(layer, r)) : block.slice(r * blockLayers, (r + 1) * blockLayers)
    ),
    last: ends.slice(entry.length),
    lengths: steps.map((r) => isCounted ? viewTensor(counts, { start: r * slots, shape: [slots] }) : null),
  };
}

/**
 * Pages of each bank: as few banks as the adapter can bind whole, each with pages for its share of the layers.
 *
 * @throws MemoryError when they hold not one text of the capacity, or the adapter cannot bind them.
 */
function planBanks(device: GpuDevice, shape: PageStoreShape): number[] {
  const { config, capacity, kvDtype, bytes } = shape;
  const bytesOfPage = pageBytes(config, kvDtype);
  const total = Math.floor(bytes / bytesOfPage);
  const bindable = bindablePages(device, shape);
  const banks = 1 + bindable.findIndex((pages) => pages >= total);
  if (banks === 0) {
    throw new MemoryError(
      `Cannot bind ${formatBytes(bytes)} of keys and values: this adapter binds at most ${
        formatBytes(Math.max(...bindable) * bytesOfPage)
      } of this model's; give less (--kv-memory)`,
    );
  }
  const shares = expectedPages(shape, { tokens: capacity, banks });
  const pages = shares.map((share) => Math.floor(total * share / sumOf(shares)));
  const needed = mostPages(shape, { tokens: capacity, banks });
  if (needed.some((need, bank) => need > pages[bank]!)) {
    throw new MemoryError(
      `Cannot keep the keys and values of one text of ${capacity} tokens in ${
        formatBytes(bytes)
      }: it may need ${
        formatBytes(sumOf(needed) * bytesOfPage)
      }; give more memory (--kv-memory), or fewer tokens to a text (-n)`,
    );
  }
  return pages;
}

/** Most bytes for keys and values that the adapter binds. */
export function bindableBytes(device: GpuDevice, shape: Omit<PageStoreShape, "slots" | "bytes">): number {
  return Math.max(...bindablePages(device, shape)) * pageBytes(shape.config, shape.kvDtype);
}

/** Most pages in one bank, in two, and so on to one for each cached layer. */
function bindablePages(device: GpuDevice, shape: Omit<PageStoreShape, "slots" | "bytes">): number[] {
  const { config, parts: { block, entry, exit }, capacity, kvDtype } = shape;
  const ofBank = Math.floor(device.limits.maxStorageBufferBindingSize / pageBytes(config, kvDtype));
  return Array.from({ length: block.length + entry.length + exit.length }, (_, i) => {
    const shares = expectedPages(shape, { tokens: capacity, banks: i + 1 });
    return Math.floor(ofBank * sumOf(shares) / Math.max(...shares));
  });
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
