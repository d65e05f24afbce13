import rmsNormCode from "./rms_norm.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { columnSlices, rowLanes } from "./row_lanes.ts";

const RMS_NORM = defineKernel("rms_norm.wgsl", rmsNormCode, { "row_reduce.wgsl": rowReduceCode });

/**
 * Records out = x * rrms * weight with rrms = 1 / sqrt(mean(x^2) + eps), row by row.
 * x, out (rows, C); weight (C); rrms (rows), kept for the backward kernels. All f32.
 */
export function rmsNorm(
  commands: Commands,
  { x, weight, out, rrms }: { x: Tensor; weight: Tensor; out: Tensor; rrms: Tensor },
  { rows, eps }: { rows: Rows; eps: number },
): void {
  const dim = weight.shape[0]!;
  checkShape("rmsNorm", {
    x: [x, [rows.maximum, dim]],
    out: [out, [rows.maximum, dim]],
    rrms: [rrms, [rows.maximum]],
  });
  const lanes = rowLanes(commands.device, dim / 4);
  commands.dispatch(RMS_NORM, {
    entryPoint: "forward",
    tensors: { rows: rows.count, x, weight, out, rrms },
    constants: { DIM: dim, EPS: eps, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
    cost: rowCost(rows, { columns: dim, numbers: 2, flops: 4 }),
  });
}

/**
 * Records the gradients of `rmsNorm`: gradWeight (C) is added to, gradX (rows, C) is added to if `accumulate`
 * (the residual stream) and overwritten otherwise.
 */
export function rmsNormBackward(
  commands: Commands,
  { x, weight, rrms, gradOut, gradX, gradWeight }: {
    x: Tensor;
    weight: Tensor;
    rrms: Tensor;
    gradOut: Tensor;
    gradX: Tensor;
    gradWeight: Tensor;
  },
  { rows, accumulate }: { rows: Rows; accumulate: boolean },
): void {
  const dim = weight.shape[0]!;
  const shape = [rows.maximum, dim];
  checkShape("rmsNormBackward", { x: [x, shape], gradOut: [gradOut, shape], gradX: [gradX, shape] });
  const lanes = rowLanes(commands.device, dim / 4);
  commands.dispatch(RMS_NORM, {
    entryPoint: "backward_input",
    tensors: { rows: rows.count, x, weight, rrms, grad_out: gradOut, grad_x: gradX },
    constants: { DIM: dim, ACCUMULATE: Number(accumulate), ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
    cost: rowCost(rows, { columns: dim, numbers: accumulate ? 4 : 3, flops: 9 }),
  });
  const slices = columnSlices(commands.device, rows.maximum);
  commands.dispatch(RMS_NORM, {
    entryPoint: "backward_weight",
    tensors: { rows: rows.count, x, rrms, grad_out: gradOut, grad_weight: gradWeight },
    constants: { DIM: dim, ...slices },
    grid: [Math.ceil(dim / 4 / slices.COLUMNS), 1, 1],
    cost: rowCost(rows, { columns: dim, numbers: 2, flops: 3 }),
  });
}
