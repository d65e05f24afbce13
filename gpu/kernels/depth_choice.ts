import depthChoiceCode from "./depth_choice.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

const DEPTH_CHOICE = defineKernel("depth_choice.wgsl", depthChoiceCode);

/** Numbers of the functions in depth_choice.wgsl. */
const FUNCTIONS = { softmax: 0, sigmoid: 1, none: 2 } as const;

/** Floating-point operations that make a probability of a logit. */
const PROBABILITY_OPERATIONS = { softmax: 4, sigmoid: 4, none: 1 } as const;

/** Invocations of a workgroup in depth_choice.wgsl. */
const WIDTH = 64;

/** What turns the logits of a token into probabilities, before alpha; `none` takes them as they are. */
export type DepthFunction = keyof typeof FUNCTIONS;

/** Settings of `depthChoice` and `depthChoiceBackward`. */
export interface DepthChoiceSettings {
  readonly rows: Rows;
  /** R, the largest depth. */
  readonly recursions: number;
  readonly alpha: number;
  readonly function: DepthFunction;
}

/**
 * Records token choice (Bae et al. 2025, arXiv 2507.10524): each row gets the depth 1..R of its largest
 * p_j + bias_j with p = alpha * f(logits), ties to the lowest.
 *
 * logits (rows, R) f32; bias (R) f32, for loss-free balancing, else zeros; forced (1) u32: 0, or a depth that every row
 * gets instead, at most R. Overwritten, all f32: probabilities (rows, R), p; depths (rows), whole numbers; gates (rows),
 * p at the depth, without the bias; squares (rows), logsumexp(logits)^2, whose mean is the z-loss.
 */
export function depthChoice(
  commands: Commands,
  { logits, bias, forced, probabilities, depths, gates, squares }: {
    logits: Tensor;
    bias: Tensor;
    forced: Tensor;
    probabilities: Tensor;
    depths: Tensor;
    gates: Tensor;
    squares: Tensor;
  },
  { rows, recursions, alpha, function: name }: DepthChoiceSettings,
): void {
  checkShape("depthChoice", {
    logits: [logits, [rows.maximum, recursions]],
    bias: [bias, [recursions]],
    forced: [forced, [1]],
    probabilities: [probabilities, [rows.maximum, recursions]],
    depths: [depths, [rows.maximum]],
    gates: [gates, [rows.maximum]],
    squares: [squares, [rows.maximum]],
  });
  commands.dispatch(DEPTH_CHOICE, {
    entryPoint: "forward",
    tensors: { rows: rows.count, logits, bias, forced, probabilities, depths, gates, squares },
    constants: { RECURSIONS: recursions, FUNCTION: FUNCTIONS[name], ALPHA: alpha },
    grid: rowGrid(rows, { unitsPerGroup: WIDTH }),
    cost: rowCost(rows, {
      numbers: 2 * recursions + 3,
      flops: (4 + PROBABILITY_OPERATIONS[name]) * recursions + 3,
    }),
  });
}

/**
 * Records the gradient of what depends on a token's logits: its gate, balancingCoefficient * `balancingLoss` and
 * zCoefficient * mean(squares), both over the rows in use. gradLogits (rows, R) f32 is overwritten.
 *
 * gradGates (rows) f32; load (R) u32 of `depthLoad`; the others as in `depthChoice`. The choice, the bias and the load
 * have no gradient.
 */
export function depthChoiceBackward(
  commands: Commands,
  { logits, probabilities, depths, gradGates, load, gradLogits }: {
    logits: Tensor;
    probabilities: Tensor;
    depths: Tensor;
    gradGates: Tensor;
    load: Tensor;
    gradLogits: Tensor;
  },
  { rows, recursions, alpha, function: name, balancingCoefficient, zCoefficient }: DepthChoiceSettings & {
    readonly balancingCoefficient: number;
    readonly zCoefficient: number;
  },
): void {
  checkShape("depthChoiceBackward", {
    logits: [logits, [rows.maximum, recursions]],
    probabilities: [probabilities, [rows.maximum, recursions]],
    depths: [depths, [rows.maximum]],
    gradGates: [gradGates, [rows.maximum]],
    load: [load, [recursions]],
    gradLogits: [gradLogits, [rows.maximum, recursions]],
  });
  commands.dispatch(DEPTH_CHOICE, {
    entryPoint: "backward",
    tensors: {
      rows: rows.count,
      logits,
      probabilities,
      depths,
      grad_gates: gradGates,
      load,
      grad_logits: gradLogits,
    },
    settings: { balancing_coefficient: balancingCoefficient, z_coefficient: zCoefficient },
    constants: { RECURSIONS: recursions, FUNCTION: FUNCTIONS[name], ALPHA: alpha },
    grid: rowGrid(rows, { unitsPerGroup: WIDTH }),
    cost: rowCost(rows, { numbers: 3 * recursions + 2, flops: 16 * recursions }),
  });
}
