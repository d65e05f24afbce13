import thresholdCode from "./threshold.wgsl" with { type: "text" };
import workgroupScanCode from "./workgroup_scan.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const THRESHOLD = defineKernel("threshold.wgsl", thresholdCode, { "workgroup_scan.wgsl": workgroupScanCode });

/** Times that an invocation goes over its candidates: counting, numbering, writing. */
const TURNS_PER_CANDIDATE = 3;

/** Loop turns of an invocation that do not depend on the candidates, rounded up. */
const FIXED_TURNS = 1000;

/** Constant SCORES in threshold.wgsl. */
const SCORES = { candidate: 0, state: 1 } as const;

/**
 * Records the causal form of expert choice: the candidates whose score is above the threshold go on, whatever the
 * others do, in the order they have. Their number is `packing.rows.count`, for which later kernels are dispatched.
 *
 * logits f32, the scores: by default (candidates.rows), one for each candidate; with `scores: "state"` one for each row
 * of the state, which a candidate's record points to. Overwritten: prefix (candidates.rows + 1) u32, scratch; chosen
 * (kept) u32, indices of candidates; packing, with room for every candidate.
 *
 * @throws TypeError when the packing's row count is not dynamic, RangeError for more candidates than one workgroup can
 * loop over.
 */
export function thresholdSelect(
  commands: Commands,
  { logits, candidates, prefix, chosen, packing }: {
    logits: Tensor;
    candidates: Packing;
    prefix: Tensor;
    chosen: Tensor;
    packing: Packing;
  },
  { threshold, scores = "candidate" }: { threshold: number; scores?: keyof typeof SCORES },
): void {
  const { maximum } = candidates.rows;
  checkShape("thresholdSelect", {
    ...(scores === "candidate" && { logits: [logits, [maximum]] as const }),
    candidates: [candidates.records, [maximum, 4]],
    prefix: [prefix, [maximum + 1]],
    chosen: [chosen, [maximum]],
    packing: [packing.records, [maximum, 4]],
  });
  if (packing.rows.indirect === null) {
    throw new TypeError("Cannot record thresholdSelect: the packing has a fixed number of rows");
  }
  // A software adapter pays for each vector of invocations at each barrier.
  const width = commands.device.info.isSoftware ? 64 : 256;
  const most = Math.floor((MAX_LOOP_TURNS - FIXED_TURNS) / TURNS_PER_CANDIDATE) * width;
  if (maximum > most) {
    throw new RangeError(
      `Cannot choose among ${maximum} tokens in one dispatch, at most ${most}; ` +
        "lower --batch-size or --sequence-length",
    );
  }
  commands.dispatch(THRESHOLD, {
    entryPoint: "select_rows",
    tensors: {
      rows: candidates.rows.count,
      logits,
      candidates: candidates.records,
      prefix,
      chosen,
      packing: packing.records,
      kept_rows: packing.rows.count,
    },
    settings: { threshold },
    constants: { WIDTH: width, SCORES: SCORES[scores] },
    grid: [1, 1, 1],
    // A score, with the row that it is of, and a prefix; how many rows are kept, and written, is not known before.
    cost: rowCost(candidates.rows, { numbers: scores === "state" ? 3 : 2 }),
  });
  packing.rows.indirect.record(commands, packing.rows.count);
}
