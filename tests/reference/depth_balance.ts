/** How n tokens are spread over the depths 1..R. */
export interface DepthLoad {
  /** (R), tokens of each depth. */
  readonly load: Int32Array;
  /** (R), mean probability of each depth. */
  readonly means: Float64Array;
}

/** Load and mean probabilities, 0 without tokens; depths (n), probabilities (n, R). */
export function depthLoad(
  { depths, probabilities }: { depths: ArrayLike<number>; probabilities: Float64Array },
  { recursions }: { recursions: number },
): DepthLoad {
  const load = new Int32Array(recursions);
  const means = new Float64Array(recursions);
  for (let t = 0; t < depths.length; t++) {
    load[depths[t]! - 1]! += 1;
    for (let j = 0; j < recursions; j++) means[j]! += probabilities[t * recursions + j]! / depths.length;
  }
  return { load, means };
}

/** sum_j f_j means_j with f_j = R load_j / n (Bae et al. 2025, arXiv 2507.10524); 0 without tokens. */
export function balancingLoss({ load, means }: DepthLoad): number {
  const tokens = load.reduce((sum, count) => sum + count, 0);
  if (tokens === 0) return 0;
  return means.reduce((sum, mean, j) => sum + load.length * load[j]! / tokens * mean, 0);
}

/** bias_j + rate * sign(mean(load) - load_j) (Wang et al. 2024, arXiv 2408.15664); (R) each. */
export function updateBias(
  { load, bias }: { load: ArrayLike<number>; bias: Float64Array },
  { rate }: { rate: number },
): Float64Array {
  const counts = Array.from(load);
  const total = counts.reduce((sum, count) => sum + count, 0);
  return bias.map((value, j) => value + rate * Math.sign(total - counts[j]! * counts.length));
}
