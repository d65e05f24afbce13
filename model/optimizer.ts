/** AdamW over the flat weights, with the global gradient norm clipped first. */
import type { Commands } from "../gpu/commands.ts";
import { adamw, adamwStep } from "../gpu/kernels/adamw.ts";
import { clipNorm, partialSumCount, sumSquares } from "../gpu/kernels/sum_squares.ts";
import type { Allocator } from "../gpu/memory.ts";
import { createTensor, type Tensor, viewTensor, writeTensor } from "../gpu/tensor.ts";
import type { ParameterLayout, ParameterViews } from "./parameter_layout.ts";

/** What is fixed for a run. */
export interface OptimizerSettings {
  readonly betas: readonly [beta1: number, beta2: number];
  readonly eps: number;
  /** For every matrix; norm weights never decay. */
  readonly weightDecay: number;
  /** Largest global gradient norm; 0 turns clipping off. */
  readonly maxGradNorm: number;
}

/** The paper's recipe (its appendix; eps is PyTorch's default). */
export const DEFAULT_OPTIMIZER: OptimizerSettings = {
  betas: [0.9, 0.95],
  eps: 1e-8,
  weightDecay: 0.1,
  maxGradNorm: 1,
};

/** State of the optimizer; the moments have the weights' layout. */
export interface OptimizerState {
  readonly firstMoments: ParameterViews;
  readonly secondMoments: ParameterViews;
  readonly partials: Tensor;
  readonly squares: Tensor;
  /** (2): gradient norm before clipping, and the factor applied; 0 when the norm is not finite. */
  readonly norm: Tensor;
  /** (4): see `adamwStep`. */
  readonly step: Tensor;
}

export function allocateOptimizer(device: Allocator, layout: ParameterLayout): OptimizerState {
  const tensor = (label: string, size: number): Tensor => createTensor(device, { shape: [size], label });
  return {
    firstMoments: layout.allocate(device, "first moments"),
    secondMoments: layout.allocate(device, "second moments"),
    partials: tensor("partial sums", partialSumCount(layout.size)),
    squares: tensor("gradient squares", 1),
    norm: tensor("gradient norm", 2),
    step: tensor("optimizer step", 4),
  };
}

/** Records one update of all weights from their gradients: matrices with decay, norms without. */
export function optimizerUpdate(
  commands: Commands,
  { weights, gradients, state }: {
    weights: ParameterViews;
    gradients: ParameterViews;
    state: OptimizerState;
  },
  { layout, settings }: { layout: ParameterLayout; settings: OptimizerSettings },
): void {
  const { partials, squares, norm, step } = state;
  commands.mark("optimizer");
  sumSquares(commands, { values: gradients.flat, partials, out: squares });
  clipNorm(commands, { squares, norm }, { maxNorm: settings.maxGradNorm });
  const groups = [
    { start: 0, end: layout.decayed, weightDecay: settings.weightDecay },
    { start: layout.decayed, end: layout.size, weightDecay: 0 },
  ];
  for (const { start, end, weightDecay } of groups) {
    const part = ({ flat }: ParameterViews): Tensor => viewTensor(flat, { start, shape: [end - start] });
    adamw(commands, {
      weights: part(weights),
      gradients: part(gradients),
      firstMoments: part(state.firstMoments),
      secondMoments: part(state.secondMoments),
      norm,
      step,
    }, { ...settings, weightDecay });
  }
}

/** Sets learning rate and bias correction for the next update; `step` counts updates from 0. */
export function writeStep(
  device: Allocator,
  state: OptimizerState,
  { learningRate, step, betas }: { learningRate: number; step: number; betas: OptimizerSettings["betas"] },
): void {
  writeTensor(device, state.step, adamwStep({ learningRate, step: step + 1 }, { betas }));
}
