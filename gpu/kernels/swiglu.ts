import swigluCode from "./swiglu.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const SWIGLU = defineKernel("swiglu.wgsl", swigluCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/**
 * Records out = silu(gate) * up (Shazeer 2020, arXiv 2002.05202).
 * gateUp (rows, 2F) f32, each row [gate | up]; out (rows, F) f32.
 */
export function swiglu(
  commands: Commands,
  { gateUp, out }: { gateUp: Tensor; out: Tensor },
  { rows }: { rows: Rows },
): void {
  const dim = out.shape.at(-1)!;
  checkShape("swiglu", { gateUp: [gateUp, [rows.maximum, 2 * dim]], out: [out, [rows.maximum, dim]] });
  commands.dispatch(SWIGLU, {
    entryPoint: "forward",
    tensors: { rows: rows.count, gate_up: gateUp, out },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 3, flops: 5 }),
  });
}

/** Records the gradient of `swiglu`: gradGateUp (rows, 2F) is overwritten; gradOut (rows, F). */
export function swigluBackward(
  commands: Commands,
  { gateUp, gradOut, gradGateUp }: { gateUp: Tensor; gradOut: Tensor; gradGateUp: Tensor },
  { rows }: { rows: Rows },
): void {
  const dim = gradOut.shape.at(-1)!;
  const shape = [rows.maximum, 2 * dim];
  checkShape("swigluBackward", {
    gateUp: [gateUp, shape],
    gradOut: [gradOut, [rows.maximum, dim]],
    gradGateUp: [gradGateUp, shape],
  });
  commands.dispatch(SWIGLU, {
    entryPoint: "backward",
    tensors: { rows: rows.count, gate_up: gateUp, grad_out: gradOut, grad_gate_up: gradGateUp },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 5, flops: 10 }),
  });
}
