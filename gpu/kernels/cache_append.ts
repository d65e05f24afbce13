import cacheAppendCode from "./cache_append.wgsl" with { type: "text" };
import cacheAppendPoolCode from "./cache_append_pool.wgsl" with { type: "text" };
import cacheAppendPoolF16Code from "./cache_append_pool_f16.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { CACHE_PAGES, PAGE_ROWS, type PagedKeys } from "./cache_pages.ts";
import { KV_PER_ELEMENT, kvDtypeOf } from "./attention_heads.ts";

const CACHE_APPEND = {
  f32: defineKernel("cache_append.wgsl", cacheAppendCode, {
    ...CACHE_PAGES,
    "cache_append_pool.wgsl": cacheAppendPoolCode,
  }),
  f16: defineKernel("cache_append.wgsl", cacheAppendCode, {
    ...CACHE_PAGES,
    "cache_append_pool_f16.wgsl": cacheAppendPoolF16Code,
  }),
};

/** In place of a table: no keys and values of the row enter the cache. */
export const NO_TABLE = 0xffffffff;

/** Constant GROUP of the file. */
const GROUP = 64;

/**
 * Records that every packed row's projection is turned by its position and its keys and values enter a cache: what
 * `rope` does to the queries in place, and entry w of its table = [turned keys | values]; position, the table's first
 * place in the cache's pages and w are the last three of the row's record in `places` (see `cachePlaces`). A row whose
 * table is `NO_TABLE` leaves nothing there. The keys in qkv stay unturned: nobody reads them.
 *
 * qkv (rows, (H + 2 G) D); table of `ropeTable`, (positions, D / 2, 2). All f32, the cache's pool also f16 (see
 * `KvDtype`), where keys and values are rounded as the adapter does and those beyond 65504 become NaN.
 *
 * @throws TypeError for shapes that do not fit, or a head size that is not a multiple of 4.
 */
export function cacheAppend(
  commands: Commands,
  { qkv, places: { rows, records }, cache, table }: {
    qkv: Tensor;
    places: Packing;
    cache: PagedKeys;
    table: Tensor;
  },
  { heads, kvHeads, headDim }: { heads: number; kvHeads: number; headDim: number },
): void {
  const allHeads = heads + 2 * kvHeads;
  const { pool, pages } = cache;
  const dtype = kvDtypeOf(pool);
  checkShape("cacheAppend", {
    qkv: [qkv, [rows.maximum, allHeads * headDim]],
    pool: [pool, [0, 2 * kvHeads * headDim / KV_PER_ELEMENT[dtype]]],
    table: [table, [table.shape[0]!, headDim / 2, 2]],
    places: [records, [rows.maximum, 4]],
  });
  if (headDim % 4 !== 0) {
    throw new TypeError(`Cannot record cacheAppend: heads of ${headDim} entries, expected a multiple of 4`);
  }
  commands.dispatch(CACHE_APPEND[dtype], {
    entryPoint: "append",
    tensors: { rows: rows.count, places: records, pages, table, qkv, pool },
    constants: { PAGE_ROWS, HEADS: heads, KV_HEADS: kvHeads, HEAD_DIM: headDim },
    grid: rowGrid(rows, { unitsPerRow: (allHeads * headDim) / 4, unitsPerGroup: GROUP }),
    // All heads are read; queries go back, keys and values to the pool, as if no row were without a table.
    cost: rowCost(rows, {
      columns: headDim,
      numbers: allHeads + heads + 2 * kvHeads / KV_PER_ELEMENT[dtype],
      flops: 3 * (heads + kvHeads),
    }),
  });
}
