/** Learning rate as a pure function of the step. */

/** Warm-up, stable, decay: the trapezoid of the paper's recipe. */
export interface Schedule {
  readonly learningRate: number;
  readonly steps: number;
  /** Steps of linear rise from 0. */
  readonly warmupSteps: number;
  /** Steps of linear fall to 0 at the end. */
  readonly decaySteps: number;
}

/** The recipe's proportions: 5 % of the steps warm up, the last 20 % decay (paper, appendix on training). */
export function defaultSchedule({ learningRate, steps }: { learningRate: number; steps: number }): Schedule {
  return { learningRate, steps, warmupSteps: Math.ceil(steps * 0.05), decaySteps: Math.ceil(steps * 0.2) };
}

/** Rate for update number `step`, counted from 0. The first update already moves and so does the last. */
export function learningRateAt(
  { learningRate, steps, warmupSteps, decaySteps }: Schedule,
  step: number,
): number {
  const rise = warmupSteps > 0 ? Math.min(1, (step + 1) / warmupSteps) : 1;
  const fall = decaySteps > 0 ? Math.min(1, (steps - step) / decaySteps) : 1;
  return learningRate * Math.max(0, Math.min(rise, fall));
}
