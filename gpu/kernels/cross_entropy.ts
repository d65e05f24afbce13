import crossEntropyCode from "./cross_entropy.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { rowLanes } from "./row_lanes.ts";

const CROSS_ENTROPY = defineKernel("cross_entropy.wgsl", crossEntropyCode, {
  "row_reduce.wgsl": rowReduceCode,
});

/** Target of a row that counts neither in the losses nor in the gradient. */
export const IGNORED_TARGET = 0xffffffff;

/**
 * Records losses_r = logsumexp(logits_r) - logits_r[targets_r], in nats, 0 where the target is `IGNORED_TARGET`. With a
 * `first`, the logits are those of later rows: row r's target and loss are at first + r.
 *
 * With a `gradientScale` the logits are overwritten by their gradient, (softmax(logits_r) - onehot(targets_r)) *
 * gradientScale; with null they stay as they are. logits (rows, stride) f32, stride a multiple of 4 and at least
 * vocabSize: the columns from vocabSize on are left out of the loss and get gradient 0. targets (first + rows) u32,
 * below vocabSize or ignored; losses (first + rows) f32.
 *
 * @throws TypeError for a stride below vocabSize or not a multiple of 4.
 */
export function crossEntropy(
  commands: Commands,
  { logits, targets, losses }: { logits: Tensor; targets: Tensor; losses: Tensor },
  { rows, first = 0, vocabSize, gradientScale }: {
    rows: Rows;
    first?: number;
    vocabSize: number;
    gradientScale: number | null;
  },
): void {
  const stride = logits.shape.at(-1)!;
  if (stride < vocabSize || stride % 4 !== 0) {
    throw new TypeError(
      `Cannot record crossEntropy: logits has shape (${logits.shape}), ` +
        `expected rows of at least ${vocabSize} columns, a multiple of 4`,
    );
  }
  checkShape("crossEntropy", {
    logits: [logits, [rows.maximum, stride]],
    targets: [targets, [first + rows.maximum]],
    losses: [losses, [first + rows.maximum]],
  });
  // The gradient goes over the row once more.
  const lanes = rowLanes(commands.device, stride / 4 * 2);
  commands.dispatch(CROSS_ENTROPY, {
    entryPoint: gradientScale === null ? "forward" : "forward_backward",
    tensors: { rows: rows.count, logits, targets, losses },
    settings: { first, gradient_scale: gradientScale ?? 0 },
    constants: { VOCAB: vocabSize, STRIDE: stride, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: lanes.ROWS }),
    cost: gradientScale === null
      ? rowCost(rows, { columns: vocabSize, numbers: 1, flops: 3 })
      : rowCost(rows, { columns: vocabSize, numbers: 2, flops: 6 }),
  });
}
