/** Logits to the next token. */
import type { Uniform } from "./random.ts";

/** How a token is drawn; the filters apply in the order of the fields, as in llama.cpp. */
export interface SamplingOptions {
  /** Logits of tokens seen in the text so far are divided (positive) or multiplied (negative) by this; 1 is off. */
  readonly repeatPenalty: number;
  /** Keep the k likeliest tokens; 0 is off. */
  readonly topK: number;
  /** Keep the fewest likeliest tokens whose probabilities reach this sum (Holtzman et al. 2020); 1 is off. */
  readonly topP: number;
  /** Keep tokens at least this fraction as likely as the likeliest; 0 is off. */
  readonly minP: number;
  /** Divides the logits of the kept tokens; 0 always takes the likeliest, ties to the lowest id. */
  readonly temperature: number;
}

export interface TokenProbability {
  readonly id: number;
  /** Natural logarithm of the model's own probability, before any filter. */
  readonly logProbability: number;
}

interface Candidate {
  readonly id: number;
  readonly logit: number;
}

/**
 * Draws a token from the logits (V).
 *
 * @throws RangeError for logits that are not numbers: the weights are damaged.
 */
export function sampleToken(
  logits: Float32Array,
  { options, seen, next }: { options: SamplingOptions; seen: ReadonlySet<number>; next: Uniform },
): number {
  if (logits.some(Number.isNaN)) {
    throw new RangeError(
      "Cannot choose a token: the logits are not numbers; the model's weights are damaged",
    );
  }
  const { repeatPenalty, topK, topP, minP, temperature } = options;
  let candidates: Candidate[] = Array.from(logits, (logit, id) => {
    if (repeatPenalty === 1 || !seen.has(id)) return { id, logit };
    return { id, logit: logit > 0 ? logit / repeatPenalty : logit * repeatPenalty };
  });
  candidates.sort((a, b) => b.logit - a.logit || a.id - b.id);
  if (temperature === 0) return candidates[0]!.id;
  if (topK > 0) candidates = candidates.slice(0, topK);
  if (topP < 1) candidates = nucleus(candidates, topP);
  if (minP > 0) candidates = candidates.filter(({ logit }) => Math.exp(logit - candidates[0]!.logit) >= minP);
  const weights = candidates.map(({ logit }) => Math.exp((logit - candidates[0]!.logit) / temperature));
  let remaining = next() * weights.reduce((sum, weight) => sum + weight, 0);
  const drawn = weights.findIndex((weight) => (remaining -= weight) < 0);
  // Rounding can leave a remainder after the last one.
  return candidates.at(drawn)!.id;
}

function nucleus(candidates: readonly Candidate[], topP: number): Candidate[] {
  const weights = candidates.map(({ logit }) => Math.exp(logit - candidates[0]!.logit));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const last = weights.findIndex((weight) => (sum += weight) >= topP * total);
  return candidates.slice(0, last < 0 ? candidates.length : last + 1);
}

/** The `count` likeliest tokens and, first, the chosen one. */
export function logProbabilities(
  logits: Float32Array,
  { chosen, count }: { chosen: number; count: number },
): { chosen: TokenProbability; top: TokenProbability[] } {
  const maximum = logits.reduce((largest, logit) => Math.max(largest, logit), -Infinity);
  const logSum = maximum + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - maximum), 0));
  const all = Array.from(logits, (logit, id) => ({ id, logProbability: logit - logSum }));
  const top = all.toSorted((a, b) => b.logProbability - a.logProbability || a.id - b.id).slice(0, count);
  return { chosen: all[chosen]!, top };
}
