import pageMovesCode from "./page_moves.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { PAGE_ROWS } from "./cache_pages.ts";
import { checkPageTables, pageSettings, type PageTables } from "./page_tables.ts";
import { SLOT_FIELD_COUNT, SLOT_PART } from "./slot_fields.ts";

const PAGE_MOVES = defineKernel("page_moves.wgsl", pageMovesCode, SLOT_PART);

/** Slots whose pages move: those in x of the packing's records, none twice. slots (fields, S) u32. */
interface PageMove {
  readonly slots: Tensor;
  readonly pages: PageTables;
  readonly packing: Packing;
}

/**
 * Records that each row's slot gets the pages of every entry that y more tokens from position z on may make, at every
 * group and layer; y and z are of its record. There must be enough that are free.
 */
export function reservePages(commands: Commands, move: PageMove): void {
  movePages(commands, move, "reserve");
}

/**
 * Records that each row's slot gives back pages: all of them where its text has ended, and its entries are forgotten;
 * else those reserved for entries that were not made, where entries are counted.
 */
export function releasePages(commands: Commands, move: PageMove): void {
  movePages(commands, move, "release");
}

function movePages(
  commands: Commands,
  { slots, pages, packing: { rows, records } }: PageMove,
  entryPoint: "reserve" | "release",
): void {
  const { counts, free, tables, blockLayers, layers, isCounted } = pages;
  const count = slots.shape[1]!;
  checkPageTables(`${entryPoint}Pages`, { pages, slots: count });
  checkShape(`${entryPoint}Pages`, {
    slots: [slots, [SLOT_FIELD_COUNT, count]],
    packing: [records, [rows.maximum, 4]],
  });
  commands.dispatch(PAGE_MOVES, {
    entryPoint,
    tensors: { slots, counts, free, tables, rows: rows.count, records },
    settings: { ...pageSettings(pages), block_layers: blockLayers, layers },
    constants: { IS_COUNTED: Number(isCounted), PAGE_ROWS },
    grid: [rows.maximum, 1, 1],
    // A record, and the pages that each group counts; how many move, only those counts tell.
    cost: rowCost(rows, { numbers: 4 + 2 * pages.groups }),
  });
}
