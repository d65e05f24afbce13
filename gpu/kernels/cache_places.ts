import cachePlacesCode from "./cache_places.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const CACHE_PLACES = defineKernel("cache_places.wgsl", cachePlacesCode);

/**
 * Records which entries of a cache each packed row sees, and where its own keys and values go: `places` gets the
 * packing's records with z = where the table of its text begins among the cache's pages, slot * `tableLength`, and w =
 * its own entry there; it sees that and those before.
 *
 * With `lengths` (slots) u32, the entries that each slot holds, a row's own follows those and its earlier neighbours,
 * and the lengths grow by the packed rows: recursion-wise caching, whose entries are the tokens active at one recursion
 * step. With null it is the row's position: every token has an entry.
 *
 * slots (state rows) u32: the slot that a row belongs to. depths (state rows) u32: becomes `depth` for packed rows.
 * places has the packing's rows.
 *
 * @throws RangeError for more rows than one workgroup can loop over.
 */
export function cachePlaces(
  commands: Commands,
  { packing: { rows, records }, slots, lengths, depths, places }: {
    packing: Packing;
    slots: Tensor;
    lengths: Tensor | null;
    depths: Tensor;
    places: Tensor;
  },
  { tableLength, depth }: { tableLength: number; depth: number },
): void {
  checkShape("cachePlaces", {
    packing: [records, [rows.maximum, 4]],
    places: [places, [rows.maximum, 4]],
  });
  const width = commands.device.info.isSoftware ? 8 : 64;
  if (rows.maximum > width * (MAX_LOOP_TURNS / 2)) {
    throw new RangeError(
      `Cannot place ${rows.maximum} tokens in a cache at once, at most ${width * (MAX_LOOP_TURNS / 2)}`,
    );
  }
  commands.dispatch(CACHE_PLACES, {
    entryPoint: lengths ? "by_length" : "by_position",
    tensors: { rows: rows.count, packing: records, slots, ...(lengths && { lengths }), depths, places },
    settings: { table_length: tableLength, depth },
    constants: { WIDTH: width },
    grid: [1, 1, 1],
    // A record to read and one to write, a slot and a depth.
    cost: rowCost(rows, { numbers: 10 }),
  });
}
