import matmulVectorCode from "./matmul_vector.wgsl" with { type: "text" };
import matmulVectorSubgroupCode from "./matmul_vector_subgroup.wgsl" with { type: "text" };
import matmulVectorTileCode from "./matmul_vector_tile.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { hasSubgroupsOfEight, MAX_LOOP_TURNS } from "./row_lanes.ts";

/** Rows up to which this is faster than `matmul`, whose tiles have 64 rows. */
export const MAX_VECTOR_ROWS = 16;

/** A way to multiply, and what a workgroup of it does. */
interface Variant {
  readonly kernel: Kernel;
  readonly columns: number;
  readonly depthsPerTurn: number;
}

const tile = { "matmul_vector_tile.wgsl": matmulVectorTileCode };

/** Lanes that own columns and pass x round: 10 GB/s of weights on two cores of lavapipe. */
const SUBGROUP: Variant = {
  kernel: defineKernel("matmul_vector_subgroup.wgsl", matmulVectorSubgroupCode, tile),
  columns: 32,
  depthsPerTurn: 32,
};

/** Lanes that share columns: for hardware, and right everywhere. */
const SHARED: Variant = {
  kernel: defineKernel("matmul_vector.wgsl", matmulVectorCode, tile),
  columns: 16,
  depthsPerTurn: 128,
};

/**
 * Records out = x W^T, or residual + x W^T, for few rows: each weight is read once for up to four of them. A row's
 * result does not depend on the others, bit for bit.
 *
 * x (rows, K), K a multiple of 4; weight (N, K); residual, out (rows, N). All f32. residual and out differ.
 *
 * @throws TypeError for a depth that is not a multiple of 4; RangeError for one beyond the loop limit.
 */
export function matmulVector(
  commands: Commands,
  { x, weight, residual, out }: { x: Tensor; weight: Tensor; residual: Tensor | null; out: Tensor },
  { rows }: { rows: Rows },
): void {
  const [columns, depth] = weight.shape as [number, number];
  checkShape("matmulVector", {
    x: [x, [rows.maximum, depth]],
    ...(residual && { residual: [residual, [rows.maximum, columns]] }),
    out: [out, [rows.maximum, columns]],
  });
  if (depth % 4 !== 0) {
    throw new TypeError(`Cannot record matmulVector: depth ${depth} is not a multiple of 4`);
  }
  const variant = hasSubgroupsOfEight(commands.device) ? SUBGROUP : SHARED;
  const deepest = MAX_LOOP_TURNS * variant.depthsPerTurn;
  if (depth > deepest) {
    throw new RangeError(`Cannot record matmulVector: depth ${depth} is more than ${deepest}`);
  }
  const tileRows = rows.maximum > 2 ? 4 : Math.max(1, rows.maximum);
  commands.dispatch(variant.kernel, {
    entryPoint: "product",
    tensors: { rows: rows.count, x, weight, residual: residual ?? x, out },
    settings: { depth, columns },
    constants: { ROWS: tileRows, ADD_RESIDUAL: Number(residual !== null) },
    grid: rowGrid(rows, { unitsPerGroup: tileRows, z: Math.ceil(columns / variant.columns) }),
  });
}
