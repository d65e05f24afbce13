import matmulSubgroupCode from "./matmul_subgroup.wgsl" with { type: "text" };
import matmulTiledCode from "./matmul_tiled.wgsl" with { type: "text" };
import packedQuadsCode from "./packed_quads.wgsl" with { type: "text" };
import packedWeightsCode from "./packed_weights.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import type { DispatchCost } from "../cost.ts";
import type { GpuDevice } from "../device.ts";
import { type Constants, defineKernel, type Kernel } from "../kernel.ts";
import { BLOCK_LENGTH, isPacked, type Matrix, matrixBytes, matrixTensor } from "../packed_matrix.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { hasSubgroupsOfEight, MAX_LOOP_TURNS } from "./row_lanes.ts";
import { formatConstant } from "./weight_format.ts";

/** One way to multiply, and the shape of what a workgroup makes. */
export interface MatmulVariant {
  readonly kernel: Kernel;
  /** Of the kernel's shape; those of the layout come with each product. */
  readonly constants: Constants;
  readonly tileRows: number;
  readonly tileColumns: number;
  /** Depths that one loop turn covers; inner loops count, with their last check, as lavapipe counts them. */
  readonly depthsPerTurn: number;
  /** Of a workgroup. */
  readonly invocations: number;
  /** Workgroup memory of a workgroup. */
  readonly workgroupBytes: number;
}

const parts = { "packed_weights.wgsl": packedWeightsCode, "packed_quads.wgsl": packedQuadsCode };

const TILED = defineKernel("matmul_tiled.wgsl", matmulTiledCode, parts);

/** Depths that a tile stages at once. */
const TILE_DEPTHS = 16;

/** Operands staged in workgroup memory, `x` times `y` invocations with so many quads of rows and of columns each. */
function tiled(
  { x, y, rowQuads, columnQuads }: { x: number; y: number; rowQuads: number; columnQuads: number },
): MatmulVariant {
  const [tileRows, tileColumns, invocations] = [4 * y * rowQuads, 4 * x * columnQuads, x * y];
  // Each operand's quads, and the depths; a loop's last check is a turn, too.
  const staging = (size: number): number => Math.ceil((size * TILE_DEPTHS) / 4 / invocations) + 1;
  const turns = 1 + staging(tileRows) + staging(tileColumns) + TILE_DEPTHS + 1;
  return {
    kernel: TILED,
    constants: { X: x, Y: y, ROW_QUADS: rowQuads, COLUMN_QUADS: columnQuads },
    tileRows,
    tileColumns,
    depthsPerTurn: TILE_DEPTHS / turns,
    invocations,
    // A depth is padded by a vec4.
    workgroupBytes: (tileRows + 4 + tileColumns + 4) * TILE_DEPTHS * ELEMENT_BYTES,
  };
}

/** Ways to multiply, by the name that `device.tuning` has for them. */
export const MATMUL_VARIANTS = {
  /** Operands passed round by subgroup shuffles: 60 GFLOP/s on two cores of lavapipe, where tiles reach 5. */
  subgroup: {
    kernel: defineKernel("matmul_subgroup.wgsl", matmulSubgroupCode, parts),
    constants: {},
    tileRows: 64,
    tileColumns: 32,
    depthsPerTurn: 4,
    invocations: 8,
    workgroupBytes: 0,
  },
  // For hardware, and right everywhere: large tiles read operands less often, small ones keep more processors busy.
  tile_32x32: tiled({ x: 8, y: 8, rowQuads: 1, columnQuads: 1 }),
  tile_64x64: tiled({ x: 16, y: 16, rowQuads: 1, columnQuads: 1 }),
  tile_128x64: tiled({ x: 16, y: 16, rowQuads: 2, columnQuads: 1 }),
  tile_128x128: tiled({ x: 16, y: 16, rowQuads: 2, columnQuads: 2 }),
} as const satisfies Readonly<Record<string, MatmulVariant>>;

export type MatmulVariantName = keyof typeof MATMUL_VARIANTS;

/** Whether an adapter can run a variant at all. */
export function canMultiply(device: GpuDevice, name: MatmulVariantName): boolean {
  if (name === "subgroup") return hasSubgroupsOfEight(device);
  const { invocations, workgroupBytes } = MATMUL_VARIANTS[name];
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = device.limits;
  return invocations <= maxComputeInvocationsPerWorkgroup && workgroupBytes <= maxComputeWorkgroupStorageSize;
}

/** Sizes and layout of a product: out (rows, columns) = A (rows, depth) B (depth, columns). */
export interface MatmulSettings {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  /** A is stored (depth, rows) instead of (rows, depth). */
  readonly aDepthFirst?: boolean;
  /** B is stored (depth, columns) instead of (columns, depth). */
  readonly bDepthFirst?: boolean;
  /** Add to out instead of overwriting it. */
  readonly accumulate?: boolean;
  /** Columns of a row of out, and of a depth-first A, where those at hand are part of wider ones. */
  readonly outStride?: number;
  readonly aStride?: number;
  /** How many rows, or depths, really count: at most the size given. */
  readonly counted: { readonly dimension: "rows" | "depth"; readonly rows: Rows };
  /**
   * How many rows the given ones are some of, if they are not all: the variant is chosen for so many, so that the rows
   * come out as they do all at once, bit for bit.
   */
  readonly partOf?: number;
  /** As the device is tuned unless given. */
  readonly variant?: MatmulVariant;
}

