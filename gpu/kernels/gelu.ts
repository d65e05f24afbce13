import geluCode from "./gelu.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const GELU = defineKernel("gelu.wgsl", geluCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/** Settings of `gelu` and `geluBackward`. */
export interface GeluSettings {
  readonly rows: Rows;
  /** Factor of the input. */
  readonly scale: number;
}

/**
 * Records out = GELU(scale * x), GELU(s) = s * P(s) with the standard normal distribution P (Hendrycks & Gimpel 2016,
 * arXiv 1606.08415), the exact form, P good to 3e-7. x, out (rows, F) f32, F a multiple of 4.
 */
export function gelu(
  commands: Commands,
  { x, out }: { x: Tensor; out: Tensor },
  { rows, scale }: GeluSettings,
): void {
  const dim = out.shape.at(-1)!;
  const shape = [rows.maximum, dim];
  checkShape("gelu", { x: [x, shape], out: [out, shape] });
  commands.dispatch(GELU, {
    entryPoint: "forward",
    tensors: { rows: rows.count, x, out },
    constants: { DIM: dim, SCALE: scale },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 2, flops: 20 }),
  });
}

/** Records the gradient of `gelu`, the scale included: gradX (rows, F) is overwritten; gradOut (rows, F). */
export function geluBackward(
  commands: Commands,
  { x, gradOut, gradX }: { x: Tensor; gradOut: Tensor; gradX: Tensor },
  { rows, scale }: GeluSettings,
): void {
  const dim = gradOut.shape.at(-1)!;
  const shape = [rows.maximum, dim];
  checkShape("geluBackward", { x: [x, shape], gradOut: [gradOut, shape], gradX: [gradX, shape] });
  commands.dispatch(GELU, {
    entryPoint: "backward",
    tensors: { rows: rows.count, x, grad_out: gradOut, grad_x: gradX },
    constants: { DIM: dim, SCALE: scale },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 3, flops: 23 }),
  });
}
