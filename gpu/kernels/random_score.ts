import randomScoreCode from "./random_score.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const RANDOM_SCORE = defineKernel("random_score.wgsl", randomScoreCode);

/** Invocations of a workgroup in random_score.wgsl. */
const WIDTH = 64;

/**
 * Records logits_i uniform in (0, 1), a hash of the seed, the stream and packing_i.x: the control for a learned router.
 * Each recursion takes a `stream` of its own; the host writes a new seed (1) u32 before each step. logits
 * (packing.rows) f32.
 */
export function randomScore(
  commands: Commands,
  { logits, packing, seed }: { logits: Tensor; packing: Packing; seed: Tensor },
  { stream }: { stream: number },
): void {
  const { rows, records } = packing;
  checkShape("randomScore", {
    logits: [logits, [rows.maximum]],
    packing: [records, [rows.maximum, 4]],
    seed: [seed, [1]],
  });
  commands.dispatch(RANDOM_SCORE, {
    entryPoint: "random_score",
    tensors: { rows: rows.count, packing: records, seed, logits },
    constants: { STREAM: stream },
    grid: rowGrid(rows, { unitsPerGroup: WIDTH }),
  });
}
