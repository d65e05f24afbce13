import { row } from "./rows.ts";
import { sigmoid } from "./sigmoid.ts";

/** How logits become probabilities: alpha * softmax, alpha * sigmoid or alpha * logit. */
export interface DepthChoiceSettings {
  /** R, the largest depth. */
  readonly recursions: number;
  readonly alpha: number;
  readonly function: "softmax" | "sigmoid" | "none";
}

/** What token choice decides for n tokens. */
export interface DepthChoice {
  /** (n, R), without the bias. */
  readonly probabilities: Float64Array;
  /** (n), 1..R. */
  readonly depths: Int32Array;
  /** (n), the probability of the depth. */
  readonly gates: Float64Array;
  /** (n), logsumexp(logits)^2. */
  readonly squares: Float64Array;
}

/** Weights of the two losses in what is differentiated. */
export interface DepthChoiceCoefficients {
  readonly balancingCoefficient: number;
  readonly zCoefficient: number;
}

/** log sum_j exp(z_j). */
function logSumExp(logits: Float64Array): number {
  const largest = Math.max(...logits);
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}

function softmax(logits: Float64Array): Float64Array {
  const exponent = logSumExp(logits);
  return logits.map((logit) => Math.exp(logit - exponent));
}

function probabilitiesOf(
  logits: Float64Array,
  { alpha, function: name }: DepthChoiceSettings,
): Float64Array {
  if (name === "none") return logits.map((logit) => alpha * logit);
  const shares = name === "softmax" ? softmax(logits) : logits.map(sigmoid);
  return shares.map((share) => alpha * share);
}

/**
 * Token choice (Bae et al. 2025, arXiv 2507.10524): the depth of each token is 1 + argmax_j (p_j + bias_j), ties to the
 * lowest; a `forced` depth, unless 0, replaces it. logits (n, R), bias (R).
 */
export function depthChoice(
  { logits, bias, forced = 0 }: { logits: Float64Array; bias: Float64Array; forced?: number },
  settings: DepthChoiceSettings,
): DepthChoice {
  const { recursions: width } = settings;
  const tokens = logits.length / width;
  const probabilities = new Float64Array(logits.length);
  const depths = new Int32Array(tokens);
  const gates = new Float64Array(tokens);
  const squares = new Float64Array(tokens);
  for (let t = 0; t < tokens; t++) {
    const z = row(logits, { index: t, width });
    const p = probabilitiesOf(z, settings);
    const scores = p.map((value, j) => value + bias[j]!);
    probabilities.set(p, t * width);
    depths[t] = forced === 0 ? 1 + scores.indexOf(Math.max(...scores)) : forced;
    gates[t] = p[depths[t]! - 1]!;
    squares[t] = logSumExp(z) ** 2;
  }
  return { probabilities, depths, gates, squares };
}

/** dp_j / dz_k of one token. */
function probabilitySlope(
  { z, j, k }: { z: Float64Array; j: number; k: number },
  { alpha, function: name }: DepthChoiceSettings,
): number {
  const same = j === k ? 1 : 0;
  if (name === "none") return alpha * same;
  if (name === "sigmoid") return alpha * same * sigmoid(z[j]!) * (1 - sigmoid(z[j]!));
  const shares = softmax(z);
  return alpha * shares[j]! * (same - shares[k]!);
}

/**
 * Gradient of dot(gradGates, gates) + balancingCoefficient * balancingLoss + zCoefficient * mean(squares), (n, R), with
 * depths (n), bias and load (R) taken as constants.
 *
 * gradLogits_k = sum_j g_j dp_j / dz_k + zCoefficient / n * 2 logsumexp(z) softmax(z)_k,
 * g_j = [j = depth - 1] gradGate + balancingCoefficient / n * R load_j / n.
 */
export function depthChoiceBackward(
  { gradGates, logits, depths, load }: {
    gradGates: Float64Array;
    logits: Float64Array;
    depths: ArrayLike<number>;
    load: ArrayLike<number>;
  },
  settings: DepthChoiceSettings & DepthChoiceCoefficients,
): Float64Array {
  const { recursions: width, balancingCoefficient, zCoefficient } = settings;
  const tokens = depths.length;
  const gradLogits = new Float64Array(logits.length);
  for (let t = 0; t < tokens; t++) {
    const z = row(logits, { index: t, width });
    const zSlope = zCoefficient / tokens * 2 * logSumExp(z);
    const gradient = softmax(z).map((share) => zSlope * share);
    for (let j = 0; j < width; j++) {
      const fromGate = depths[t] === j + 1 ? gradGates[t]! : 0;
      const g = fromGate + balancingCoefficient / tokens * (width * load[j]! / tokens);
      for (let k = 0; k < width; k++) gradient[k]! += g * probabilitySlope({ z, j, k }, settings);
    }
    gradLogits.set(gradient, t * width);
  }
  return gradLogits;
}
