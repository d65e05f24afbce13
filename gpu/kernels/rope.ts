import ropeCode from "./rope.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import type { Allocator } from "../memory.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor, tensorFrom } from "../tensor.ts";

const ROPE = defineKernel("rope.wgsl", ropeCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/** Which columns of a row are turned. */
export interface RopeSettings {
  /** Heads turned, from column 0 on: for [q | k | v] those of q and k together. */
  readonly heads: number;
  /** Multiple of 4. */
  readonly headDim: number;
  /** Columns of a row; those past heads * headDim stay. */
  readonly stride: number;
}

/** What `rope` works on. */
export interface RopeTensors {
  /** (rows, stride) f32, turned in place. */
  readonly x: Tensor;
  /** Its rows and their positions, which must be below the table's. */
  readonly packing: Packing;
  /** From `ropeTable`. */
  readonly table: Tensor;
}

/** What the entries of a table follow from. */
export interface RopeTableSettings {
  readonly positions: number;
  readonly headDim: number;
  readonly theta: number;
  /** (D / 2): divisors of the frequencies; ones unless told. */
  readonly divisors?: ArrayLike<number>;
  /** Multiplies every entry; 1 unless told. */
  readonly attentionFactor?: number;
}

/**
 * attentionFactor times cos and sin of position * theta^(-2i / D) / divisor_i for i < D / 2, (positions, D / 2, 2) f32.
 * Made in float64: the sine that a GPU computes of a large angle is off by more than a rounding.
 */
export function ropeTable(
  device: Allocator,
  { positions, headDim, theta, divisors, attentionFactor = 1 }: RopeTableSettings,
): Tensor {
  const half = headDim / 2;
  if (divisors && divisors.length !== half) {
    throw new TypeError(`Cannot make a rope table: ${divisors.length} divisors for ${half} frequencies`);
  }
  const data = new Float32Array(positions * headDim);
  for (let i = 0; i < half; i++) {
    const frequency = theta ** (-2 * i / headDim) / (divisors?.[i] ?? 1);
    for (let position = 0; position < positions; position++) {
      const entry = (position * half + i) * 2;
      data[entry] = attentionFactor * Math.cos(position * frequency);
      data[entry + 1] = attentionFactor * Math.sin(position * frequency);
    }
  }
  return tensorFrom(device, { data, shape: [positions, half, 2], label: "rope table" });
}

/**
 * Records the rotation of every head's entries by their row's position, rotate-half form
 * (Su et al. 2021, arXiv 2104.09864).
 */
export function rope(commands: Commands, tensors: RopeTensors, settings: RopeSettings): void {
  rotate(commands, { ...tensors, ...settings, operation: "rope" });
}

/** Records the gradient of `rope`, the rotation back with the same factor; x is the gradient, in place. */
export function ropeBackward(commands: Commands, tensors: RopeTensors, settings: RopeSettings): void {
  rotate(commands, { ...tensors, ...settings, operation: "ropeBackward" });
}

function rotate(
  commands: Commands,
  { x, packing: { rows, records }, table, heads, headDim, stride, operation }: RopeTensors & RopeSettings & {
    operation: "rope" | "ropeBackward";
  },
): void {
  checkShape(operation, {
    x: [x, [rows.maximum, stride]],
    table: [table, [table.shape[0]!, headDim / 2, 2]],
  });
  if (headDim % 4 !== 0 || heads * headDim > stride) {
    throw new TypeError(
      `Cannot record ${operation}: ${heads} heads of ${headDim} do not fit rows of ${stride} in multiples of 4`,
    );
  }
  commands.dispatch(ROPE, {
    entryPoint: "rotate",
    tensors: { rows: rows.count, packing: records, table, x },
    constants: {
      HEADS: heads,
      HEAD_DIM: headDim,
      STRIDE: stride,
      INVERSE: Number(operation === "ropeBackward"),
    },
    grid: rowGrid(rows, { unitsPerRow: heads * headDim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: heads * headDim, numbers: 2, flops: 3 }),
  });
}
