/** What the ratios of paired measurements say of all such pairs. */
import { mean, median, standardDeviation } from "./statistics.ts";
import { studentT } from "./student_t.ts";

/** Probability with which an interval holds the true ratio. */
export const CONFIDENCE = 0.95;

/** Some ratios in short. */
export interface RatioSummary {
  readonly median: number;
  /** The smallest and the largest. */
  readonly range: readonly [number, number];
  readonly geometricMean: number;
  /** Of the geometric mean, with `CONFIDENCE`; null for a single ratio, which tells no spread. */
  readonly interval: readonly [number, number] | null;
}

/**
 * Summarizes at least one ratio above 0. Logarithms of ratios are taken as normally distributed: their mean and
 * Student's t of their deviation give the geometric mean and its interval, and a ratio and its inverse count the same.
 */
export function summarizeRatios(ratios: readonly number[]): RatioSummary {
  const logs = ratios.map(Math.log);
  return {
    median: median(ratios),
    range: [Math.min(...ratios), Math.max(...ratios)],
    geometricMean: Math.exp(mean(logs)),
    interval: intervalOf(logs),
  };
}

function intervalOf(logs: readonly number[]): [number, number] | null {
  const degrees = logs.length - 1;
  if (degrees === 0) return null;
  const error = standardDeviation(logs) / Math.sqrt(logs.length);
  const margin = studentT(degrees, { probability: CONFIDENCE }) * error;
  const centre = mean(logs);
  return [Math.exp(centre - margin), Math.exp(centre + margin)];
}

/** What is shown of a change whose speed is a multiple of the base's. */
export type Verdict = "faster" | "slower" | "no difference shown";

/** Faster or slower where the whole interval is. */
export function verdictOf({ interval }: RatioSummary): Verdict {
  if (interval === null) return "no difference shown";
  const [low, high] = interval;
  return low > 1 ? "faster" : high < 1 ? "slower" : "no difference shown";
}
