/** Pages of keys and values that texts share: who has which, as the kernels that hand them out see it. */
import type { Tensor } from "../tensor.ts";
import { checkShape } from "../tensor.ts";

/**
 * Tables of pages by cached layer, by group and by slot; S slots. A group is a recursion step with entries of its own,
 * and belongs to the block's layers; the last group is that of the layers around the recursion.
 */
export interface PageTables {
  /** (2 groups, S) u32: entries that are counted, then pages, of each group and slot. */
  readonly counts: Tensor;
  /** (banks, free stride) u32: pages that nobody has, their number in front; layer u has its pages in bank u % banks. */
  readonly free: Tensor;
  /** (layers, layer stride) u32. */
  readonly tables: Tensor;
  readonly groups: number;
  /** Cached layers of the block; they come first. */
  readonly blockLayers: number;
  readonly layers: number;
  /** Pages of a table: of each slot, at each group and layer. */
  readonly tableLength: number;
  /** Whether the entries of a recursion step are the tokens that ran it; otherwise every token has one. */
  readonly isCounted: boolean;
  /** Whether all recursion steps read the keys and values of the first. */
  readonly isShared: boolean;
}

/** Settings that the kernels have in common. */
export function pageSettings(
  { free, tables, groups, tableLength }: PageTables,
): Readonly<Record<string, number>> {
  const [banks, freeStride] = free.shape as [number, number];
  return {
    groups,
    banks,
    free_stride: freeStride,
    layer_stride: tables.shape[1]!,
    table_length: tableLength,
  };
}

/** @throws TypeError for tensors that do not fit. */
export function checkPageTables(
  operation: string,
  { pages, slots }: { pages: PageTables; slots: number },
): void {
  const { counts, tables, groups, blockLayers, layers, tableLength } = pages;
  const tablesOfLayer = slots * (blockLayers > 0 ? Math.max(1, groups - 1) : 1);
  checkShape(operation, {
    counts: [counts, [2 * groups, slots]],
    tables: [tables, [layers, Math.max(tables.shape[1]!, tablesOfLayer * tableLength)]],
  });
}
