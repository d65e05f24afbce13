import adamwCode from "./adamw.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { fixedCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { linearGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { flatWindows, windowOf } from "./flat_windows.ts";

const ADAMW = defineKernel("adamw.wgsl", adamwCode);

/** Constant GROUP of the file. */
const GROUP = 256;

/** What is fixed for a run. */
export interface AdamwSettings {
  readonly betas: readonly [beta1: number, beta2: number];
  readonly eps: number;
  /** 0 for weights that do not decay. */
  readonly weightDecay: number;
}

/**
 * What `adamw` reads from its `step` tensor, (4) f32: learning rate, 1 - beta1^step, 1 - beta2^step, unused.
 * Steps count from 1.
 */
export function adamwStep(
  { learningRate, step }: { learningRate: number; step: number },
  { betas: [beta1, beta2] }: Pick<AdamwSettings, "betas">,
): Float32Array<ArrayBuffer> {
  return Float32Array.of(learningRate, 1 - beta1 ** step, 1 - beta2 ** step, 0);
}

/**
 * Records one AdamW update (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, the decay scaled by the learning
 * rate). weights, gradients, firstMoments, secondMoments f32 of one size, a multiple of 4; norm (2) from `clipNorm`,
 * step (4) as `adamwStep` makes it, written before each submit. A norm that is not finite changes nothing.
 */
export function adamw(
  commands: Commands,
  { weights, gradients, firstMoments, secondMoments, norm, step }: {
    weights: Tensor;
    gradients: Tensor;
    firstMoments: Tensor;
    secondMoments: Tensor;
    norm: Tensor;
    step: Tensor;
  },
  { betas: [beta1, beta2], eps, weightDecay }: AdamwSettings,
): void {
  const { shape } = weights;
  checkShape("adamw", {
    gradients: [gradients, shape],
    firstMoments: [firstMoments, shape],
    secondMoments: [secondMoments, shape],
    norm: [norm, [2]],
    step: [step, [4]],
  });
  for (const window of flatWindows(commands.device, weights)) {
    commands.dispatch(ADAMW, {
      entryPoint: "update",
      tensors: {
        weights: windowOf(weights, window),
        gradients: windowOf(gradients, window),
        first_moments: windowOf(firstMoments, window),
        second_moments: windowOf(secondMoments, window),
        norm,
        step,
      },
      constants: { GAIN1: 1 - beta1, GAIN2: 1 - beta2, EPS: eps, WEIGHT_DECAY: weightDecay },
      grid: linearGrid(Math.ceil(window.length / 4 / GROUP)),
      cost: fixedCost({ numbers: 7 * window.length, flops: 17 * window.length }),
    });
  }
}
