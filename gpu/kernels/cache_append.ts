import cacheAppendCode from "./cache_append.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const CACHE_APPEND = defineKernel("cache_append.wgsl", cacheAppendCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/**
 * Records that every packed row's keys and values enter a cache: slot[w] = the columns of qkv from `firstColumn` on,
 * w being the last entry of the row's record in `places` (see `cachePlaces`).
 * qkv (rows, ...) f32; slot (cache rows, 2 G D) f32.
 *
 * @throws TypeError when the columns end before the slot's width.
 */
export function cacheAppend(
  commands: Commands,
  { qkv, places, slot }: { qkv: Tensor; places: Packing; slot: Tensor },
  { firstColumn }: { firstColumn: number },
): void {
  const { rows, records } = places;
  const [stride, width] = [qkv.shape[1]!, slot.shape[1]!];
  checkShape("cacheAppend", { qkv: [qkv, [rows.maximum, stride]], places: [records, [rows.maximum, 4]] });
  if (firstColumn + width > stride || [stride, width, firstColumn].some((size) => size % 4 !== 0)) {
    throw new TypeError(
      `Cannot record cacheAppend: columns ${firstColumn} to ${firstColumn + width} of ${stride}, ` +
        "expected multiples of 4 within a row",
    );
  }
  commands.dispatch(CACHE_APPEND, {
    entryPoint: "append",
    tensors: { rows: rows.count, places: records, qkv, slot },
    constants: { STRIDE: stride / 4, FIRST: firstColumn / 4, WIDTH: width / 4 },
    grid: rowGrid(rows, { unitsPerRow: width / 4, unitsPerGroup: GROUP }),
  });
}
