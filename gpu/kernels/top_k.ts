import topKCode from "./top_k.wgsl" with { type: "text" };
import workgroupScanCode from "./workgroup_scan.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const TOP_K = defineKernel("top_k.wgsl", topKCode, { "workgroup_scan.wgsl": workgroupScanCode });

/** Times that an invocation goes over its candidates: four digits, counting, writing. */
const TURNS_PER_CANDIDATE = 6;

/** Loop turns of an invocation that do not depend on the candidates, rounded up. */
const FIXED_TURNS = 1000;

/**
 * Records expert choice: of each sequence's n candidates the k with the largest logit, ties to the lower index, in
 * ascending order. A NaN ranks beyond the infinity of its sign. The sizes are data, so that the same program serves
 * sequences of different lengths and a number kept that changes from step to step.
 *
 * logits (candidates) f32; candidates (candidates, 4) u32; ranges (B, 4) u32, for each sequence its first candidate, n,
 * its first kept row and k, where 1 <= k <= n or both are 0. Overwritten where the ranges reach: chosen (kept) u32,
 * indices into logits; labels (candidates) f32, 1 where kept and 0 elsewhere; packing, the kept candidates.
 *
 * @param longest Most candidates that a sequence may have.
 * @throws RangeError for more candidates than one workgroup can loop over.
 */
export function topK(
  commands: Commands,
  { logits, candidates, ranges, chosen, labels, packing }: {
    logits: Tensor;
    candidates: Packing;
    ranges: Tensor;
    chosen: Tensor;
    labels: Tensor;
    packing: Packing;
  },
  { sequences, longest }: { sequences: number; longest: number },
): void {
  const { maximum } = candidates.rows;
  const { maximum: kept } = packing.rows;
  checkShape("topK", {
    logits: [logits, [maximum]],
    candidates: [candidates.records, [maximum, 4]],
    ranges: [ranges, [sequences, 4]],
    chosen: [chosen, [kept]],
    labels: [labels, [maximum]],
    packing: [packing.records, [kept, 4]],
  });
  // A software adapter pays for each vector of invocations at each barrier.
  const width = commands.device.info.isSoftware ? 64 : 256;
  const most = Math.floor((MAX_LOOP_TURNS - FIXED_TURNS) / TURNS_PER_CANDIDATE) * width;
  if (longest > most) {
    throw new RangeError(
      `Cannot choose among ${longest} tokens of a sequence in one dispatch, at most ${most}; ` +
        "lower --sequence-length",
    );
  }
  commands.dispatch(TOP_K, {
    entryPoint: "top_k",
    tensors: { ranges, logits, candidates: candidates.records, chosen, labels, packing: packing.records },
    constants: { WIDTH: width },
    grid: [sequences, 1, 1],
    // A logit and a label of each candidate; two records and an index of those kept, if their number is fixed.
    cost: {
      ...rowCost(candidates.rows, { numbers: 2 }),
      fixed: { bytes: packing.rows.indirect ? 0 : kept * 9 * ELEMENT_BYTES },
    },
  });
}
