import matmulPanelCode from "./matmul_panel.wgsl" with { type: "text" };
import matmulPanelSubgroupCode from "./matmul_panel_subgroup.wgsl" with { type: "text" };
import matmulVectorCode from "./matmul_vector.wgsl" with { type: "text" };
import matmulVectorSubgroupCode from "./matmul_vector_subgroup.wgsl" with { type: "text" };
import matmulVectorTileCode from "./matmul_vector_tile.wgsl" with { type: "text" };
import packedWeightsCode from "./packed_weights.wgsl" with { type: "text" };
import vectorRowsCode from "./vector_rows.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import type { GpuDevice } from "../device.ts";
import { type Constants, defineKernel, type Kernel } from "../kernel.ts";
import {
  BLOCK_LENGTH,
  isPacked,
  type Matrix,
  matrixBytes,
  matrixTensor,
  PANEL_ROWS,
} from "../packed_matrix.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { hasSubgroupsOfEight, MAX_LOOP_TURNS } from "./row_lanes.ts";
import { formatConstant } from "./weight_format.ts";

/** A way to multiply, and what a workgroup of it does. */
interface Variant {
  readonly kernel: Kernel;
  readonly constants: Constants;
  readonly columns: number;
  readonly depthsPerTurn: number;
  readonly invocations: number;
}

const tile = { "matmul_vector_tile.wgsl": matmulVectorTileCode, "vector_rows.wgsl": vectorRowsCode };
const panel = { "packed_weights.wgsl": packedWeightsCode, "vector_rows.wgsl": vectorRowsCode };

const SHARED = defineKernel("matmul_vector.wgsl", matmulVectorCode, tile);
const SHARED_PANEL = defineKernel("matmul_panel.wgsl", matmulPanelCode, panel);

/** Invocations of a workgroup whose lanes share columns. */
const SHARED_INVOCATIONS = 128;

/** So many lanes share four columns: fewer make longer sums of their own, more make more workgroups. */
function shared(lanes: number): Variant {
  const tiles = SHARED_INVOCATIONS / lanes;
  return {
    kernel: SHARED,
    constants: { LANES: lanes, TILES: tiles },
    columns: 4 * tiles,
    depthsPerTurn: 4 * lanes,
    invocations: SHARED_INVOCATIONS,
  };
}

/** So many times 32 lanes share the blocks of a panel. */
function sliced(slices: number): Variant {
  return {
    kernel: SHARED_PANEL,
    constants: { SLICES: slices },
    columns: PANEL_ROWS,
    // Its inner loops count, with their last checks.
    depthsPerTurn: (BLOCK_LENGTH * slices) / (1 + 5 * 3),
    invocations: PANEL_ROWS * slices,
  };
}

/** Ways to multiply by f32 weights, by the name that `device.tuning` has for them. */
export const VECTOR_VARIANTS = {
  /** Lanes that own columns and pass x round: 10 GB/s of f32 weights on two cores of lavapipe. */
  subgroup: {
    kernel: defineKernel("matmul_vector_subgroup.wgsl", matmulVectorSubgroupCode, tile),
    constants: {},
    columns: 32,
    depthsPerTurn: 32,
    invocations: 8,
  },
  // Lanes that share columns: for hardware, and right everywhere.
  lanes_16: shared(16),
  lanes_32: shared(32),
  lanes_64: shared(64),
  lanes_128: shared(128),
} as const satisfies Readonly<Record<string, Variant>>;

export type VectorVariantName = keyof typeof VECTOR_VARIANTS;

/** The same for packed weights. */
export const PANEL_VARIANTS = {
  subgroup: {
    kernel: defineKernel("matmul_panel_subgroup.wgsl", matmulPanelSubgroupCode, panel),
    constants: {},
    columns: PANEL_ROWS,
    depthsPerTurn: 32,
    invocations: 8,
  },
  // Lanes that share the blocks of a panel: for hardware, and right everywhere.
  slices_2: sliced(2),
  slices_4: sliced(4),
  slices_8: sliced(8),
} as const satisfies Readonly<Record<string, Variant>>;

export type PanelVariantName = keyof typeof PANEL_VARIANTS;

/** Whether an adapter can run the variants of a name at all. */
export function canMultiplyVectors(device: GpuDevice, name: VectorVariantName | PanelVariantName): boolean {
  if (name === "subgroup") return hasSubgroupsOfEight(device);
  const { invocations } = { ...VECTOR_VARIANTS, ...PANEL_VARIANTS }[name];
  return invocations <= device.limits.maxComputeInvocationsPerWorkgroup;
}

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
  const { tuning } = commands.device;
  const variant: Variant = isPacked(weight)
    ? PANEL_VARIANTS[tuning.matmulPanel]
    : VECTOR_VARIANTS[tuning.matmulVector];
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
      ...variant.constants,
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
