/** Slots and pages of a depth-wise batch on the device, and read back from it. */
import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { PageTables } from "../../gpu/kernels/page_tables.ts";
import { PHASES, SLOT_FIELDS, TALLIES, TALLY_COUNT } from "../../gpu/kernels/slot_fields.ts";
import { readTensors } from "../../gpu/readback.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { BatchSizes, BatchSlots, Phase } from "../reference/batch_slots.ts";
import { uploadIndices } from "./device.ts";

const FIELDS = ["phase", "step", "depth", "position", "remaining", "token"] as const;

/** A batch's slots, pages and tallies. */
export interface SlotTensors {
  readonly slots: Tensor;
  readonly pages: PageTables;
  readonly tallies: Tensor;
}

/** Elements of a layer's tables, with some to spare. */
function layerStride({ slots, stepGroups, tableLength }: BatchSizes): number {
  return slots * stepGroups * tableLength + 64;
}

export function uploadSlots(device: GpuDevice, state: BatchSlots, sizes: BatchSizes): SlotTensors {
  const { slots: count, stepGroups, blockLayers, endLayers, banks, tableLength, isCounted, isShared } = sizes;
  const groups = stepGroups + 1;
  const fields = FIELDS.flatMap((name) =>
    state.slots.map((slot) => name === "phase" ? PHASES[slot.phase] : slot[name])
  );
  const held = state.pages.map((layers) =>
    Array.from({ length: count }, (_, slot) => (layers[0]?.[slot] ?? []).length)
  );
  const freeStride = 1 + Math.max(...allPages(state));
  const free = new Uint32Array(banks * freeStride);
  state.free.forEach((pages, bank) => free.set([pages.length, ...pages], bank * freeStride));
  const layers = blockLayers + endLayers;
  const tables = new Uint32Array(layers * layerStride(sizes));
  forEachTable(state, sizes, (start, pages) => tables.set(pages, start));
  const tallies = new Uint32Array(TALLY_COUNT);
  for (const phase of Object.keys(PHASES) as Phase[]) {
    tallies[TALLIES.turn + PHASES[phase]] = state.turn[phase];
    tallies[TALLIES.stalled + PHASES[phase]] = state.stalled[phase];
  }
  return {
    slots: uploadIndices(device, fields, [Object.keys(SLOT_FIELDS).length, count]),
    tallies: uploadIndices(device, tallies),
    pages: {
      counts: uploadIndices(device, [...state.entries.flat(), ...held.flat()], [2 * groups, count]),
      free: uploadIndices(device, free, [banks, freeStride]),
      tables: uploadIndices(device, tables, [layers, layerStride(sizes)]),
      ...{ groups, blockLayers, layers, tableLength, isCounted, isShared },
    },
  };
}

/** Pages of each bank, free or not. */
export function allPages(state: BatchSlots): number[] {
  const held = state.pages.flat(3).length;
  return state.free.map((pages) => pages.length + held);
}

/** Visits each table that has a page: its place among the tables, its pages. */
function forEachTable(
  state: BatchSlots,
  sizes: BatchSizes,
  visit: (start: number, pages: readonly number[]) => void,
): void {
  const { slots, stepGroups, blockLayers, tableLength } = sizes;
  state.pages.forEach((layers, group) =>
    layers.forEach((tables, layer) =>
      tables.forEach((pages, slot) => {
        const [first, table] = group < stepGroups
          ? [layer, group * slots + slot]
          : [blockLayers + layer, slot];
        if (pages.length > 0) visit(first * layerStride(sizes) + table * tableLength, pages);
      })
    )
  );
}

/** Checks that the device's counts, tables and free pages are those of the lists; with `anyOrder` pages may differ. */
export async function assertPages(
  device: GpuDevice,
  { pages: { counts, free, tables } }: SlotTensors,
  { state, sizes, anyOrder = false }: { state: BatchSlots; sizes: BatchSizes; anyOrder?: boolean },
): Promise<void> {
  const [counted, freed, placed] = await readTensors(device, [counts, free, tables]);
  const held = state.pages.map((layers) =>
    Array.from({ length: sizes.slots }, (_, slot) => (layers[0]?.[slot] ?? []).length)
  );
  assertEquals(Array.from(counted!), [...state.entries.flat(), ...held.flat()], "counts");
  const stride = free.shape[1]!;
  const banks = state.free.map((_, bank) => {
    const [count = 0] = freed!.subarray(bank * stride);
    return Array.from(freed!.subarray(bank * stride + 1, bank * stride + 1 + count));
  });
  assertEquals(banks.map((pages) => pages.length), state.free.map((pages) => pages.length), "free pages");
  if (!anyOrder) {
    assertEquals(banks, state.free, "free pages");
    forEachTable(state, sizes, (start, pages) => {
      assertEquals(
        Array.from(placed!.subarray(start, start + pages.length)),
        [...pages],
        `table at ${start}`,
      );
    });
    return;
  }
  // Every page of a bank is free or in one place of one table.
  const met = banks.map((pages) => [...pages]);
  const { blockLayers } = sizes;
  state.pages.forEach((layers, group) =>
    layers.forEach((list, layer) => {
      const cached = group < sizes.stepGroups ? layer : blockLayers + layer;
      list.forEach((pages, slot) => {
        const table = group < sizes.stepGroups ? group * sizes.slots + slot : slot;
        const start = cached * layerStride(sizes) + table * sizes.tableLength;
        met[cached % sizes.banks]!.push(...placed!.subarray(start, start + pages.length));
      });
    })
  );
  met.forEach((pages, bank) => {
    const sorted = pages.toSorted((a, b) => a - b);
    assertEquals(sorted, sorted.map((_, page) => page), `pages of bank ${bank}`);
  });
}
