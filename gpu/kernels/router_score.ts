import routerScoreCode from "./router_score.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { type DispatchCost, rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { columnSlices, rowLanes } from "./row_lanes.ts";

const ROUTER_SCORE = defineKernel("router_score.wgsl", routerScoreCode, { "row_reduce.wgsl": rowReduceCode });

/**
 * Records logits_io = dot(x[packing_i.x], weight_o) / temperature for every packed row i and output o: the linear
 * router (Bae et al. 2025, arXiv 2507.10524), with one output in expert choice, whose candidates are the packed rows,
 * and one for each depth in token choice.
 * x (B * T, C); weight (O, C), O small; logits (packing.rows, O). All f32.
 */
export function routerScore(
  commands: Commands,
  { x, packing, weight, logits }: { x: Tensor; packing: Packing; weight: Tensor; logits: Tensor },
  { temperature }: { temperature: number },
): void {
  const [outputs, dim] = weight.shape as [number, number];
  const { rows, records } = packing;
  checkShape("routerScore", {
    x: [x, [1, dim]],
    weight: [weight, [outputs, dim]],
    packing: [records, [rows.maximum, 4]],
    logits: [logits, [rows.maximum, outputs]],
  });
  const lanes = rowLanes(commands.device, outputs * dim / 4);
  commands.dispatch(ROUTER_SCORE, {
    entryPoint: "forward",
    tensors: { rows: rows.count, packing: records, x, weight, logits },
    constants: { DIM: dim, OUTPUTS: outputs, TEMPERATURE: temperature, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
    cost: scoreCost({ rows, weight }, { numbers: 1, weightPasses: 1 }),
  });
}

/**
 * Records the gradients of `routerScore`, both added to:
 * gradX[packing_i.x] += sum_o gradLogits_io * weight_o / temperature,
 * gradWeight_o += sum_i gradLogits_io * x[packing_i.x] / temperature.
 * gradLogits (packing.rows, O); gradX (B * T, C), or null for a router that must not change what it looks at;
 * gradWeight (O, C). All f32.
 */
export function routerScoreBackward(
  commands: Commands,
  { x, packing, weight, gradLogits, gradX, gradWeight }: {
    x: Tensor;
    packing: Packing;
    weight: Tensor;
    gradLogits: Tensor;
    gradX: Tensor | null;
    gradWeight: Tensor;
  },
  { temperature }: { temperature: number },
): void {
  const [outputs, dim] = weight.shape as [number, number];
  const { rows, records } = packing;
  checkShape("routerScoreBackward", {
    x: [x, [1, dim]],
    weight: [weight, [outputs, dim]],
    packing: [records, [rows.maximum, 4]],
    gradLogits: [gradLogits, [rows.maximum, outputs]],
    ...(gradX && { gradX: [gradX, x.shape] }),
    gradWeight: [gradWeight, [outputs, dim]],
  });
  if (gradX !== null) {
    const lanes = rowLanes(commands.device, outputs * dim / 4);
    commands.dispatch(ROUTER_SCORE, {
      entryPoint: "backward_input",
      tensors: { rows: rows.count, packing: records, weight, grad_logits: gradLogits, grad_x: gradX },
      constants: { DIM: dim, OUTPUTS: outputs, TEMPERATURE: temperature, ...lanes },
      grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
      cost: scoreCost({ rows, weight }, { numbers: 2, weightPasses: 1 }),
    });
  }
  const slices = columnSlices(commands.device, rows.maximum);
  commands.dispatch(ROUTER_SCORE, {
    entryPoint: "backward_weight",
    tensors: { rows: rows.count, packing: records, x, grad_logits: gradLogits, grad_weight: gradWeight },
    constants: { DIM: dim, OUTPUTS: outputs, TEMPERATURE: temperature, ...slices },
    grid: [Math.ceil(dim / 4 / slices.COLUMNS), outputs, 1],
    cost: scoreCost({ rows, weight }, { numbers: 1, weightPasses: 2 }),
  });
}

/** The cost of a product of rows and a router's weight, or its gradient: how often either passes the bus. */
function scoreCost(
  { rows, weight: { shape } }: { rows: Rows; weight: Tensor },
  { numbers, weightPasses }: { numbers: number; weightPasses: number },
): DispatchCost {
  const [outputs, columns] = shape as [number, number];
  return {
    ...rowCost(rows, { columns, numbers, flops: 2 * outputs }),
    fixed: { bytes: weightPasses * outputs * columns * ELEMENT_BYTES },
  };
}
