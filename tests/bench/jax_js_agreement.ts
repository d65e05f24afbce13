/** Whether two programs take the same training steps, and how fast they take them. */
import type { TimedStep } from "./training.ts";

/** Largest part of a loss or gradient norm by which programs that compute the same in f32 may differ. */
export const TOLERANCE = 1e-3;

/** A program and the steps that it has taken. */
export interface Program {
  readonly name: string;
  readonly steps: readonly TimedStep[];
}

/** A program beside the first. */
export interface Result {
  readonly name: string;
  readonly losses: readonly number[];
  readonly gradientNorms: readonly number[];
  readonly largestDifference: number;
  readonly tokensPerSecond: readonly number[];
  /** Pair by pair, how many times as fast as this program the first was. */
  readonly firstOverThis: readonly number[];
}

/** Compares losses and gradient norms of the first `checked` steps and times of the last `repeats`. */
export function compare(
  programs: readonly Program[],
  { checked, repeats, tokens }: {
    checked: number;
    repeats: number;
    /** In a step. */
    tokens: number;
  },
): Result[] {
  const first = programs[0]!.steps;
  return programs.map(({ name, steps }) => ({
    name,
    losses: steps.slice(0, checked).map(({ loss }) => loss),
    gradientNorms: steps.slice(0, checked).map(({ gradNorm }) => gradNorm),
    largestDifference: largestDifference(first.slice(0, checked), steps.slice(0, checked)),
    tokensPerSecond: steps.slice(-repeats).map(({ ms }) => tokens * 1000 / ms),
    firstOverThis: steps.slice(-repeats).map(({ ms }, i) => ms / first.slice(-repeats)[i]!.ms),
  }));
}

/** Of losses and of gradient norms, as a part of the expected; NaN when one of them is not finite. */
export function largestDifference(expected: readonly TimedStep[], actual: readonly TimedStep[]): number {
  return Math.max(
    ...expected.flatMap(({ loss, gradNorm }, i) => [
      Math.abs(actual[i]!.loss - loss) / Math.abs(loss),
      Math.abs(actual[i]!.gradNorm - gradNorm) / Math.abs(gradNorm),
    ]),
  );
}

/** Which program does not do the same as the first in any of its steps, or null when all do. */
export function disagreement(programs: readonly Program[]): string | null {
  const [first, ...others] = programs as [Program, ...Program[]];
  for (const { name, steps } of others) {
    const difference = largestDifference(first.steps, steps);
    // A NaN is within no tolerance.
    if (difference <= TOLERANCE) continue;
    const losses = (of: readonly TimedStep[]): string => of.map(({ loss }) => loss.toFixed(5)).join(", ");
    return `${name} does not do the same: losses ${losses(steps)}, wanted ${losses(first.steps)}; ` +
      `these or the gradient norms are ${
        difference.toExponential(1)
      } of themselves apart, wanted at most ${TOLERANCE}`;
  }
  return null;
}
