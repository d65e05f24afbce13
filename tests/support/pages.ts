/** Pages of a cache in a shuffled order, with others between them that belong to nobody. */
import { PAGE_ROWS, pagesFor } from "../../gpu/kernels/cache_pages.ts";
import type { Random } from "./random.ts";

/** Where the entries of some texts are in a pool. */
export interface TestPages {
  /** (tables, table length): the page of each table's every place. */
  readonly pages: readonly number[];
  readonly tableLength: number;
  readonly poolRows: number;
}

/** Tables for texts of up to `entries` entries. */
export function shuffledPages(
  random: Random,
  { tables, entries, spare = 2 }: { tables: number; entries: number; spare?: number },
): TestPages {
  const tableLength = pagesFor(entries);
  const all = Array.from({ length: tables * tableLength + spare }, (_, page) => page);
  for (let i = all.length - 1; i > 0; i--) {
    const other = random.integer(i + 1);
    [all[i], all[other]] = [all[other]!, all[i]!];
  }
  return { pages: all.slice(0, tables * tableLength), tableLength, poolRows: all.length * PAGE_ROWS };
}

/** Tables whose pages lie side by side. */
export function orderedPages({ tables, entries }: { tables: number; entries: number }): TestPages {
  const tableLength = pagesFor(entries);
  const pages = Array.from({ length: tables * tableLength }, (_, page) => page);
  return { pages, tableLength, poolRows: pages.length * PAGE_ROWS };
}

/** The pool's row of an entry. */
export function poolRow(
  { pages, tableLength }: TestPages,
  { table, entry }: { table: number; entry: number },
): number {
  return pages[table * tableLength + Math.floor(entry / PAGE_ROWS)]! * PAGE_ROWS + entry % PAGE_ROWS;
}
