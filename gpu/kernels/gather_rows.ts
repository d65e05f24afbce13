import gatherRowsCode from "./gather_rows.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const GATHER_ROWS = defineKernel("gather_rows.wgsl", gatherRowsCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/** Records out[i] = x[index of packed row i]. x (state rows, C) f32, out (rows, C) f32. */
export function gatherRows(
  commands: Commands,
  { x, packing: { rows, records }, out }: { x: Tensor; packing: Packing; out: Tensor },
): void {
  const dim = x.shape.at(-1)!;
  checkShape("gatherRows", { out: [out, [rows.maximum, dim]] });
  commands.dispatch(GATHER_ROWS, {
    entryPoint: "forward",
    tensors: { rows: rows.count, packing: records, x, out },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 2 }),
  });
}

/** Records the gradient of `gatherRows`: gradX (state rows, C) is added to; gradOut (rows, C). */
export function gatherRowsBackward(
  commands: Commands,
  { gradOut, packing: { rows, records }, gradX }: { gradOut: Tensor; packing: Packing; gradX: Tensor },
): void {
  const dim = gradX.shape.at(-1)!;
  checkShape("gatherRowsBackward", { gradOut: [gradOut, [rows.maximum, dim]] });
  commands.dispatch(GATHER_ROWS, {
    entryPoint: "backward",
    tensors: { rows: rows.count, packing: records, grad_out: gradOut, grad_x: gradX },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 3, flops: 1 }),
  });
}
