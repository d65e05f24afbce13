import matmulPanelCode from "./matmul_panel.wgsl" with { type: "text" };
import matmulPanelSubgroupCode from "./matmul_panel_subgroup.wgsl" with { type: "text" };
import matmulVectorCode from "./matmul_vector.wgsl" with { type: "text" };
import matmulVectorSubgroupCode from "./matmul_vector_subgroup.wgsl" with { type: "text" };
import matmulVectorTileCode from "./matmul_vector_tile.wgsl" with { type: "text" };
import packedWeightsCode from "./packed_weights.wgsl" with { type: "text" };
import vectorRowsCode from "./vector_rows.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import { isPacked, type Matrix, matrixBytes, matrixTensor, PANEL_ROWS } from "../packed_matrix.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { hasSubgroupsOfEight, MAX_LOOP_TURNS } from "./row_lanes.ts";
import { formatConstant } from "./weight_format.ts";

/** Rows up to which this is faster than `matmul`, whose tiles have 64 rows. */
export const MAX_VECTOR_ROWS = 16;

/** A way to multiply, and what a workgroup of it does. */
interface Variant {
  readonly kernel: Kernel;
  readonly columns: number;
  readonly depthsPerTurn: number;
}

interface Variants {
  readonly f32: Variant;
  readonly packed: Variant;
}

const tile = { "matmul_vector_tile.wgsl": matmulVectorTileCode, "vector_rows.wgsl": vectorRowsCode };
const panel = { "packed_weights.wgsl": packedWeightsCode, "vector_rows.wgsl": vectorRowsCode };

/** Lanes that own columns and pass x round: 10 GB/s of f32 weights on two cores of lavapipe. */
const SUBGROUP: Variants = {
  f32: {
    kernel: defineKernel("matmul_vector_subgroup.wgsl", matmulVectorSubgroupCode, tile),
    columns: 32,
    depthsPerTurn: 32,
  },
  packed: {
    kernel: defineKernel("matmul_panel_subgroup.wgsl", matmulPanelSubgroupCode, panel),
    columns: PANEL_ROWS,
    depthsPerTurn: 32,
  },
};

/** Lanes that share columns, or the blocks of a panel: for hardware, and right everywhere. */
const SHARED: Variants = {
  f32: {
    kernel: defineKernel("matmul_vector.wgsl", matmulVectorCode, tile),
    columns: 16,
    depthsPerTurn: 128,
  },
  packed: {
    kernel: defineKernel("matmul_panel.wgsl", matmulPanelCode, panel),
    columns: PANEL_ROWS,
    // Its inner loops count, with their last checks.
    depthsPerTurn: 128 / (1 + 5 * 3),
  },
};

/** What is multiplied: x as it is, or made of x on the way, which spares a dispatch. */
export type VectorInput =
  | { readonly kind: "plain" }
  /** RMSNorm(x) with the weight `norm` (K). */
  | { readonly kind: "normed"; readonly norm: Tensor; readonly eps: number }
  /** silu(gate) * up, x being [gate | up]. */
  | { readonly kind: "swiglu" };

/** Values of INPUT in the file. */
const INPUTS = { plain: 0, normed: 1, swiglu: 2 } as const;

/**
 * Records out = v W^T, or residual + v W^T, for few rows: each weight is read once for up to four of them. A row's
 * result does not depend on the others, bit for bit. v is x unless `input` says otherwise.
 *
 * x (rows, K), K a multiple of 4, or (rows, 2 K) for swiglu; weight (N, K) in any format; residual, out (rows, N), or N
 * of `outStride` columns. All but the weight are f32. residual and out differ.
 *
 * @throws TypeError for a depth that is not a multiple of 4; RangeError for one beyond the loop limit.
 */
export function matmulVector(
  commands: Commands,
  { x, weight, residual, out }: { x: Tensor; weight: Matrix; residual: Tensor | null; out: Tensor },
  { rows, input = { kind: "plain" }, outStride }: { rows: Rows; input?: VectorInput; outStride?: number },
): void {
  const [columns, depth] = weight.shape as [number, number];
  const stride = outStride ?? columns;
  const written = stride === columns ? [rows.maximum, columns] : [(rows.maximum - 1) * stride + columns];
  checkShape("matmulVector", {
    x: [x, [rows.maximum, input.kind === "swiglu" ? 2 * depth : depth]],
    ...(residual && { residual: [residual, written] }),
    ...(input.kind === "normed" && { norm: [input.norm, [depth]] as const }),
    out: [out, written],
  });
  if (depth % 4 !== 0) {
    throw new TypeError(`Cannot record matmulVector: depth ${depth} is not a multiple of 4`);
  }
  const variants = hasSubgroupsOfEight(commands.device) ? SUBGROUP : SHARED;
  const variant = variants[isPacked(weight) ? "packed" : "f32"];
  // A norm goes over the depth once more, a lane a turn for each row and column of four.
  const deepest = (MAX_LOOP_TURNS * variant.depthsPerTurn) / (input.kind === "normed" ? 8 : 1);
  if (depth > deepest) {
    throw new RangeError(`Cannot record matmulVector: depth ${depth} is more than ${deepest}`);
  }
  const tileRows = rows.maximum > 2 ? 4 : Math.max(1, rows.maximum);
  const norm = input.kind === "normed" ? input.norm : x;
  commands.dispatch(variant.kernel, {
    entryPoint: "product",
    tensors: { rows: rows.count, x, weight: matrixTensor(weight), residual: residual ?? x, norm, out },
    settings: {
      depth,
      columns,
      eps: input.kind === "normed" ? input.eps : 0,
      out_stride: stride,
    },
    constants: {
      ROWS: tileRows,
      ADD_RESIDUAL: Number(residual !== null),
      INPUT: INPUTS[input.kind],
      ...(isPacked(weight) && formatConstant(weight)),
    },
    grid: rowGrid(rows, { unitsPerGroup: tileRows, z: Math.ceil(columns / variant.columns) }),
    cost: {
      rows,
      fixed: { bytes: matrixBytes(weight) },
      perRow: {
        flops: 2 * columns * depth,
        bytes: ELEMENT_BYTES *
          ((input.kind === "swiglu" ? 2 : 1) * depth + (residual === null ? 1 : 2) * columns),
      },
    },
  });
}
