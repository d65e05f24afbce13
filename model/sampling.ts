/** How tokens are drawn, and what a model thought of the alternatives. */
import type { SlotSampling } from "../gpu/kernels/sample.ts";

/** How a token is drawn; the filters apply in llama.cpp's order: penalty, top-k, top-p, min-p, temperature. */
export type SamplingOptions = Omit<SlotSampling, "seed">;

/** What `mor generate` does unless told. */
export const DEFAULT_SAMPLING: SamplingOptions = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0,
  repeatPenalty: 1,
};

/** Always the likeliest token. */
export const GREEDY: SamplingOptions = { temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1 };

export interface TokenProbability {
  readonly id: number;
  /** Natural logarithm of the model's own probability, before any filter. */
  readonly logProbability: number;
}

/** The `count` likeliest tokens of logits (V), ties to the lowest id. */
export function likeliestTokens(logits: Float32Array, { count }: { count: number }): TokenProbability[] {
  const maximum = logits.reduce((largest, logit) => Math.max(largest, logit), -Infinity);
  const logSum = maximum + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - maximum), 0));
  const all = Array.from(logits, (logit, id) => ({ id, logProbability: logit - logSum }));
  return all.toSorted((a, b) => b.logProbability - a.logProbability || a.id - b.id).slice(0, count);
}
