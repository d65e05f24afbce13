import addCode from "./add.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const ADD = defineKernel("add.wgsl", addCode);

/** Constant GROUP of the file. */
const GROUP = 64;

/** Records out = a + b, the residual; all (rows, C) f32. Its gradient is gradOut for both. */
export function add(
  commands: Commands,
  { a, b, out }: { a: Tensor; b: Tensor; out: Tensor },
  { rows }: { rows: Rows },
): void {
  const dim = out.shape.at(-1)!;
  const shape = [rows.maximum, dim];
  checkShape("add", { a: [a, shape], b: [b, shape], out: [out, shape] });
  commands.dispatch(ADD, {
    entryPoint: "forward",
    tensors: { rows: rows.count, a, b, out },
    constants: { DIM: dim },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, numbers: 3, flops: 1 }),
  });
}
