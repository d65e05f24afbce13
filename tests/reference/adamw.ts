/** One tensor with its gradient and moments, all of the same length. */
export interface AdamwState {
  readonly weight: Float64Array;
  readonly gradient: Float64Array;
  readonly firstMoment: Float64Array;
  readonly secondMoment: Float64Array;
}

/** Settings of one update. */
export interface AdamwSettings {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** 0 for tensors that do not decay. */
  readonly weightDecay: number;
  /** Number of this update, from 1. */
  readonly step: number;
  /** Factor on the gradient; see `clipCoefficient`. */
  readonly clip: number;
}

/**
 * min(1, maxNorm / norm): what brings a gradient of this norm down to maxNorm, 1 where it is below.
 */
export function clipCoefficient(norm: number, maxNorm: number): number {
  return norm > maxNorm ? maxNorm / norm : 1;
}

/**
 * One AdamW update (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, with the decay scaled by the
 * learning rate).
 *
 * g = clip * gradient, m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
 * mean = m / (1 - beta1^step), deviation = sqrt(v / (1 - beta2^step)),
 * weight = weight (1 - learningRate * weightDecay) - learningRate * mean / (deviation + epsilon).
 */
export function adamw(
  { weight, gradient, firstMoment, secondMoment }: AdamwState,
  { learningRate, beta1, beta2, epsilon, weightDecay, step, clip }: AdamwSettings,
): Omit<AdamwState, "gradient"> {
  const m = firstMoment.map((old, i) => beta1 * old + (1 - beta1) * clip * gradient[i]!);
  const v = secondMoment.map((old, i) => beta2 * old + (1 - beta2) * (clip * gradient[i]!) ** 2);
  const updated = weight.map((old, i) => {
    const mean = m[i]! / (1 - beta1 ** step);
    const deviation = Math.sqrt(v[i]! / (1 - beta2 ** step));
    return old * (1 - learningRate * weightDecay) - learningRate * mean / (deviation + epsilon);
  });
  return { weight: updated, firstMoment: m, secondMoment: v };
}
