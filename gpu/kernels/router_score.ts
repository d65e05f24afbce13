import routerScoreCode from "./router_score.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { columnSlices, rowLanes } from "./row_lanes.ts";

const ROUTER_SCORE = defineKernel("router_score.wgsl", routerScoreCode, { "row_reduce.wgsl": rowReduceCode });

/**
 * Records logits_i = dot(x[packing_i.x], weight) / temperature for every packed row: the linear router of expert
 * choice (Bae et al. 2025, arXiv 2507.10524), whose candidates are the packed rows.
 * x (B * T, C); weight (1, C); logits (packing.rows). All f32.
 */
export function routerScore(
  commands: Commands,
  { x, packing, weight, logits }: { x: Tensor; packing: Packing; weight: Tensor; logits: Tensor },
  { temperature }: { temperature: number },
): void {
  const dim = weight.shape.at(-1)!;
  const { rows, records } = packing;
  checkShape("routerScore", {
    x: [x, [1, dim]],
    weight: [weight, [1, dim]],
    packing: [records, [rows.maximum, 4]],
    logits: [logits, [rows.maximum]],
  });
  const lanes = rowLanes(commands.device, dim / 4);
  commands.dispatch(ROUTER_SCORE, {
    entryPoint: "forward",
    tensors: { rows: rows.count, packing: records, x, weight, logits },
    constants: { DIM: dim, TEMPERATURE: temperature, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
  });
}

/**
 * Records the gradients of `routerScore`, both added to: gradX[packing_i.x] += gradLogits_i * weight / temperature,
 * gradWeight += sum_i gradLogits_i * x[packing_i.x] / temperature. gradX (B * T, C); gradWeight (1, C). All f32.
 */
export function routerScoreBackward(
  commands: Commands,
  { x, packing, weight, gradLogits, gradX, gradWeight }: {
    x: Tensor;
    packing: Packing;
    weight: Tensor;
    gradLogits: Tensor;
    gradX: Tensor;
    gradWeight: Tensor;
  },
  { temperature }: { temperature: number },
): void {
  const dim = weight.shape.at(-1)!;
  const { rows, records } = packing;
  checkShape("routerScoreBackward", {
    x: [x, [1, dim]],
    weight: [weight, [1, dim]],
    packing: [records, [rows.maximum, 4]],
    gradLogits: [gradLogits, [rows.maximum]],
    gradX: [gradX, x.shape],
    gradWeight: [gradWeight, [1, dim]],
  });
  const lanes = rowLanes(commands.device, dim / 4);
  commands.dispatch(ROUTER_SCORE, {
    entryPoint: "backward_input",
    tensors: { rows: rows.count, packing: records, weight, grad_logits: gradLogits, grad_x: gradX },
    constants: { DIM: dim, TEMPERATURE: temperature, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
  });
  const slices = columnSlices(commands.device, rows.maximum);
  commands.dispatch(ROUTER_SCORE, {
    entryPoint: "backward_weight",
    tensors: { rows: rows.count, packing: records, x, grad_logits: gradLogits, grad_weight: gradWeight },
    constants: { DIM: dim, TEMPERATURE: temperature, ...slices },
    grid: [Math.ceil(dim / 4 / slices.COLUMNS), 1, 1],
  });
}
