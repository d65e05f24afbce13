import binaryCrossEntropyCode from "./binary_cross_entropy.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const BINARY_CROSS_ENTROPY = defineKernel("binary_cross_entropy.wgsl", binaryCrossEntropyCode);

/** Invocations of a workgroup in binary_cross_entropy.wgsl. */
const WIDTH = 64;

/**
 * Records, for every candidate, losses_i = max(l, 0) - l * y + log(1 + exp(-|l|)), squares_i = l^2 (the z-loss of a
 * router with one output) and agreements_i = 1 where the label is 1 just where l > 0, else 0 (their mean is the paper's
 * sampling accuracy), with l = logits_i and y = labels_i. All (rows) f32, the labels 0 or 1.
 *
 * gradLogits, unless null, is overwritten by the gradient of coefficient * mean(losses) + zCoefficient * mean(squares):
 * (coefficient * (sigmoid(l) - y) + zCoefficient * 2 * l) / rows.
 */
export function binaryCrossEntropy(
  commands: Commands,
  { logits, labels, losses, squares, agreements, gradLogits }: {
    logits: Tensor;
    labels: Tensor;
    losses: Tensor;
    squares: Tensor;
    agreements: Tensor;
    gradLogits: Tensor | null;
  },
  { rows, coefficient, zCoefficient }: { rows: Rows; coefficient: number; zCoefficient: number },
): void {
  const shape = [rows.maximum];
  checkShape("binaryCrossEntropy", {
    logits: [logits, shape],
    labels: [labels, shape],
    losses: [losses, shape],
    squares: [squares, shape],
    agreements: [agreements, shape],
    ...(gradLogits && { gradLogits: [gradLogits, shape] }),
  });
  const tensors = { rows: rows.count, logits, labels, losses, squares, agreements };
  const grid = rowGrid(rows, { unitsPerGroup: WIDTH });
  if (gradLogits === null) {
    const cost = rowCost(rows, { numbers: 5, flops: 7 });
    commands.dispatch(BINARY_CROSS_ENTROPY, { entryPoint: "forward", tensors, grid, cost });
    return;
  }
  commands.dispatch(BINARY_CROSS_ENTROPY, {
    entryPoint: "forward_backward",
    tensors: { ...tensors, grad_logits: gradLogits },
    settings: { coefficient, z_coefficient: zCoefficient },
    grid,
    cost: rowCost(rows, { numbers: 6, flops: 15 }),
  });
}
