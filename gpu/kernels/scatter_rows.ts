import gatingCode from "./gating.wgsl" with { type: "text" };
import scatterRowsCode from "./scatter_rows.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { fixedCost, rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { linearGrid, rowGrid } from "../rows.ts";
import { checkShape, elementCount, type Tensor } from "../tensor.ts";
import { rowLanes } from "./row_lanes.ts";

/** The part of a kernel that joins a row and a state. */
export const GATING_PART = { "gating.wgsl": gatingCode } as const;

const SCATTER_ROWS = defineKernel("scatter_rows.wgsl", scatterRowsCode, {
  ...GATING_PART,
  "row_reduce.wgsl": rowReduceCode,
});

/** Constant GROUP of the file. */
const GROUP = 64;

/** Values of GATING in the part: how a row z with gate w changes the state's row x. */
export const GATINGS = {
  /** x + w z */
  weighted: 0,
  /** x + z */
  additive: 1,
  /** z */
  replace: 2,
  /** x + w (z - x) */
  delta: 3,
} as const;

export type ScatterGating = keyof typeof GATINGS;

/** Work of a column of `scatterRowsBackward`: two products, for two gradients, and what the gate's gradient needs. */
const BACKWARD_WORK = {
  weighted: { numbers: 4, flops: 4 },
  additive: { numbers: 3, flops: 2 },
  replace: { numbers: 3, flops: 2 },
  delta: { numbers: 5, flops: 5 },
} as const;

/**
 * Records out = x with the packed rows updated by z. With w the row's gate: weighted x + w z, additive x + z,
 * replace z, delta x + w (z - x). x, out (state rows, C); z (rows, C); gates (rows). All f32.
 */
export function scatterRows(
  commands: Commands,
  { x, z, gates, packing: { rows, records }, out }: {
    x: Tensor;
    z: Tensor;
    gates: Tensor;
    packing: Packing;
    out: Tensor;
  },
  { gating }: { gating: ScatterGating },
): void {
  const dim = x.shape.at(-1)!;
  checkShape("scatterRows", {
    out: [out, x.shape],
    z: [z, [rows.maximum, dim]],
    gates: [gates, [rows.maximum]],
  });
  commands.dispatch(SCATTER_ROWS, {
    entryPoint: "copy_rows",
    tensors: { x, out },
    grid: linearGrid(Math.ceil(elementCount(x.shape) / 4 / GROUP)),
    cost: fixedCost({ numbers: 2 * elementCount(x.shape) }),
  });
  commands.dispatch(SCATTER_ROWS, {
    entryPoint: "forward",
    tensors: { rows: rows.count, packing: records, x, z, gates, out },
    constants: { DIM: dim, GATING: GATINGS[gating] },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 3, flops: 3 }),
  });
}

/**
 * Records the gradients of `scatterRows`. gradState (state rows, C) holds the gradient of out and becomes that of x;
 * gradZ (rows, C) and gradGates (rows) are overwritten, gradGates with 0 where the gating does not use gates.
 * x is read for `delta` only.
 */
export function scatterRowsBackward(
  commands: Commands,
  { x, z, gates, packing: { rows, records }, gradState, gradZ, gradGates }: {
    x: Tensor;
    z: Tensor;
    gates: Tensor;
    packing: Packing;
    gradState: Tensor;
    gradZ: Tensor;
    gradGates: Tensor;
  },
  { gating }: { gating: ScatterGating },
): void {
  const dim = gradState.shape.at(-1)!;
  const shape = [rows.maximum, dim];
  checkShape("scatterRowsBackward", {
    x: [x, gradState.shape],
    z: [z, shape],
    gates: [gates, [rows.maximum]],
    gradZ: [gradZ, shape],
    gradGates: [gradGates, [rows.maximum]],
  });
  const lanes = rowLanes(commands.device, dim / 4);
  commands.dispatch(SCATTER_ROWS, {
    entryPoint: "backward",
    tensors: {
      rows: rows.count,
      packing: records,
      x,
      z,
      gates,
      grad_state: gradState,
      grad_z: gradZ,
      grad_gates: gradGates,
    },
    constants: { DIM: dim, GATING: GATINGS[gating], ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
    cost: rowCost(rows, { columns: dim, ...BACKWARD_WORK[gating] }),
  });
}
