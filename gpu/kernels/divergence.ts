import divergenceCode from "./divergence.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { rowLanes } from "./row_lanes.ts";

const DIVERGENCE = defineKernel("divergence.wgsl", divergenceCode, { "row_reduce.wgsl": rowReduceCode });

/**
 * Records how far the distribution of the next token, Q_r = softmax(logits_r), is from the reference's,
 * P_r = softmax(referenceLogits_r): divergences_r = KL(P_r || Q_r) in nats, never negative and 0 for equal rows, and
 * agreements_r = 1 where both have the same largest logit, ties to the lowest index, else 0. Both are NaN for a row with
 * a logit that is NaN or infinite; a divergence beyond f32 is infinite or NaN. With a `first`, the logits are those of
 * later rows: row r's results go to first + r.
 *
 * referenceLogits, logits (rows, stride) f32, stride a multiple of 4 and at least vocabSize: the columns from vocabSize
 * on are left out. divergences, agreements (first + rows) f32.
 *
 * @throws TypeError for a stride below vocabSize or not a multiple of 4.
 */
export function divergence(
  commands: Commands,
  { referenceLogits, logits, divergences, agreements }: {
    referenceLogits: Tensor;
    logits: Tensor;
    divergences: Tensor;
    agreements: Tensor;
  },
  { rows, first = 0, vocabSize }: { rows: Rows; first?: number; vocabSize: number },
): void {
  const stride = logits.shape.at(-1)!;
  if (stride < vocabSize || stride % 4 !== 0) {
    throw new TypeError(
      `Cannot record divergence: logits has shape (${logits.shape}), ` +
        `expected rows of at least ${vocabSize} columns, a multiple of 4`,
    );
  }
  checkShape("divergence", {
    referenceLogits: [referenceLogits, [rows.maximum, stride]],
    logits: [logits, [rows.maximum, stride]],
    divergences: [divergences, [first + rows.maximum]],
    agreements: [agreements, [first + rows.maximum]],
  });
  // The second loop goes over both rows once more.
  const lanes = rowLanes(commands.device, stride / 4 * 2);
  commands.dispatch(DIVERGENCE, {
    entryPoint: "divergence",
    tensors: { rows: rows.count, reference_logits: referenceLogits, logits, divergences, agreements },
    settings: { first },
    constants: { VOCAB: vocabSize, STRIDE: stride, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
    cost: rowCost(rows, { columns: vocabSize, numbers: 2, flops: 18 }),
  });
}
