/** The pages of keys and values that the texts of a batch have, as lists; see `PageTables` for what a group is. */

/** Entries of a page. */
export const PAGE_ROWS = 16;

/** Whose pages there are. */
export interface PageShape {
  readonly slots: number;
  readonly groups: number;
  readonly blockLayers: number;
  readonly layers: number;
  readonly banks: number;
  readonly tableLength: number;
  readonly isCounted: boolean;
  readonly isShared: boolean;
}

/** Who has which page. */
export interface TextPages {
  readonly shape: PageShape;
  /** [group][slot]: entries that are counted. */
  readonly entries: number[][];
  /** [layer][group][slot]: pages in the order of their entries; lists only in the groups that a layer belongs to. */
  readonly held: number[][][][];
  /** [bank]: pages that nobody has. */
  readonly free: number[][];
}

/** Cached layers of a group: the block's of a recursion step, those around the recursion of the last group. */
export function layersOf({ groups, blockLayers, layers }: PageShape, group: number): number[] {
  const all = Array.from({ length: layers }, (_, layer) => layer);
  return group === groups - 1 ? all.slice(blockLayers) : all.slice(0, blockLayers);
}

/** Pages of a text in a group, at each of its layers; 0 where it has no layers. */
export function pageCount(
  { shape, held }: TextPages,
  { group, slot }: { group: number; slot: number },
): number {
  const [layer] = layersOf(shape, group);
  return layer === undefined ? 0 : held[layer]![group]![slot]!.length;
}

/** Pages in use and free, of each bank. */
export function allPages({ shape: { banks }, held, free }: TextPages): number[] {
  return Array.from({ length: banks }, (_, bank) =>
    free[bank]!.length +
    held.filter((_, layer) => layer % banks === bank).flat(2).reduce((sum, list) => sum + list.length, 0));
}

/** A row of `reservePages` or `releasePages`. */
export interface PageMoveRow {
  readonly slot: number;
  /** To reserve for. */
  readonly tokens: number;
  readonly start: number;
}

/** Pages that a group of a text has once room for `tokens` more from position `start` on is reserved. */
export function reservedCount(
  pages: TextPages,
  { slot, tokens, start, group }: PageMoveRow & { readonly group: number },
): number {
  const isCounted = pages.shape.isCounted && group < pages.shape.groups - 1;
  const entries = (isCounted ? pages.entries[group]![slot]! : start) + tokens;
  return Math.max(pageCount(pages, { group, slot }), Math.ceil(entries / PAGE_ROWS));
}

/** Pages that a group of a text has after `releasePages`. */
export function releasedCount(
  pages: TextPages,
  { slot, group, hasEnded }: { slot: number; group: number; hasEnded: boolean },
): number {
  if (hasEnded) return 0;
  const count = pageCount(pages, { group, slot });
  const isCounted = pages.shape.isCounted && group < pages.shape.groups - 1;
  return isCounted ? Math.min(count, Math.ceil(pages.entries[group]![slot]! / PAGE_ROWS)) : count;
}
