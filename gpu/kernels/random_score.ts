import randomScoreCode from "./random_score.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const RANDOM_SCORE = defineKernel("random_score.wgsl", randomScoreCode);

/** Invocations of a workgroup in random_score.wgsl. */
const WIDTH = 64;

/**
 * Records scores uniform in (0, 1): the control for a learned router, with O outputs a row. A score is a hash of the
 * seed, its stream and the row's place: its row in the state, or with `byPosition` its position, so that it does not
 * depend on how a text is cut into passes. Routers take `stream` to `stream` + O - 1 for their own; the host writes a
 * new seed (1) u32 before each training step. logits (packing.rows, O) f32.
 */
export function randomScore(
  commands: Commands,
  { logits, packing, seed }: { logits: Tensor; packing: Packing; seed: Tensor },
  { stream, outputs = 1, byPosition = false }: { stream: number; outputs?: number; byPosition?: boolean },
): void {
  const { rows, records } = packing;
  checkShape("randomScore", {
    logits: [logits, [rows.maximum * outputs]],
    packing: [records, [rows.maximum, 4]],
    seed: [seed, [1]],
  });
  commands.dispatch(RANDOM_SCORE, {
    entryPoint: "random_score",
    tensors: { rows: rows.count, packing: records, seed, logits },
    constants: { STREAM: stream, OUTPUTS: outputs, BY_POSITION: Number(byPosition) },
    grid: rowGrid(rows, { unitsPerRow: outputs, unitsPerGroup: WIDTH }),
    cost: rowCost(rows, { numbers: 4 + outputs, flops: 2 * outputs }),
  });
}
