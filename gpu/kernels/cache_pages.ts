/** Pages of a cache: what its kernels need to know to find the entries of a text. */
import cachePagesCode from "./cache_pages.wgsl" with { type: "text" };
import type { Tensor } from "../tensor.ts";

/** Entries of a page: constant PAGE_ROWS of the part. */
export const PAGE_ROWS = 16;

/** The part of a kernel that finds entries. */
export const CACHE_PAGES = { "cache_pages.wgsl": cachePagesCode } as const;

/** Keys and values of a layer, in pages that its texts have in any order. */
export interface PagedKeys {
  /** (pages * PAGE_ROWS, 2 G D): a row for each entry, keys, then values. In f16, G D elements of two numbers each. */
  readonly pool: Tensor;
  /** (tables, pages of a table) u32: entry j of a text is in page j / PAGE_ROWS of its table. */
  readonly pages: Tensor;
}

/** Pages that hold a number of entries. */
export function pagesFor(entries: number): number {
  return Math.ceil(entries / PAGE_ROWS);
}
