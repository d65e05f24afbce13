/** Pages of texts on the GPU, to and from the lists of tests/reference/text_pages.ts. */
import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { PageTables } from "../../gpu/kernels/page_tables.ts";
import { readTensors } from "../../gpu/readback.ts";
import { allPages, layersOf, pageCount, type PageShape, type TextPages } from "../reference/text_pages.ts";
import { uploadIndices } from "./device.ts";
import type { Random } from "./random.ts";

/** Place of no page: what nobody has written shows. */
const NOTHING = 0xdddddddd;

/** The tensors of `PageTables` as arrays. */
export interface PageData {
  readonly counts: Uint32Array<ArrayBuffer>;
  readonly free: Uint32Array<ArrayBuffer>;
  readonly tables: Uint32Array<ArrayBuffer>;
}

/** Places of a layer's tables. */
function layerStride({ slots, groups, tableLength }: PageShape): number {
  return Math.ceil((groups - 1) * slots * tableLength / 64) * 64;
}

/** First place of a table among those of all layers. */
function tableStart(
  shape: PageShape,
  { layer, group, slot }: { layer: number; group: number; slot: number },
): number {
  const tables = group === shape.groups - 1 ? 0 : group * shape.slots;
  return layer * layerStride(shape) + (tables + slot) * shape.tableLength;
}

/** Every group's layers with every slot. */
function* placesOf(shape: PageShape): Generator<{ layer: number; group: number; slot: number }> {
  for (let group = 0; group < shape.groups; group++) {
    for (const layer of layersOf(shape, group)) {
      for (let slot = 0; slot < shape.slots; slot++) yield { layer, group, slot };
    }
  }
}

/** Arrays that say what the lists say; the rest is as in `before`. */
export function pageData(pages: TextPages, before: PageData | null = null): PageData {
  const { shape, entries, held, free } = pages;
  const { slots, groups, layers, banks } = shape;
  const counts = before?.counts.slice() ?? new Uint32Array(2 * groups * slots);
  for (let group = 0; group < groups; group++) {
    counts.set(entries[group]!, group * slots);
    if (layersOf(shape, group).length === 0) continue; // what its count of pages says means nothing
    for (let slot = 0; slot < slots; slot++) {
      counts[(groups + group) * slots + slot] = pageCount(pages, { group, slot });
    }
  }
  const freeStride = 1 + Math.max(...allPages(pages));
  const freeData = before?.free.slice() ?? new Uint32Array(banks * freeStride).fill(NOTHING);
  free.forEach((list, bank) => freeData.set([list.length, ...list], bank * freeStride));
  const tables = before?.tables.slice() ?? new Uint32Array(layers * layerStride(shape)).fill(NOTHING);
  for (const place of placesOf(shape)) {
    const { layer, group, slot } = place;
    tables.set(held[layer]![group]![slot]!, tableStart(shape, place));
  }
  return { counts, free: freeData, tables };
}

/** The lists that the arrays say. */
export function pagesOf(shape: PageShape, { counts, free, tables }: PageData): TextPages {
  const { slots, groups, banks } = shape;
  const entries = Array.from({ length: groups }, (_, group) => [
    ...counts.subarray(group * slots, (group + 1) * slots),
  ]);
  const held = emptyLists(shape);
  for (const place of placesOf(shape)) {
    const { layer, group, slot } = place;
    const start = tableStart(shape, place);
    held[layer]![group]![slot] = [
      ...tables.subarray(start, start + counts[(groups + group) * slots + slot]!),
    ];
  }
  const freeStride = free.length / banks;
  const lists = Array.from({ length: banks }, (_, bank) => {
    const start = bank * freeStride;
    return [...free.subarray(start + 1, start + 1 + free[start]!)];
  });
  return { shape, entries, held, free: lists };
}

/** [layer][group][slot]: lists of no pages. */
export function emptyLists(shape: PageShape): number[][][][] {
  const { slots, groups, layers } = shape;
  const held: number[][][][] = Array.from(
    { length: layers },
    () => Array.from({ length: groups }, (): number[][] => []),
  );
  for (let group = 0; group < groups; group++) {
    for (const layer of layersOf(shape, group)) {
      held[layer]![group] = Array.from({ length: slots }, () => []);
    }
  }
  return held;
}

/** Puts pages in any order into lists of the right lengths, and `left` of each bank into those of free ones. */
export function dealPages(
  random: Random,
  { pages, left }: { pages: TextPages; left: readonly number[] },
): void {
  const { shape: { banks }, held, free } = pages;
  left.forEach((count, bank) => free[bank] = new Array<number>(count).fill(0));
  allPages(pages).forEach((total, bank) => {
    const order = shuffled(random, total);
    const lists = held.filter((_, layer) => layer % banks === bank).flat(2);
    for (const list of [...lists, free[bank]!]) {
      for (let i = 0; i < list.length; i++) list[i] = order.pop()!;
    }
  });
}

/** The numbers below `count` in any order. */
export function shuffled(random: Random, count: number): number[] {
  const all = Array.from({ length: count }, (_, i) => i);
  for (let i = all.length - 1; i > 0; i--) {
    const other = random.integer(i + 1);
    [all[i], all[other]] = [all[other]!, all[i]!];
  }
  return all;
}

export function uploadPages(device: GpuDevice, pages: TextPages): PageTables {
  const { counts, free, tables } = pageData(pages);
  const { slots, groups, blockLayers, layers, banks, tableLength, isCounted, isShared } = pages.shape;
  return {
    counts: uploadIndices(device, counts, [2 * groups, slots]),
    free: uploadIndices(device, free, [banks, free.length / banks]),
    tables: uploadIndices(device, tables, [layers, layerStride(pages.shape)]),
    groups,
    blockLayers,
    layers,
    tableLength,
    isCounted,
    isShared,
  };
}

export async function readPages(
  device: GpuDevice,
  { counts, free, tables }: PageTables,
): Promise<PageData> {
  const data = await readTensors(device, [counts, free, tables]);
  const [a, b, c] = data as [Uint32Array<ArrayBuffer>, Uint32Array<ArrayBuffer>, Uint32Array<ArrayBuffer>];
  return { counts: a, free: b, tables: c };
}

/** Checks that no page is in two lists and that none of `totals`, those of each bank, has gone. */
export function assertPagesOnce(
  { shape: { banks }, held, free }: TextPages,
  { totals, label }: { totals: readonly number[]; label: string },
): void {
  totals.forEach((total, bank) => {
    const times = new Uint8Array(total);
    const lists = held.filter((_, layer) => layer % banks === bank).flat(2);
    let count = 0;
    for (const list of [...lists, free[bank]!]) {
      for (const page of list) {
        if (!(page < total)) throw new Error(`${label}: met page ${page} of ${total} in bank ${bank}`);
        times[page]!++;
        count++;
      }
    }
    const wrong = times.findIndex((n) => n !== 1);
    const problem = wrong < 0 ? null : `page ${wrong} of bank ${bank} is in ${times[wrong]} lists`;
    assertEquals([problem, count], [null, total], label);
  });
}