/** Rows up to which a product has few: two tiles of 64, with which most GPUs have processors to spare. */
const FEW_ROWS = 128;

/** The kinds of products that are tuned each for itself. */
export type ProductKind = "matmul" | "matmulFewRows" | "matmulGradient";

/** Which kind a product is: a gradient of weights sums over a row count, others have it as their rows. */
function productKind({ rows, counted, partOf = rows }: MatmulSettings): ProductKind {
  if (counted.dimension === "depth") return "matmulGradient";
  return partOf <= FEW_ROWS ? "matmulFewRows" : "matmul";
}

/** The variant that a device is tuned to use for a product. */
function matmulVariant({ tuning }: GpuDevice, settings: MatmulSettings): MatmulVariant {
  return MATMUL_VARIANTS[tuning[productKind(settings)]];
}

/**
 * Records out (+)= A B, or residual + A B, in f32; B (columns, depth) may be packed weights; residual has the layout of
 * out and is another tensor. Contiguous dimensions are multiples of 4; rows and a depth that is no operand's contiguous
 * dimension may be any number.
 *
 * @throws TypeError for contiguous dimensions that are not multiples of 4.
 */
export function matmul(
  commands: Commands,
  { a, b, residual = null, out }: { a: Tensor; b: Matrix; residual?: Tensor | null; out: Tensor },
  settings: MatmulSettings,
): void {
  const { rows, columns, depth, aDepthFirst = false, bDepthFirst = false, accumulate = false } = settings;
  const { outStride = columns, aStride = aDepthFirst ? rows : depth, counted, variant } = settings;
  const { kernel, constants, tileRows, tileColumns, depthsPerTurn } = variant ??
    matmulVariant(commands.device, settings);
  const contiguous = [columns, aDepthFirst ? rows : depth, bDepthFirst ? columns : depth];
  if (contiguous.some((size) => size % 4 !== 0)) {
    throw new TypeError(
      `Cannot record matmul: (${rows}, ${depth}) x (${depth}, ${columns}) is not in multiples of 4`,
    );
  }
  if (isPacked(b) && bDepthFirst) {
    throw new TypeError(`Cannot record matmul: ${b.words.label} is packed along the depth, not the columns`);
  }
  const bTensor = matrixTensor(b);
  const countsDepth = counted.dimension === "depth";
  const z = Math.ceil(columns / tileColumns);
  // Lavapipe ends an invocation after 65,535 loop turns, so a long sum takes several dispatches.
  const window = Math.floor((MAX_LOOP_TURNS * depthsPerTurn) / 16) * 16;
  for (let start = 0; start === 0 || start < depth; start += window) {
    commands.dispatch(kernel, {
      entryPoint: "matmul",
      tensors: {
        a,
        b: bTensor,
        b_words: bTensor,
        residual: residual ?? a,
        out,
        row_count: counted.rows.count,
      },
      settings: {
        rows,
        columns,
        depth,
        a_stride: aStride,
        b_stride: isPacked(b) ? depth / BLOCK_LENGTH : bDepthFirst ? columns : depth,
        out_stride: outStride,
        depth_start: start,
        depth_end: Math.min(depth, start + window),
      },
      constants: {
        ...constants,
        A_DEPTH_FIRST: Number(aDepthFirst),
        B_DEPTH_FIRST: Number(bDepthFirst),
        ACCUMULATE: Number(accumulate || start > 0),
        ADD_RESIDUAL: Number(residual !== null),
        COUNTED_DEPTH: Number(countsDepth),
        ...formatConstant(b),
      },
      grid: countsDepth
        ? [Math.ceil(rows / tileRows), 1, z]
        : rowGrid(counted.rows, { unitsPerGroup: tileRows, z }),
      cost: productCost({ b }, settings, {
        part: (Math.min(depth, start + window) - start) / Math.max(1, depth),
        // What is added to is read.
        accumulates: accumulate || start > 0 || residual !== null,
      }),
    });
  }
}

/** The cost of a dispatch that does some part of the depth. */
function productCost(
  { b }: { b: Matrix },
  { rows, columns, depth, counted }: MatmulSettings,
  { part, accumulates }: { part: number; accumulates: boolean },
): DispatchCost {
  const outBytes = ELEMENT_BYTES * (accumulates ? 2 : 1);
  if (counted.dimension === "depth") {
    return {
      rows: counted.rows,
      fixed: { bytes: rows * columns * outBytes },
      perRow: { flops: 2 * rows * columns * part, bytes: (rows + columns) * ELEMENT_BYTES * part },
    };
  }
  return {
    rows: counted.rows,
    fixed: { bytes: (isPacked(b) ? matrixBytes(b) : columns * depth * ELEMENT_BYTES) * part },
    perRow: { flops: 2 * columns * depth * part, bytes: depth * ELEMENT_BYTES * part + columns * outBytes },
  };
}
