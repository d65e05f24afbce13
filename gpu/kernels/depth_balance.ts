import depthBalanceCode from "./depth_balance.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { fixedCost, rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Rows } from "../rows.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const DEPTH_BALANCE = defineKernel("depth_balance.wgsl", depthBalanceCode, {
  "row_reduce.wgsl": rowReduceCode,
});

/** Invocations that share the rows of a depth. */
const LANES = 256;

/**
 * Records how token choice spread the rows over the depths 1..R: load (R) u32, the rows of each depth, and means (R)
 * f32, the mean probability of each; both 0 without rows. totals (R) u32 += load: the load of a step of several
 * batches, which its owner clears.
 * depths (rows) f32; probabilities (rows, R) f32. The same values give the same bits every time.
 *
 * @throws RangeError for more rows than one workgroup can loop over.
 */
export function depthLoad(
  commands: Commands,
  { depths, probabilities, load, totals, means }: {
    depths: Tensor;
    probabilities: Tensor;
    load: Tensor;
    totals: Tensor;
    means: Tensor;
  },
  { rows, recursions }: { rows: Rows; recursions: number },
): void {
  checkShape("depthLoad", {
    depths: [depths, [rows.maximum]],
    probabilities: [probabilities, [rows.maximum, recursions]],
    load: [load, [recursions]],
    totals: [totals, [recursions]],
    means: [means, [recursions]],
  });
  // Also what f32 can count.
  if (rows.maximum > LANES * MAX_LOOP_TURNS) {
    throw new RangeError(
      `Cannot count the depths of ${rows.maximum} rows in one dispatch, at most ${LANES * MAX_LOOP_TURNS}; ` +
        "lower --batch-size or --sequence-length",
    );
  }
  commands.dispatch(DEPTH_BALANCE, {
    entryPoint: "depth_load",
    tensors: { rows: rows.count, depths, probabilities, load, totals, means },
    constants: { RECURSIONS: recursions, LANES, ROWS: 1 },
    grid: [recursions, 1, 1],
    cost: {
      ...rowCost(rows, { numbers: 1 + recursions, flops: 2 * recursions }),
      fixed: { bytes: 4 * recursions * ELEMENT_BYTES },
    },
  });
}

/**
 * Records losses[slot] += scale * sum_j f_j P_j, the balancing loss of token choice (Bae et al. 2025, arXiv
 * 2507.10524): f_j = R * load_j / rows, P_j = means_j, both of `depthLoad`. It is alpha times 1 (softmax) or R / 2
 * (sigmoid) where every depth is equally likely. losses f32.
 *
 * @throws RangeError for a slot past the end of losses.
 */
export function balancingLoss(
  commands: Commands,
  { load, means, losses }: { load: Tensor; means: Tensor; losses: Tensor },
  { rows, recursions, slot = 0, scale = 1 }: {
    rows: Rows;
    recursions: number;
    slot?: number;
    scale?: number;
  },
): void {
  checkShape("balancingLoss", { load: [load, [recursions]], means: [means, [recursions]] });
  if (!(slot < losses.shape[0]!)) {
    throw new RangeError(
      `Cannot record balancingLoss: slot ${slot} is past the ${losses.shape[0]} of ${losses.label}`,
    );
  }
  commands.dispatch(DEPTH_BALANCE, {
    entryPoint: "balancing_loss",
    tensors: { rows: rows.count, load, means, losses },
    settings: { slot, scale },
    constants: { RECURSIONS: recursions },
    grid: [1, 1, 1],
    cost: fixedCost({ numbers: 2 * recursions + 2, flops: 3 * recursions + 2 }),
  });
}

/**
 * Records bias_j += rate * sign(mean(totals) - totals_j), loss-free balancing after an optimizer step (Wang et al. 2024,
 * arXiv 2408.15664); where forced[0] is not 0 the bias becomes 0 instead.
 * totals (R) u32 of `depthLoad`, left as they are; bias (R) f32; forced (1) u32 of `depthChoice`.
 */
export function updateBias(
  commands: Commands,
  { totals, bias, forced }: { totals: Tensor; bias: Tensor; forced: Tensor },
  { rate }: { rate: number },
): void {
  const [recursions] = bias.shape as [number];
  checkShape("updateBias", { totals: [totals, [recursions]], forced: [forced, [1]] });
  commands.dispatch(DEPTH_BALANCE, {
    entryPoint: "update_bias",
    tensors: { totals, bias, forced },
    constants: { RECURSIONS: recursions, RATE: rate },
    grid: [1, 1, 1],
    cost: fixedCost({ numbers: 3 * recursions + 1, flops: 2 * recursions }),
  });
}
