import { adamw, type AdamwState, clipCoefficient } from "./adamw.ts";
import { type LossTerms, lossTerms } from "./loss.ts";
import { sumSquares } from "./sum_squares.ts";
import { backward, type Batch, forward } from "./transformer.ts";
import type { Model, Weights } from "./weights.ts";

/** A run of AdamW on one batch. */
export interface TrainingSettings {
  readonly steps: number;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Decay of matrices; norm weights do not decay. */
  readonly weightDecay: number;
  /** Largest global gradient norm. */
  readonly maxNorm: number;
}

/** What a run met at each update, and the weights it ended with. */
export interface TrainingResult {
  /** Before each update. */
  readonly losses: readonly LossTerms[];
  /** Global L2 norm of the gradient at each update, before clipping. */
  readonly gradientNorms: readonly number[];
  readonly weights: Weights;
}

/** Global L2 norm over all tensors; a tied embedding counts once. */
export function globalNorm(tensors: Weights): number {
  return Math.sqrt(tensors.values().reduce((sum, tensor) => sum + sumSquares(tensor), 0));
}

/** Trains on the same batch at every step, with a constant learning rate and global clipping. */
export function train(
  model: Model,
  { batch, targets, settings }: { batch: Batch; targets: ArrayLike<number>; settings: TrainingSettings },
): TrainingResult {
  const losses: LossTerms[] = [];
  const gradientNorms: number[] = [];
  const moments = new Map<string, Pick<AdamwState, "firstMoment" | "secondMoment">>();
  let weights = model.weights;
  for (let step = 1; step <= settings.steps; step++) {
    const current = { config: model.config, weights };
    const tape = forward(current, batch);
    losses.push(lossTerms(current, { tape, targets }));
    const gradients = backward(current, { tape, targets });
    const norm = globalNorm(gradients);
    gradientNorms.push(norm);
    const clip = clipCoefficient(norm, settings.maxNorm);
    const updated = new Map<string, Float64Array>();
    for (const [name, weight] of weights) {
      const gradient = gradients.get(name);
      if (!gradient) {
        updated.set(name, weight);
        continue;
      }
      const weightDecay = name.endsWith("norm.weight") ? 0 : settings.weightDecay;
      const { firstMoment, secondMoment } = moments.get(name) ??
        { firstMoment: new Float64Array(weight.length), secondMoment: new Float64Array(weight.length) };
      const state = { weight, gradient, firstMoment, secondMoment };
      const next = adamw(state, { ...settings, weightDecay, step, clip });
      updated.set(name, next.weight);
      moments.set(name, next);
    }
    weights = updated;
  }
  return { losses, gradientNorms, weights };
}
