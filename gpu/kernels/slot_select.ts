import slotSelectCode from "./slot_select.wgsl" with { type: "text" };
import workgroupScanCode from "./workgroup_scan.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { fixedCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { checkPageTables, pageSettings, type PageTables } from "./page_tables.ts";
import { PAGE_ROWS } from "./cache_pages.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";
import {
  PHASES,
  SLOT_FIELD_COUNT,
  SLOT_PART,
  type SlotPhase,
  TALLIES_PART,
  TALLY_COUNT,
} from "./slot_fields.ts";

const SLOT_SELECT = defineKernel("slot_select.wgsl", slotSelectCode, {
  ...SLOT_PART,
  ...TALLIES_PART,
  "workgroup_scan.wgsl": workgroupScanCode,
});

/**
 * Records the choice of the slots in a phase that are next, at most as many as `packing` has room for, in turn from the
 * first that the phase's last choice had no room for. Overwritten: the packing's records with (slot, position, where its
 * table begins, its entry there), and its row count. Slots that make new entries get the pages for them, in turn and
 * whether or not there is room to run them; those for which none are left are passed over. Where entries are counted, the
 * rows of a recursion step are counted as entered.
 *
 * Slots that leave wait until there are `due` of them, or fewer than `full` others that can recur.
 *
 * slots (fields, S), tallies (24) u32. more: for entering rows (rows) u32, becomes their tokens; for recurring ones of a
 * model that shares keys and values, (rows, 4) u32, becomes the records with `NO_TABLE` for rows that make none; else
 * anything.
 *
 * @throws TypeError for shapes that do not fit; RangeError for more slots than one workgroup can loop over.
 */
export function selectSlots(
  commands: Commands,
  { slots, pages, tallies, packing: { rows, records }, more }: {
    slots: Tensor;
    pages: PageTables;
    tallies: Tensor;
    packing: Packing;
    more: Tensor;
  },
  { phase, due = 0, full = 0 }: { phase: SlotPhase; due?: number; full?: number },
): void {
  const count = slots.shape[1]!;
  const { blockLayers, layers, isCounted, isShared } = pages;
  checkPageTables("selectSlots", { pages, slots: count });
  checkShape("selectSlots", {
    slots: [slots, [SLOT_FIELD_COUNT, count]],
    tallies: [tallies, [TALLY_COUNT]],
    packing: [records, [rows.maximum, 4]],
    ...(phase === "entering" && { more: [more, [rows.maximum]] as const }),
    ...(phase === "recurring" && isShared && { more: [more, [rows.maximum, 4]] as const }),
  });
  const width = commands.device.info.isSoftware ? 64 : 256;
  const turnsOfSlot = 2 + 2 * (layers + 1);
  if (count * turnsOfSlot > width * (MAX_LOOP_TURNS / 2)) {
    throw new RangeError(
      `Cannot choose among ${count} slots of ${layers} layers in one dispatch; lower --batch-size`,
    );
  }
  const [firstLayer, endLayer] =
    { entering: [blockLayers, layers], recurring: [0, blockLayers], leaving: [0, 0] }[
      phase
    ];
  commands.dispatch(SLOT_SELECT, {
    entryPoint: "select_slots",
    tensors: {
      slots,
      counts: pages.counts,
      free: pages.free,
      tables: pages.tables,
      rows: rows.count,
      records,
      more,
      tallies,
    },
    settings: {
      ...pageSettings(pages),
      most: rows.maximum,
      due,
      full,
      first_layer: firstLayer!,
      end_layer: endLayer!,
    },
    constants: {
      PHASE_WANTED: PHASES[phase],
      IS_COUNTED: Number(isCounted),
      IS_SHARED: Number(isShared),
      PAGE_ROWS,
      WIDTH: width,
    },
    grid: [1, 1, 1],
    // The phase of each slot; what the chosen ones read and write is not known before.
    cost: fixedCost({ numbers: count }),
  });
}
