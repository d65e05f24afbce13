import castCode from "./cast.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { type DispatchCost, rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const CAST = defineKernel("cast.wgsl", castCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/** Numbers of f16 in a word of u32. */
export const HALVES_PER_WORD = 2;

/**
 * Records that x is stored in f16, rounded to nearest even; a magnitude of 65520 or more becomes infinite, NaN stays
 * NaN. x (rows, C) f32, C a multiple of 4; halves (rows, C / 2) u32: two columns to a word, the first in its low half,
 * so that no adapter needs f16 of its own.
 *
 * @throws TypeError for shapes that do not fit.
 */
export function castToF16(
  commands: Commands,
  { x, halves }: { x: Tensor; halves: Tensor },
  { rows }: { rows: Rows },
): void {
  const dim = halves.shape.at(-1)! * HALVES_PER_WORD;
  checkCast("castToF16", { x, halves }, { rows, dim });
  commands.dispatch(CAST, {
    entryPoint: "to_f16",
    tensors: { rows: rows.count, x, halves },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: castCost(rows, { dim }),
  });
}

/**
 * Records the reverse of `castToF16`, which is exact: x (rows, C) f32 from halves (rows, C / 2) u32.
 *
 * @throws TypeError for shapes that do not fit.
 */
export function castToF32(
  commands: Commands,
  { halves, x }: { halves: Tensor; x: Tensor },
  { rows }: { rows: Rows },
): void {
  const dim = halves.shape.at(-1)! * HALVES_PER_WORD;
  checkCast("castToF32", { x, halves }, { rows, dim });
  commands.dispatch(CAST, {
    entryPoint: "to_f32",
    tensors: { rows: rows.count, packed: halves, out: x },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: castCost(rows, { dim }),
  });
}

function checkCast(
  operation: string,
  { x, halves }: { x: Tensor; halves: Tensor },
  { rows, dim }: { rows: Rows; dim: number },
): void {
  checkShape(operation, {
    x: [x, [rows.maximum, dim]],
    halves: [halves, [rows.maximum, dim / HALVES_PER_WORD]],
  });
  if (dim % 4 !== 0) {
    throw new TypeError(`Cannot record ${operation}: rows of ${dim} columns, expected a multiple of 4`);
  }
}

/** Four bytes of each number on one side, two on the other. */
function castCost(rows: Rows, { dim }: { dim: number }): DispatchCost {
  return rowCost(rows, { columns: dim, numbers: 1 + 1 / HALVES_PER_WORD });
}
